"""The variant "bfloat16" of an export, as a run folder inside the run: half the bytes, faster on some CPUs.

Its place in the flow: `run_export` asks for it. The gate judges it like any run, so that nobody has
to believe that rounding costs nothing; what differs too much here does not come before the gate.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from artifact_sync.durable import write_durably
from artifact_sync.errors import TrainingError
from artifact_sync.manifest import build_manifest
from artifact_sync.records import RunId, RunRecord
from artifact_sync.run_folder import RunFolder
from training_cluster.exports.answers import Answer, Comparison
from training_cluster.exports.bfloat16 import in_bfloat16
from training_cluster.exports.export import ServedAs, write_export
from training_cluster.exports.flat_graph import FlatGraph

BFLOAT16_TOLERANCE = 0.1
"""How far a probability may be from the training model's: a bfloat16 has 8 binary digits, so logits
move by a few hundredths, and probabilities between two classes with them."""

SAME_LABEL_SHARE = 0.99
"""The share of validation pictures that have to keep their label."""

_GOLDEN_TOLERANCE = 0.05
"""How far a probability may be on another machine: CPUs round to bfloat16 at different places."""

_OF_THE_EXPORT = ("export_", "validation_accuracy", "validation_loss")
"""Figures of a run that are not its variants'."""


@dataclass(frozen=True)
class Variant:
    """A variant that was made.

    Attributes:
        folder: its run folder.
        metrics: figures for its run.json, which stand beside those of the training.
        answer: the export, as loaded from disk.
    """

    folder: RunFolder
    metrics: dict[str, float]
    answer: Answer

    def describe(self, record: RunRecord) -> None:
        """Complete the run folder; `record` is that of the run whose variant it is."""
        kept = {name: value for name, value in record.metrics.items() if not name.startswith(_OF_THE_EXPORT)}
        own = record.model_copy(update={"run_id": self.folder.run_id, "metrics": {**kept, **self.metrics}})
        write_durably(self.folder.run_json, own.to_json())
        write_durably(self.folder.manifest_json, build_manifest(self.folder.export).to_json())


def write_bfloat16(
    graph: FlatGraph,
    run: RunFolder,
    *,
    served_as: Callable[[float], ServedAs],
    compare: Callable[[Answer], Comparison],
) -> Variant:
    """Write the export of `run`'s variant "bfloat16", replacing one that an interrupted run left.

    Args:
        graph: the network in float32.
        run: the run.
        served_as: what lies beside a network whose golden examples have that tolerance.
        compare: an export with the training model, on all validation examples.

    Raises:
        TrainingError: it answers too differently, or cannot be executed here.
    """
    folder = RunFolder(run.variants / f"{run.run_id}-bfloat16")
    _refuse_long_name(folder.run_id)
    if folder.path.exists():
        shutil.rmtree(folder.path)
    try:
        with_tolerance = served_as(_GOLDEN_TOLERANCE)
        done = write_export(
            in_bfloat16(graph), folder.export, served_as=with_tolerance, check=lambda served: _checked(compare(served))
        )
    except (TrainingError, tf.errors.OpError, ValueError) as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(f"TensorFlow cannot execute the network in bfloat16 here: {error}") from error
    metrics = {
        "validation_accuracy": done.comparison.accuracy,
        "export_bytes": float(done.size_bytes),
        "export_parity_difference": done.comparison.difference,
        "export_parity_examples": float(done.comparison.examples),
        "export_same_label_share": done.comparison.same_label_share,
    }
    return Variant(folder, metrics, done.answer)


def _checked(comparison: Comparison) -> Comparison:
    # Not "difference > tolerance": NaN has to fail.
    if not (comparison.difference <= BFLOAT16_TOLERANCE and comparison.same_label_share >= SAME_LABEL_SHARE):
        raise TrainingError(
            f"of {comparison.examples:,} validation pictures {comparison.same_label_share:.2%} keep their label "
            f"({SAME_LABEL_SHARE:.0%} have to), and a probability moves by up to {comparison.difference:.2g} "
            f"({BFLOAT16_TOLERANCE:.2g} is allowed)."
        )
    return comparison


def _refuse_long_name(run_id: str) -> None:
    try:
        TypeAdapter(RunId).validate_python(run_id)
    except ValidationError:
        raise TrainingError(
            f"{run_id!r} is no run id, it is too long. Name the run by fewer characters to get the variant."
        ) from None
