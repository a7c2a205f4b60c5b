"""The training loop: one step over all replicas, the state of a training as arrays, predictions.

Its place in the flow: the trainer drives it step by step and writes what it finds. It is our own
because Keras' `fit` does not work under MultiWorkerMirroredStrategy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.records import InputContract
from training_cluster.config.tables import OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.pipeline import training_batches
from training_cluster.inputs.position import EpochPosition, ReplicaShare
from training_cluster.inputs.split import ExampleSplit
from training_cluster.networks.network import build_model
from training_cluster.training.checkpoint import Arrays


class TrainingLoop:
    """A model and an optimizer under a strategy.

    Args:
        strategy: one device, all devices of a host, or several hosts.
        config: the training's configuration.
        contract: the shape of the pixels.
        class_count: the number of labels.
        total_steps: the length of the learning rate's cosine.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        config: TrainingConfig,
        contract: InputContract,
        class_count: int,
        total_steps: int,
    ) -> None:
        self.strategy = strategy
        self.config = config
        self.schedule = _schedule(config.optimization, total_steps)
        with strategy.scope():
            self.model = build_model(config.model, contract=contract, class_count=class_count)
            self.optimizer = _optimizer(config.optimization, self.schedule)
            self.optimizer.build(self.model.trainable_variables)
        self._step = tf.function(self._replicated_step)

    def batches(self, split: ExampleSplit, *, position: EpochPosition, meter: InputMeter) -> Iterator[Any]:
        """Return an iterator over the batches that are left of an epoch, shared out over the replicas."""

        def pipeline(context: Any) -> tf.data.Dataset:
            replicas = context.num_replicas_in_sync // context.num_input_pipelines
            share = ReplicaShare(context.num_input_pipelines, context.input_pipeline_id, replicas)
            return training_batches(split, self.config, position=position, share=share, meter=meter)

        return meter.watch(self.strategy.distribute_datasets_from_function(pipeline))

    def step(self, batch: Any) -> tuple[Any, Any]:
        """Do one step; return mean loss and share of right answers over the global batch, as tensors."""
        loss, correct = self._step(*batch)
        return loss, correct

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        return float(self.schedule(step))

    def arrays(self) -> Arrays:
        """Return every variable by name; with several hosts all of them must call it at the same step."""
        return {name: np.asarray(variable.numpy()) for name, variable in self._variables()}

    def assign(self, arrays: Arrays) -> None:
        """Set every variable from what `arrays` returned."""
        with self.strategy.scope():
            for name, variable in self._variables():
                variable.assign(arrays[name])

    def _variables(self) -> Iterator[tuple[str, Any]]:
        yield from named_variables("model", self.model.variables)
        yield from named_variables("optimizer", self.optimizer.variables)

    def _replicated_step(self, pixels: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        losses, correct = self.strategy.run(self._replica_step, args=(pixels, labels, weights))
        total = tf.distribute.ReduceOp.SUM
        return self.strategy.reduce(total, losses, axis=None), self.strategy.reduce(total, correct, axis=None)

    def _replica_step(self, pixels: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        batch_size = float(self.config.optimization.batch_size)
        smoothing = self.config.optimization.label_smoothing
        with tf.GradientTape() as tape:
            logits = self.model(pixels, training=True)
            targets = tf.one_hot(
                labels, logits.shape[-1], 1.0 - smoothing + smoothing / logits.shape[-1], smoothing / logits.shape[-1]
            )
            # Gradients are summed over the replicas, so each divides by the global batch.
            loss = tf.reduce_sum(weights * tf.nn.softmax_cross_entropy_with_logits(targets, logits)) / batch_size
            objective = loss + tf.add_n(self.model.losses) if self.model.losses else loss
        gradients = tape.gradient(objective, [variable.value for variable in self.model.trainable_variables])
        self.optimizer.apply(gradients, self.model.trainable_variables)
        right = tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32)
        return loss, tf.reduce_sum(weights * right) / batch_size


class Predictor:
    """The trained model on this process's own device, for evaluation and export.

    With one replica it is the model in training itself. Else it is a copy, since a model that is
    spread over replicas can only be called by all of them together.
    """

    def __init__(self, loop: TrainingLoop, *, contract: InputContract, class_count: int) -> None:
        self._is_copy = loop.strategy.num_replicas_in_sync > 1
        self.model = (
            build_model(loop.config.model, contract=contract, class_count=class_count) if self._is_copy else loop.model
        )
        self._call = tf.function(lambda pixels: self.model(pixels, training=False), reduce_retracing=True)

    def take(self, loop: TrainingLoop) -> None:
        """Take over the weights as they are; with several workers all of them must call it at the same step."""
        if self._is_copy:
            arrays = loop.arrays()
            for name, variable in named_variables("model", self.model.variables):
                variable.assign(arrays[name])

    def logits(self, batches: tf.data.Dataset) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the logits float32 [n, classes] and the labels int64 [n] of all batches."""
        answers = [(self._call(pixels).numpy(), labels.numpy()) for pixels, labels in batches]
        return np.concatenate([logits for logits, _ in answers]), np.concatenate([labels for _, labels in answers])


def named_variables(owner: str, variables: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each variable with a name that is unique and the same in every process."""
    for index, variable in enumerate(variables):
        yield f"{owner}/{index:04d}/{variable.name}", variable


def _schedule(table: OptimizationTable, total_steps: int) -> Any:
    warmup_steps = round(total_steps * table.warmup_share)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else table.learning_rate,
        decay_steps=max(1, total_steps - warmup_steps),
        warmup_target=table.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def _optimizer(table: OptimizationTable, schedule: Any) -> Any:
    match table.optimizer:
        case "adam":
            return keras.optimizers.Adam(schedule)
        case "adamw":
            return keras.optimizers.AdamW(schedule, weight_decay=table.weight_decay)
        case "sgd":
            return keras.optimizers.SGD(schedule, momentum=table.momentum, nesterov=table.momentum > 0)
