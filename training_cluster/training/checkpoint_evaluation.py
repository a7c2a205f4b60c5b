"""Evaluates checkpoints beside the training that writes them: on another machine, or when there is time.

Its place in the flow: `liftgate evaluate` gives it a folder of checkpoints, which it only reads; what it
finds goes into the run's `evaluations/` and its charts. It answers as the training itself would.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from artifact_sync.canonical import canonical_json
from artifact_sync.clock import Clock
from artifact_sync.durable import write_durably
from artifact_sync.errors import TrainingError
from artifact_sync.run_folder import RunFolder
from training_cluster.charts.evaluation_events import EvaluationEvents
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.source import DataSource
from training_cluster.inputs.split import ExampleSplit
from training_cluster.training.checkpoint import CheckpointFolder
from training_cluster.training.examination import Examination
from training_cluster.training.predictor import Predictor
from training_cluster.training.workers import Workers

_SCHEMA = "liftgate.evaluation/1"


@dataclass(frozen=True)
class EvaluatedCheckpoint:
    """How one checkpoint does.

    Attributes:
        path: the file that says so.
        document: its content.
        is_new: whether it was evaluated now and not before.
    """

    path: Path
    document: dict[str, Any]
    is_new: bool


class CheckpointEvaluation:
    """Evaluates the checkpoints of one run.

    Args:
        folder: the run's; `evaluations/` and `events/evaluation` are written there.
        config: what the run was begun with.
        source: the dataset that it was begun from.
        clock: gives each evaluation its time.
    """

    def __init__(self, folder: RunFolder, *, config: TrainingConfig, source: DataSource, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._split = ExampleSplit(source, config)
        self._binding = {"configuration": config.sha256, "dataset": source.manifest.sha256}
        self._predictor = Predictor(config, contract=self._split.contract, class_count=len(self._split.labels))
        workers = Workers(tf.distribute.get_strategy(), count=1, index=0)
        self._examination = Examination(self._predictor, self._split, workers=workers)

    def evaluate_newest(
        self, checkpoints: Path, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> EvaluatedCheckpoint | None:
        """Return how the newest checkpoint in a folder does; None when there is none yet.

        Args:
            checkpoints: the folder; a training may write there at the same time.
            progress: is told how many examples of how many were answered.

        Raises:
            RefusedError: the checkpoint belongs to another configuration or other data.
            TrainingError: its answers are no numbers.
        """
        checkpoint = CheckpointFolder(checkpoints, binding=self._binding).restore()
        if checkpoint is None:
            return None
        path = self._folder.evaluations / f"step-{checkpoint.step}.json"
        if path.exists():
            return EvaluatedCheckpoint(path, json.loads(path.read_bytes()), is_new=False)
        self._predictor.take(checkpoint.arrays)
        found = self._examination.evaluate(step=checkpoint.step, progress=progress)
        assert found is not None
        if not found.is_number:
            raise TrainingError(
                f"Evaluation stopped: the validation loss of step {checkpoint.step} is {found.loss}. "
                "The weights are worthless; the training will say so too."
            )
        document = {
            "schema": _SCHEMA,
            "run_id": self._folder.run_id,
            "evaluated_at": self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "config_sha256": self._binding["configuration"],
            "data_manifest_sha256": self._binding["dataset"],
            **found.to_document(self._split.labels),
        }
        events = EvaluationEvents(self._folder.events / "evaluation", labels=self._split.labels)
        events.write(found, self._examination.mistakes)
        events.close()
        write_durably(path, canonical_json(document))
        return EvaluatedCheckpoint(path, document, is_new=True)
