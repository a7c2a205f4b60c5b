"""One training from its first or its resumed step to its last, with everything that is written on the way.

Its place in the flow: the execution prepares it and finishes the run with what it leaves: a model
with trained weights and its evaluation. Every worker runs one, and all do the same steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact_sync.clock import Clock
from artifact_sync.errors import TrainingError
from artifact_sync.run_folder import RunFolder
from training_cluster.config.class_weights import class_weights
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.split import ExampleSplit
from training_cluster.training.checkpoint import Arrays, CheckpointFolder
from training_cluster.training.evaluation import Evaluation
from training_cluster.training.examination import Examination
from training_cluster.training.failures import no_number
from training_cluster.training.interruption import Interruption
from training_cluster.training.keeping import Keeper
from training_cluster.training.loop import TrainingLoop
from training_cluster.training.meters import Costs, Window
from training_cluster.training.predictor import Predictor
from training_cluster.training.profiling import ProfilerWindow, gpu_memory
from training_cluster.training.reports import Reports
from training_cluster.training.rhythm import Questions
from training_cluster.training.standing import Standing
from training_cluster.training.wishes import HISTOGRAMS, Wishes
from training_cluster.training.workers import Workers


@dataclass(frozen=True)
class Surroundings:
    """What a session is given: the workers, the configuration, the data, the folder, the clock, the flag."""

    workers: Workers
    config: TrainingConfig
    split: ExampleSplit
    folder: RunFolder
    clock: Clock
    interruption: Interruption
    binding: dict[str, str]
    costs: Costs


class TrainingSession:
    """The steps of one run in this process."""

    def __init__(self, given: Surroundings) -> None:
        config, split, workers = given.config, given.split, given.workers
        self._given = given
        self.total_steps = split.steps_per_epoch * config.optimization.epochs
        self._loop = TrainingLoop(
            workers.strategy,
            config=config,
            contract=split.contract,
            class_count=len(split.labels),
            total_steps=self.total_steps,
            class_weights=class_weights(config.optimization, split.label_shares),
        )
        self.predictor = Predictor(config, contract=split.contract, class_count=len(split.labels))
        self.reports = Reports(
            given.folder, labels=split.labels, clock=given.clock, total_steps=self.total_steps, index=workers.index
        )
        checkpoints = CheckpointFolder(given.folder.checkpoints, binding=given.binding)
        self._keeper = Keeper(checkpoints, workers=workers, costs=given.costs, tell=self.reports.warn)
        self._questions = Questions(workers, given.clock)
        self._examination = Examination(self.predictor, split, workers=workers)
        self._wishes = Wishes(given.folder.control)
        events = given.folder.events / ("train" if workers.is_chief else f"worker-{workers.index}")
        self._profiler = ProfilerWindow(self._wishes, events, tell=lambda text: self.reports.say("note", detail=text))
        self._meter = InputMeter()
        self._standing = Standing()
        self._evaluation: Evaluation | None = None

    @property
    def step(self) -> int:
        """Steps done."""
        return self.reports.step

    @property
    def evaluation(self) -> Evaluation:
        """How the weights do that are to be exported; known once `run` has returned True."""
        assert self._evaluation is not None
        return self._evaluation

    @property
    def notes(self) -> dict[str, str]:
        """What the run's record says beside figures: the weights that it began with."""
        return {"pretrained": self._loop.pretrained} if self._loop.pretrained else {}

    def run(self) -> bool:
        """Train from the newest checkpoint to the end; return False when interrupted at a checkpoint.

        Raises:
            TrainingError: the loss is no number any more.
        """
        self._restore()
        with self.reports:
            self.reports.begin(self._given.config.resolved(), distribution=self._given.split.distribution())
            try:
                is_done = not self._asks_to_end() and self._train() and self._conclude()
            finally:
                self._profiler.close()
            if not is_done:
                self._save()
                self.reports.say("interrupted")
        return is_done

    def _restore(self) -> None:
        """Begin where the newest checkpoint of any worker ends."""
        checkpoint = self._keeper.newest(self._loop.arrays)
        if checkpoint is not None:
            self._loop.assign(checkpoint.arrays)
            self.reports.step = checkpoint.step
            self._standing = Standing.from_state(
                checkpoint.state, step=checkpoint.step, steps_per_epoch=self._given.split.steps_per_epoch
            )
            if self._standing.best_step == checkpoint.step and self._patience:
                self._keeper.keep_best(checkpoint.step)
        self.reports.say("resumed" if checkpoint is not None else "started")

    def _train(self) -> bool:
        while not self._is_over():
            go_on = self._evaluate() if self._owes_evaluation() else self._train_epoch()
            if not go_on:
                return False
        return self._save()

    def _is_over(self) -> bool:
        is_at_end = self.step == self.total_steps or self._standing.is_ended_early
        return is_at_end and not self._owes_evaluation()

    def _owes_evaluation(self) -> bool:
        is_epoch = self.step > 0 and not self._standing.position.steps
        wants = self._given.config.execution.is_evaluated or self.step == self.total_steps
        return is_epoch and wants and self._standing.evaluated_step != self.step

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch; return False when asked to end before."""
        given, execution = self._given, self._given.config.execution
        position, window = self._standing.position, Window(given.clock, self._meter)
        for batch in self._loop.batches(given.split, position=position, meter=self._meter):
            window.add(*self._loop.step(batch))
            self.reports.step += 1
            self._count_step()
            is_last = not self._standing.position.steps
            is_saved = self.step % execution.checkpoint_every_steps == 0
            is_looked_at = self.step % execution.log_every_steps == 0 or is_saved or is_last
            answer = self._questions.ask(
                is_due=is_looked_at,
                is_stopping=given.interruption.is_requested,
                wants_histograms=is_looked_at and self._wishes.wants_histograms(),
            )
            if is_looked_at or answer.is_stopping:
                # Before any saving: a checkpoint never holds weights that a NaN has passed through.
                self._look(window, epoch=position.epoch)
                window = Window(given.clock, self._meter)
            if answer.wants_histograms or (is_last and self._draws_histograms(position.epoch)):
                self._draw_histograms(batch)
            if answer.is_stopping or (is_saved and not self._save()):
                return False
        if self._standing.position.epoch == position.epoch:
            raise TrainingError(f"Training stopped: the inputs ended before epoch {position.epoch + 1} did.")
        return True

    def _count_step(self) -> None:
        self._given.costs.first_step()
        self._profiler.after_step()
        self._standing = self._standing.after_step(
            pipelines=self._given.workers.count, steps_per_epoch=self._given.split.steps_per_epoch
        )

    def _look(self, window: Window, *, epoch: int) -> None:
        loss, accuracy = window.means()
        if not math.isfinite(loss):
            raise TrainingError(no_number("the loss", loss, step=self.step, total_steps=self.total_steps))
        self._given.costs.add(window)
        images_per_second = window.steps_per_second * self._given.config.optimization.batch_size
        figures = {
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": self._loop.learning_rate(self.step - 1),
            "images_per_second": images_per_second,
            "host_images_per_second": images_per_second / self._given.workers.count,
            "input_wait_share": window.wait_share,
        }
        self.reports.window(epoch=epoch + 1, figures=figures | gpu_memory())
        self._profiler.look()

    def _evaluate(self) -> bool:
        found = self._examined(self._loop.served_weights(), step=self.step)
        if found is None:
            return False
        self._standing = self._standing.after_evaluation(step=self.step, loss=found.loss, patience=self._patience)
        self.reports.evaluated(
            found, self._examination.mistakes, epoch=self._standing.position.epoch, model=self.predictor.model
        )
        if self._standing.is_ended_early:
            self.reports.say("ended-early", best_step=self._standing.best_step, best_loss=self._standing.best_loss)
        if not self._patience:
            return True
        return self._save(is_best=self._standing.best_step == self.step)

    def _conclude(self) -> bool:
        """Put the weights into the predictor that are to be exported; return False when asked to end before."""
        step, weights = self.step, self._loop.served_weights()
        if self._patience:
            best = self._keeper.best(self._standing.best_step, self._loop.arrays)
            if best is not None:
                step, weights = best.step, best.arrays
            else:
                self.reports.warn("the best checkpoint is lost, so the newest weights are exported")
        if self._evaluation is None or self._evaluation.step != step:
            return self._examined(weights, step=step) is not None
        self.predictor.take(weights)
        return True

    def _examined(self, weights: Arrays, *, step: int) -> Evaluation | None:
        """Return how the weights do, or None when asked to end before that was known."""
        self.predictor.take(weights)
        found = self._examination.evaluate(step=step, asks_to_end=self._asks_to_end)
        if found is not None and not found.is_number:
            raise TrainingError(no_number("the validation loss", found.loss, step=step, total_steps=self.total_steps))
        self._evaluation = found
        return found

    def _asks_to_end(self) -> bool:
        return self._questions.ask(is_due=False, is_stopping=self._given.interruption.is_requested).is_stopping

    @property
    def _patience(self) -> int:
        return self._given.config.optimization.early_stopping_epochs

    def _draws_histograms(self, epoch: int) -> bool:
        every = self._given.config.execution.histograms_every_epochs
        return bool(every) and (epoch + 1) % every == 0

    def _draw_histograms(self, batch: Any) -> None:
        self.reports.histograms(self._loop.histograms(batch))
        self._wishes.fulfil(HISTOGRAMS)

    def _save(self, *, is_best: bool = False) -> bool:
        """Write a checkpoint; return False when it is of no use to go on, since none can be written."""
        return self._keeper.save(self._sound_arrays, step=self.step, state=self._standing.to_state(), is_best=is_best)

    def _sound_arrays(self) -> Arrays:
        arrays = self._loop.arrays()
        # The loss of a step says nothing of the weights after it.
        if not all(np.isfinite(array).all() for name, array in arrays.items() if name.startswith("model/")):
            text = no_number("a weight", math.nan, step=self.step, total_steps=self.total_steps)
            raise TrainingError(text)
        return arrays
