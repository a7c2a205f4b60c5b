"""Everything that a trained run gives to a model server: the export and the variants that were asked for.

Its place in the flow: the trainer calls `export_run` once training ended, writes what was measured
into run.json, lets the variants be described by the same record, and completes the run by its
manifest. A variant that fails leaves the run as it is and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import keras
import numpy as np
import numpy.typing as npt

from artifact_sync.records import InputContract, RunRecord
from artifact_sync.run_folder import RunFolder
from training_cluster.config.tables import ExportTable
from training_cluster.exports.export import export_model

_PARITY_BATCHES = 4


@dataclass(frozen=True)
class TrainedModel:
    """What is to be exported.

    Attributes:
        model: gives logits for uint8 pixels, with the weights that are to be served.
        name: the model's name, which warm-up requests ask for.
        contract: shape and names of the input.
        labels: the classes in the order of the scores.
        validation_pixels: begins anew at each call and gives the validation pictures, batches uint8
            [n, h, w, c] in an order that is always the same.
    """

    model: keras.Model
    name: str
    contract: InputContract
    labels: tuple[str, ...]
    validation_pixels: Callable[[], Iterable[npt.NDArray[np.uint8]]]


@dataclass(frozen=True)
class ExportedRun:
    """What was exported and measured.

    Attributes:
        metrics: figures for run.json, named export_….
        notes: what was done and what was refused in words, for run.json's environment, named export_….
    """

    metrics: dict[str, float]
    notes: dict[str, str]

    def describe_variants(self, record: RunRecord) -> None:
        """Complete the variants as runs of their own; `record` is the run's, about to be written."""


def export_run(
    trained: TrainedModel, *, folder: RunFolder, table: ExportTable, report: Callable[[str], None]
) -> ExportedRun:
    """Write `folder.export` and what `table` asks for beside it, replacing what an interrupted export left.

    Args:
        trained: the model.
        folder: the run's.
        table: [export] of the configuration.
        report: is told in one sentence what goes on.

    Raises:
        TrainingError: the export answers otherwise than the model, or uses operations that hosts refuse.
    """
    report("writing the export")
    samples = np.concatenate(list(islice(trained.validation_pixels(), _PARITY_BATCHES)))
    done = export_model(
        trained.model,
        export_dir=folder.export,
        contract=trained.contract,
        labels=trained.labels,
        model_name=trained.name,
        sample_pixels=samples,
    )
    metrics = {"export_bytes": float(done.size_bytes), "export_parity_difference": done.parity_difference}
    return ExportedRun(metrics=metrics, notes={})
