"""The training loop: one step over all replicas, and the state of a training as arrays.

Its place in the flow: the session drives it step by step and writes what it finds. It is our own
because Keras' `fit` does not work under MultiWorkerMirroredStrategy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from artifact_sync.errors import RefusedError, SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.pipeline import training_batches
from training_cluster.inputs.position import EpochPosition, ReplicaShare
from training_cluster.inputs.split import ExampleSplit
from training_cluster.networks.network import build_model, set_backbone_trainable
from training_cluster.training.averages import WeightAverages
from training_cluster.training.checkpoint import Arrays
from training_cluster.training.objective import Objective
from training_cluster.training.optimizer import build_optimizer, forget_gradients
from training_cluster.training.predictor import named_variables, served_weights
from training_cluster.training.pretrained import load_backbone
from training_cluster.training.schedule import RateSchedule


class TrainingLoop:
    """A model, its optimizer and the averages of its weights under a strategy.

    Attributes:
        pretrained: what the backbone's weights were at the beginning, with a digest; "" when they were drawn.

    Args:
        strategy: one device, all devices of a host, or several hosts.
        config: the training's configuration.
        contract: the shape of the pixels.
        class_count: the number of labels.
        total_steps: the length of the learning rate's schedule.
        class_weights: how much an example of each class counts.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        config: TrainingConfig,
        contract: InputContract,
        class_count: int,
        total_steps: int,
        class_weights: Sequence[float],
    ) -> None:
        self.strategy = strategy
        self.config = config
        self.schedule = RateSchedule.of(config, total_steps=total_steps)
        self.steps_done = 0
        self.is_frozen = False
        table, execution = config.optimization, config.execution
        with strategy.scope():
            self.model = build_model(
                config.model, contract=contract, class_count=class_count, number_format=execution.mixed_precision
            )
            self.pretrained = load_backbone(self.model, config.model)
            is_loss_scaled = execution.mixed_precision == "float16"
            self.optimizer = build_optimizer(table, self.model.trainable_variables, is_loss_scaled=is_loss_scaled)
            followed = named_variables("model", self.model.variables)
            self._averages = WeightAverages(strategy, followed, decay=table.ema_decay) if table.ema_decay else None
        self._statistics = [v for v in self.model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
        self._objective = Objective(self.model, self.optimizer, table, class_weights)
        # Frozen and not are two graphs, and each is traced and compiled when it is first needed.
        self._gradients = {
            is_frozen: tf.function(self._objective.gradients, jit_compile=execution.is_compiled or None)
            for is_frozen in (False, True)
        }
        self._ran: set[bool] = set()
        self._steps = {is_frozen: tf.function(self._replicated_step) for is_frozen in (False, True)}

    def batches(self, split: ExampleSplit, *, position: EpochPosition, meter: InputMeter) -> Iterator[Any]:
        """Return an iterator over the batches that are left of an epoch, shared out over the replicas."""
        self.set_frozen(position.epoch < self.config.model.frozen_epochs)

        def pipeline(context: Any) -> tf.data.Dataset:
            replicas = context.num_replicas_in_sync // context.num_input_pipelines
            share = ReplicaShare(context.num_input_pipelines, context.input_pipeline_id, replicas)
            return training_batches(split, self.config, position=position, share=share, meter=meter)

        return meter.watch(self.strategy.distribute_datasets_from_function(pipeline))

    def set_frozen(self, is_frozen: bool) -> None:
        """Train only the layers after the backbone from now on, or all of them again."""
        if self.is_frozen and not is_frozen:
            forget_gradients(self.optimizer)
        self.is_frozen = is_frozen
        set_backbone_trainable(self.model, not is_frozen)

    def step(self, batch: Any) -> tuple[Any, Any]:
        """Do one step; return mean loss and share of right answers over the global batch, as tensors.

        Raises:
            SettingsError: the step cannot be compiled here.
        """
        rate = tf.constant(self.learning_rate(self.steps_done), tf.float32)
        try:
            loss, accuracy = self._steps[self.is_frozen](*batch, rate, tf.constant(self.steps_done, tf.float32))
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError) as error:
            if self.config.execution.is_compiled and self.is_frozen not in self._ran:
                raise SettingsError(_not_compiled(self.config, error)) from error
            raise
        self._ran.add(self.is_frozen)
        self.steps_done += 1
        return loss, accuracy

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        return self.schedule.rate(step)

    def histograms(self, batch: Any) -> Arrays:
        """Return all weights and their gradients for a batch; with several workers all must call it at the same step.

        The training goes on as if it had not been asked: means of normalisations and seeds are put back.
        """
        kept = [(variable, variable.numpy()) for variable in self.model.non_trainable_variables]
        summed = tf.function(self._summed_gradients)(*batch)
        for variable, value in kept:
            variable.assign(value)
        gradients = (self.strategy.experimental_local_results(gradient)[0].numpy() for gradient in summed)
        trained = self.model.trainable_variables
        found = {f"weights/{variable.path}": np.asarray(variable.numpy()) for variable in trained}
        return found | {f"gradients/{variable.path}": value for variable, value in zip(trained, gradients, strict=True)}

    def arrays(self) -> Arrays:
        """Return the whole state by name; with several hosts all of them must call it at the same step."""
        own = {"loop/steps_done": np.asarray(self.steps_done), "loop/is_frozen": np.asarray(int(self.is_frozen))}
        return own | {name: np.asarray(variable.numpy()) for name, variable in self._variables()}

    def served_weights(self) -> Arrays:
        """Return the weights that would be evaluated and exported now: averages where they are kept."""
        averages = self._averages.named() if self._averages else ()
        variables = [*named_variables("model", self.model.variables), *averages]
        return served_weights({name: np.asarray(variable.numpy()) for name, variable in variables})

    def assign(self, arrays: Arrays) -> None:
        """Set the whole state from what `arrays` returned.

        Raises:
            RefusedError: it is the state of another network or optimizer.
        """
        variables = dict(self._variables())
        strangers = sorted({*variables, "loop/steps_done", "loop/is_frozen"} ^ set(arrays))
        if strangers:
            raise RefusedError(
                f"Resuming refused: the checkpoint and this training differ in {len(strangers)} variables, "
                f"{strangers[0]} for one. The code has changed since; train under another run id."
            )
        with self.strategy.scope():
            for name, variable in variables.items():
                variable.assign(arrays[name])
        self.steps_done = int(arrays["loop/steps_done"])
        self.is_frozen = bool(arrays["loop/is_frozen"])
        set_backbone_trainable(self.model, not self.is_frozen)

    def _variables(self) -> Iterator[tuple[str, Any]]:
        yield from named_variables("model", self.model.variables)
        yield from named_variables("optimizer", self.optimizer.variables)
        if self._averages:
            yield from self._averages.named()

    def _replicated_step(self, pixels: Any, labels: Any, weights: Any, rate: Any, step: Any) -> tuple[Any, Any]:
        self.optimizer.learning_rate = rate
        sums = self.strategy.run(self._replica_step, args=(pixels, labels, weights))
        loss, right, count = tf.unstack(self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None))
        if self._averages:
            self._averages.follow(step)
        return tf.math.divide_no_nan(loss, count), tf.math.divide_no_nan(right, count)

    def _replica_step(self, pixels: Any, labels: Any, weights: Any) -> Any:
        gradients, sums = self._gradients[self.is_frozen](pixels, labels, weights)
        self.optimizer.apply(self._over_replicas(gradients), self.model.trainable_variables)
        return sums

    def _over_replicas(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients' sums, and make the replicas' means of normalisations the same."""
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        # Each replica's normalisations saw its own part of the batch. Frozen ones saw nothing.
        statistics = [] if self.is_frozen or replicas == 1 else self._statistics
        means = [variable.value / replicas for variable in statistics]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, *means])
        for variable, mean in zip(statistics, summed[len(gradients) :], strict=True):
            variable.assign(mean)
        return list(summed[: len(gradients)])

    def _summed_gradients(self, pixels: Any, labels: Any, weights: Any) -> Any:
        def replica(pixels: Any, labels: Any, weights: Any) -> Any:
            gradients, _ = self._gradients[self.is_frozen](pixels, labels, weights)
            return self._objective.unscaled(self._over_replicas(gradients))

        return self.strategy.run(replica, args=(pixels, labels, weights))


def _not_compiled(config: TrainingConfig, error: tf.errors.OpError) -> str:
    reasons = [line for line in error.message.splitlines() if "XLA" in line] or error.message.splitlines()[-1:]
    way_out = " or execution.is_deterministic" if config.execution.is_deterministic else ""
    return (
        f"Training refused: XLA cannot compile {config.model.architecture} on this device: {reasons[0].strip()} "
        f"Turn off execution.is_compiled{way_out}."
    )
