"""What a training tells while it runs: progress lines of every worker, charts of the chief.

Its place in the flow: the session hands every figure here. Nothing of it is needed to go on training,
so charts that cannot be written are given up with one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import keras
import tensorflow as tf

from artifact_sync.clock import Clock
from artifact_sync.run_folder import RunFolder
from training_cluster.charts.evaluation_events import EvaluationEvents
from training_cluster.charts.events import TrainingEvents
from training_cluster.training.checkpoint import Arrays
from training_cluster.training.evaluation import Evaluation, Mistakes
from training_cluster.training.progress import ProgressLog


@dataclass
class _Charts:
    curves: TrainingEvents
    evaluations: EvaluationEvents
    has_graph: bool = False


class Reports:
    """Lines and charts of one worker.

    Args:
        folder: the run's.
        labels: the classes.
        clock: gives each line its time.
        total_steps: of the whole training.
        index: the worker's number; only the chief, 0, writes charts.
    """

    def __init__(
        self, folder: RunFolder, *, labels: tuple[str, ...], clock: Clock, total_steps: int, index: int
    ) -> None:
        self.step = 0
        self._folder = folder
        self._labels = labels
        self._is_chief = index == 0
        self._progress = ProgressLog(folder.path, clock=clock, total_steps=total_steps, index=index)
        self._charts: _Charts | None = None

    def __enter__(self) -> Reports:
        if self._is_chief:
            with self._giving_up():
                events = self._folder.events
                self._charts = _Charts(
                    TrainingEvents(events), EvaluationEvents(events / "validation", labels=self._labels)
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._charts is not None:
            with self._giving_up():
                self._charts.curves.close()
                self._charts.evaluations.close()

    def say(self, event: str, **figures: float | str) -> None:
        """Write a line."""
        self._progress.write(event, step=self.step, **figures)

    def warn(self, detail: str) -> None:
        """Write a line about something wrong that does not end the training."""
        self.say("warning", detail=detail)

    def begin(self, resolved: Mapping[str, Any], *, distribution: Mapping[str, int]) -> None:
        """Tell what an epoch shows, by label, before the first step."""
        if not self._is_chief:
            return
        shown = ", ".join(f"{label} {count}" for label, count in distribution.items())
        self.say("distribution", examples_per_epoch=sum(distribution.values()), detail=shown)
        with self._giving_up():
            if self._charts is not None:
                run_id = self._folder.run_id
                self._charts.curves.beginning(resolved, distribution=distribution, run_id=run_id)

    def window(self, *, epoch: int, figures: Mapping[str, float]) -> None:
        """Tell of the steps since the last look."""
        self.say("step", epoch=epoch, **figures)
        with self._giving_up():
            if self._charts is not None:
                self._charts.curves.scalars(step=self.step, **figures)

    def histograms(self, arrays: Arrays) -> None:
        """Chart weights and gradients."""
        with self._giving_up():
            if self._charts is not None:
                self._charts.curves.histograms(arrays, step=self.step)
                self.say("note", detail=f"histograms of {len(arrays)} arrays are in {self._folder.events}")

    def evaluated(self, found: Evaluation, mistakes: Mistakes | None, *, epoch: int, model: keras.Model) -> None:
        """Tell how the model does."""
        if not self._is_chief:
            return
        with self._giving_up():
            if self._charts is not None:
                self._charts.evaluations.write(found, mistakes)
                self._draw_graph(self._charts, model)
                self._charts.curves.flush()
        self.say("epoch", epoch=epoch, validation_loss=found.loss, validation_accuracy=found.accuracy)

    def _draw_graph(self, charts: _Charts, model: keras.Model) -> None:
        # Not at the beginning: people wait for the first step.
        if not charts.has_graph:
            charts.curves.graph(model)
            charts.has_graph = True

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            self._charts = None
            self.warn(f"charts are given up, the training goes on: {str(error).splitlines()[0]}")
