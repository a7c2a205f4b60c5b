"""Writes a flat graph as the SavedModel that hosts serve, each weight stored once.

Its place in the flow: the last step of an export before it is loaded again and compared. Weights
become variables, so that they lie in a file of their own which a digest names, and the graph stays
small.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from artifact_sync.records import InputContract
from training_cluster.exports.flat_graph import FlatGraph


def save_graph(graph: FlatGraph, directory: Path, *, contract: InputContract) -> None:
    """Write the SavedModel `directory` with the signature of the contract: scores and logits of pixels."""
    weights = {node: tf.Variable(value, trainable=False, name=node) for node, value in _weights(graph)}
    definition = graph.definition()
    kept = [node for node in definition.node if node.name not in weights and node.name != graph.pixels]
    del definition.node[:]
    definition.node.extend(kept)
    shape = [None, contract.height, contract.width, contract.channels]

    def answer(pixels: Any) -> dict[str, Any]:
        given = {graph.pixels: pixels, **{name: variable.read_value() for name, variable in weights.items()}}
        tensor = graph.logits if ":" in graph.logits else f"{graph.logits}:0"
        (logits,) = tf.graph_util.import_graph_def(definition, given, return_elements=[tensor], name="network")
        logits = tf.identity(logits, name="logits")
        return {contract.scores_name: tf.nn.softmax(logits), "logits": logits}

    concrete = tf.function(answer).get_concrete_function(tf.TensorSpec(shape, tf.uint8, name=contract.input_name))
    module = tf.Module(name="export")
    module.weights = list(weights.values())
    directory.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(module, str(directory), signatures={contract.signature_name: concrete})


def _weights(graph: FlatGraph) -> Iterator[tuple[str, Any]]:
    """Yield the constants that are no shapes, axes or factors."""
    for name in graph.nodes:
        value = graph.constant(name)
        if value is not None and value.ndim > 0 and tf.as_dtype(value.dtype).is_floating:
            yield name, value
