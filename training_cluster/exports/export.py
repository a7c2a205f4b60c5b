"""A trained model becomes a SavedModel that a model server can execute: uint8 pixels in, scores out.

Its place in the flow: `run_export` calls it for the run itself and for each variant. Nothing is
called an export before the files on disk, loaded again, were compared with the training model's own
answers. The folder appears by one rename.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from artifact_sync.durable import TEMPORARY_PREFIX, fsync_directory, fsync_tree
from artifact_sync.records import InputContract
from training_cluster.exports.answers import DEVICE, Answer, Comparison, Pixels, answer_of_export
from training_cluster.exports.flat_graph import FlatGraph
from training_cluster.exports.golden import write_golden_examples, write_labels, write_warmup_requests
from training_cluster.exports.graph_operations import refuse_other_operations
from training_cluster.exports.saved_graph import save_graph


@dataclass(frozen=True)
class ServedAs:
    """What a host needs to know of an export beside the network.

    Attributes:
        contract: shape and names of the input.
        labels: the classes in the order of the scores.
        model_name: the name that the warm-up requests ask for.
        golden_pixels: pictures uint8 [n, h, w, c] of the golden examples.
        golden_tolerance: how far a probability may be on another machine from the one measured here.
    """

    contract: InputContract
    labels: tuple[str, ...]
    model_name: str
    golden_pixels: Pixels
    golden_tolerance: float


@dataclass(frozen=True)
class ExportReport:
    """What was measured of an export.

    Attributes:
        comparison: of its answers with the training model's.
        size_bytes: of all files.
        answer: the export, as loaded from disk.
    """

    comparison: Comparison
    size_bytes: int
    answer: Answer


def write_export(
    network: FlatGraph | keras.Model,
    export_dir: Path,
    *,
    served_as: ServedAs,
    check: Callable[[Answer], Comparison],
) -> ExportReport:
    """Write the SavedModel `export_dir`, replacing one that an interrupted run left there.

    The signature `serving_default` takes "pixels" uint8 [n, h, w, c] and gives "probabilities" and
    "logits", both float32 [n, classes].

    Args:
        network: gives logits for uint8 pixels.
        export_dir: the folder that appears.
        served_as: what lies beside the network.
        check: is given the export as loaded from disk, and raises when it is none.

    Raises:
        TrainingError: the export uses operations that hosts refuse, or what `check` raises.
    """
    contract = served_as.contract
    building = export_dir.with_name(f"{TEMPORARY_PREFIX}{export_dir.name}")
    for leftover in (building, export_dir):
        if leftover.exists():
            shutil.rmtree(leftover)
    building.parent.mkdir(parents=True, exist_ok=True)
    with tf.device(DEVICE):
        if isinstance(network, FlatGraph):
            save_graph(network, building, contract=contract)
        else:
            _save_model(network, building, contract=contract)
    refuse_other_operations(building, signature_name=contract.signature_name)
    answer = answer_of_export(building, contract=contract)
    comparison = check(answer)
    write_labels(building, served_as.labels)
    # Measured alone, as hosts replay them: the size of a batch changes the last bits.
    golden = served_as.golden_pixels
    write_golden_examples(building, golden, answer(golden), contract=contract, tolerance=served_as.golden_tolerance)
    write_warmup_requests(building, golden, model_name=served_as.model_name, contract=contract)
    fsync_tree(building)
    building.rename(export_dir)
    fsync_directory(export_dir.parent)
    size_bytes = sum(path.stat().st_size for path in export_dir.rglob("*") if path.is_file())
    return ExportReport(comparison, size_bytes, answer)


def _save_model(model: keras.Model, directory: Path, *, contract: InputContract) -> None:
    """Write the model as it stands, batch normalisations and all."""
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
    tf.saved_model.save(module, str(directory), signatures={contract.signature_name: concrete})
