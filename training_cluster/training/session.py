"""One training from its first or its resumed step to its last, with everything that is written on the way.

Its place in the flow: the trainer prepares it and finishes the run with what it leaves: a model
with trained weights and the last evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artifact_sync.clock import Clock
from artifact_sync.errors import TrainingError
from artifact_sync.run_folder import RunFolder
from training_cluster.charts.events import TrainingEvents
from training_cluster.config.training_config import TrainingConfig
from training_cluster.datasets.data_manifest import DataManifest
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.pipeline import validation_batches
from training_cluster.inputs.position import EpochPosition
from training_cluster.inputs.split import ExampleSplit
from training_cluster.training.checkpoint import CheckpointFolder
from training_cluster.training.interruption import Interruption
from training_cluster.training.loop import TrainingLoop
from training_cluster.training.predictor import Predictor
from training_cluster.training.progress import ProgressLog
from training_cluster.training.workers import Workers

_SHOWN_VALIDATION_BATCHES = 4


@dataclass(frozen=True)
class Evaluation:
    """How the model does on the validation examples after `step` steps."""

    step: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Surroundings:
    """What a session is given: the workers, the configuration, the data, the folder, the clock, the flag."""

    workers: Workers
    config: TrainingConfig
    manifest: DataManifest
    split: ExampleSplit
    folder: RunFolder
    clock: Clock
    interruption: Interruption
    binding: dict[str, str]


class TrainingSession:
    """The steps of one run in this process."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._given = surroundings
        config, split = surroundings.config, surroundings.split
        self.total_steps = split.steps_per_epoch * config.optimization.epochs
        self.step = 0
        self.images_per_second = 0.0
        self._loop = TrainingLoop(
            surroundings.workers.strategy,
            config=config,
            contract=surroundings.manifest.contract,
            class_count=len(surroundings.manifest.labels),
            total_steps=self.total_steps,
        )
        self.predictor = Predictor(
            config, contract=surroundings.manifest.contract, class_count=len(surroundings.manifest.labels)
        )
        self._checkpoints = CheckpointFolder(surroundings.folder.path / "checkpoints", binding=surroundings.binding)
        self._progress = ProgressLog(surroundings.folder.path, clock=surroundings.clock, total_steps=self.total_steps)
        self._evaluation: Evaluation | None = None

    def run(self) -> bool:
        """Train from the newest checkpoint to the end; return False when interrupted at a checkpoint.

        Raises:
            TrainingError: the loss is no number any more.
        """
        self._restore()
        events = self._open_events()
        try:
            while self.step < self.total_steps:
                if not self._train_epoch(events):
                    self._save()
                    self._report("interrupted")
                    return False
                self._evaluate(events)
            self._save()
            return True
        finally:
            if events is not None:
                events.close()

    def evaluation(self) -> Evaluation:
        """Return how the model does now; it is measured again when that is not known."""
        if self._evaluation is None or self._evaluation.step != self.step:
            self._evaluate(None)
        assert self._evaluation is not None
        return self._evaluation

    def report_complete(self) -> None:
        """Say that the run folder is complete."""
        evaluation = self.evaluation()
        self._report("complete", validation_loss=evaluation.loss, validation_accuracy=evaluation.accuracy)

    def report_export(self, detail: str) -> None:
        """Tell the progress log what the export is at."""
        self._report("export", detail=detail)

    def _restore(self) -> None:
        """Begin where the chief's newest checkpoint ends."""
        workers = self._given.workers
        checkpoint = self._checkpoints.restore() if workers.is_chief else None
        step = workers.step_of_chief(checkpoint.step if checkpoint else 0)
        if step:
            mine = checkpoint.arrays if checkpoint else self._loop.arrays()
            self._loop.assign(workers.arrays_of_chief(mine))
        self.step = step
        self._report("resumed" if step else "started")

    def _open_events(self) -> TrainingEvents | None:
        if not self._given.workers.is_chief:
            return None
        events = TrainingEvents(self._given.folder.events, labels=self._given.manifest.labels)
        events.configuration(self._given.config.resolved())
        return events

    def _train_epoch(self, events: TrainingEvents | None) -> bool:
        """Train to the end of the epoch that `step` lies in; return False when asked to end before."""
        given, execution = self._given, self._given.config.execution
        epoch, first_step = divmod(self.step, given.split.steps_per_epoch)
        position = EpochPosition(epoch).after(first_step, pipelines=given.workers.count)
        window = _Window(given.clock)
        for batch in self._loop.batches(given.split, position=position, meter=InputMeter()):
            window.add(*self._loop.step(batch))
            self.step += 1
            is_last = self.step % given.split.steps_per_epoch == 0
            is_saved = self.step % execution.checkpoint_every_steps == 0
            is_looked_at = self.step % execution.log_every_steps == 0 or is_saved or is_last
            # With several workers the question costs an all-reduce, so it is asked now and then.
            asks = is_looked_at or given.workers.count == 1
            is_stopping = asks and given.workers.any(given.interruption.is_requested)
            if is_looked_at or is_stopping:
                # Before any saving: a checkpoint never holds weights that a NaN has passed through.
                self._look(window, events, epoch=epoch)
                window = _Window(given.clock)
            if is_stopping:
                return False
            if is_saved:
                self._save()
        return True

    def _look(self, window: _Window, events: TrainingEvents | None, *, epoch: int) -> None:
        loss, accuracy = window.means()
        if not math.isfinite(loss):
            raise TrainingError(
                f"Training stopped: the loss is {loss} after step {self.step} of {self.total_steps}, so the weights "
                "are worthless and no candidate is written. Lower optimization.learning_rate or add warm-up, "
                "and train under another run id."
            )
        self.images_per_second = window.steps_per_second() * self._given.config.optimization.batch_size
        rate = self._loop.learning_rate(self.step - 1)
        if events is not None:
            events.training(
                step=self.step,
                loss=loss,
                accuracy=accuracy,
                learning_rate=rate,
                images_per_second=self.images_per_second,
            )
        self._report("step", epoch=epoch + 1, loss=loss, accuracy=accuracy, images_per_second=self.images_per_second)

    def _evaluate(self, events: TrainingEvents | None) -> None:
        given = self._given
        self.predictor.take(self._loop.served_weights())
        if not given.workers.is_chief:
            return
        logits, truth = self.predictor.logits(validation_batches(given.split))
        probabilities = _softmax(logits)
        chosen = np.maximum(probabilities[np.arange(len(truth)), truth], np.finfo(np.float32).tiny)
        found = Evaluation(
            step=self.step,
            loss=float(-np.log(chosen).mean()),
            accuracy=float((probabilities.argmax(axis=1) == truth).mean()),
        )
        self._evaluation = found
        if events is not None:
            shown = validation_batches(given.split).take(_SHOWN_VALIDATION_BATCHES)
            pixels = np.concatenate([batch.numpy() for batch, _ in shown])
            scalars = {"loss": found.loss, "accuracy": found.accuracy}
            events.validation(step=self.step, pixels=pixels, truth=truth, probabilities=probabilities, **scalars)
            events.flush()
        epoch = self.step // given.split.steps_per_epoch
        self._report("epoch", epoch=epoch, validation_loss=found.loss, validation_accuracy=found.accuracy)

    def _save(self) -> None:
        # Reading variables that differ between workers is a collective, so every worker takes part.
        arrays = self._loop.arrays()
        if self._given.workers.is_chief:
            self._checkpoints.save(arrays, step=self.step)

    def _report(self, event: str, **figures: float | str) -> None:
        if self._given.workers.is_chief:
            self._progress.write(event, step=self.step, **figures)


class _Window:
    """Losses and accuracies since the last look; they stay on the device until they are asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._figures: list[tuple[object, object]] = []

    def add(self, loss: object, accuracy: object) -> None:
        self._figures.append((loss, accuracy))

    def means(self) -> tuple[float, float]:
        figures = np.array([[float(loss), float(accuracy)] for loss, accuracy in self._figures])  # type: ignore[arg-type]
        loss, accuracy = figures.mean(axis=0)
        return float(loss), float(accuracy)

    def steps_per_second(self) -> float:
        return len(self._figures) / max(self._clock.monotonic() - self._began, 1e-9)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    answer: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return answer
