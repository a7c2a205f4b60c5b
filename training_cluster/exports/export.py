"""A trained model becomes a SavedModel that a model server can execute: uint8 pixels in, scores out.

Its place in the flow: the trainer calls it last. Nothing is called an export before the files on
disk, loaded again, gave the training model's own answers. The folder appears by one rename.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.durable import TEMPORARY_PREFIX, fsync_directory, fsync_tree
from artifact_sync.errors import TrainingError
from artifact_sync.records import InputContract
from training_cluster.exports.golden import write_golden_examples, write_labels, write_warmup_requests
from training_cluster.exports.graph_operations import refuse_other_operations

PARITY_TOLERANCE = 1e-4
"""How far a probability of the reloaded export may be from the training model's on the same machine."""

_GOLDEN_COUNT = 8


@dataclass(frozen=True)
class ExportReport:
    """What was measured of an export.

    Attributes:
        parity_difference: the largest difference of a probability between training model and export.
        size_bytes: of all files.
    """

    parity_difference: float
    size_bytes: int


def export_model(
    model: keras.Model,
    *,
    export_dir: Path,
    contract: InputContract,
    labels: tuple[str, ...],
    model_name: str,
    sample_pixels: npt.NDArray[np.uint8],
) -> ExportReport:
    """Write the SavedModel `export_dir`, replacing one that an interrupted run left there.

    The signature `serving_default` takes "pixels" uint8 [n, h, w, c] and gives "probabilities" and
    "logits", both float32 [n, classes].

    Args:
        model: gives logits for uint8 pixels.
        export_dir: the folder that appears.
        contract: shape and names of the input.
        labels: the classes in the order of the scores.
        model_name: the name that the warm-up requests ask for.
        sample_pixels: validation pictures uint8 [n, h, w, c] to compare answers on; the first eight
            become the golden examples.

    Raises:
        TrainingError: the export answers otherwise than the model, or uses operations that hosts refuse.
    """
    building = export_dir.with_name(f"{TEMPORARY_PREFIX}{export_dir.name}")
    for leftover in (building, export_dir):
        if leftover.exists():
            shutil.rmtree(leftover)
    _save(model, building, contract=contract)
    refuse_other_operations(building, signature_name=contract.signature_name)
    served = probabilities_of_export(building, sample_pixels, contract=contract)
    trained = tf.nn.softmax(model(sample_pixels, training=False)).numpy()
    difference = _compared(served, trained)
    golden = slice(0, _GOLDEN_COUNT)
    write_labels(building, labels)
    # Measured alone, as hosts replay them: the size of a batch changes the last bits.
    write_golden_examples(
        building,
        sample_pixels[golden],
        probabilities_of_export(building, sample_pixels[golden], contract=contract),
        contract=contract,
    )
    write_warmup_requests(building, sample_pixels[golden], model_name=model_name, contract=contract)
    fsync_tree(building)
    building.rename(export_dir)
    fsync_directory(export_dir.parent)
    return ExportReport(difference, sum(path.stat().st_size for path in export_dir.rglob("*") if path.is_file()))


def probabilities_of_export(
    export_dir: Path, pixels: npt.NDArray[np.uint8], *, contract: InputContract
) -> npt.NDArray[np.float32]:
    """Load the SavedModel from disk and return its probabilities for `pixels`."""
    loaded = tf.saved_model.load(str(export_dir))
    signature = loaded.signatures[contract.signature_name]
    answer: npt.NDArray[np.float32] = signature(**{contract.input_name: tf.constant(pixels)})[
        contract.scores_name
    ].numpy()
    return answer


def _save(model: keras.Model, directory: Path, *, contract: InputContract) -> None:
    shape = [None, contract.height, contract.width, contract.channels]

    def answer(pixels: Any) -> dict[str, Any]:
        logits = tf.identity(model(pixels, training=False), name="logits")
        return {contract.scores_name: tf.nn.softmax(logits), "logits": logits}

    concrete = tf.function(answer).get_concrete_function(tf.TensorSpec(shape, tf.uint8, name=contract.input_name))
    module = tf.Module(name="export")
    # Only what the signature reads, since handing over the Keras model would store each weight twice;
    # in the model's order, since the graph's own order is another in each process.
    read = {variable.ref() for variable in concrete.graph.variables}
    module.weights = [variable.value for variable in model.variables if variable.value.ref() in read]
    directory.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(module, str(directory), signatures={contract.signature_name: concrete})


def _compared(served: npt.NDArray[np.float32], trained: npt.NDArray[np.float32]) -> float:
    difference = float(np.max(np.abs(served - trained)))
    # Not "difference > tolerance": NaN has to fail.
    if not difference <= PARITY_TOLERANCE:
        raise TrainingError(
            f"Export refused: its probabilities differ by up to {difference:.2g} from the training model's, "
            f"{PARITY_TOLERANCE:.2g} is allowed. This is a fault of the export; the checkpoint is untouched."
        )
    return difference
