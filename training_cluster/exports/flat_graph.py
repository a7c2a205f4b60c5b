"""A trained network as one flat graph: pixels in, logits out, every weight a constant, nothing computed twice.

Its place in the flow: the export freezes the model into one of these; folding and bfloat16 rewrite
it; `saved_graph` writes it as a SavedModel. Names of nodes are numbers in the order in which the
logits need them, so that the same network gives the same graph in every process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NewType, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from artifact_sync.records import InputContract
from training_cluster.exports.graph_operations import SERVED_OPERATIONS, refuse_operations
from training_cluster.exports.inlining import inlined

Node: TypeAlias = node_def_pb2.NodeDef
Array = npt.NDArray[Any]
Tensor = NewType("Tensor", str)
"""One output of a node: "name" for the first, "name:1" for the second."""

_COMPUTABLE = SERVED_OPERATIONS | {"ExpandDims", "Fill", "Pow", "Range", "Slice", "Tile"}
"""What is computed here when all its inputs are constants; the others may be random."""

_PASS_ON = frozenset({"Identity", "IdentityN", "StopGradient"})


@dataclass(frozen=True)
class FlatGraph:
    """A graph without functions, variables and control inputs.

    Attributes:
        nodes: by name, each after those whose outputs it takes.
        pixels: the name of the placeholder.
        logits: the tensor that is asked for.
    """

    nodes: Mapping[str, Node]
    pixels: str
    logits: Tensor

    def consumers(self) -> dict[str, list[Node]]:
        """Return the nodes that take the outputs of each node, as often as they take them."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes.values():
            for source in node.input:
                found[node_of(source)].append(node)
        return found

    def constant(self, tensor: str) -> Array | None:
        """Return the value of a constant, None for anything else."""
        node = self.nodes.get(tensor)
        return None if node is None or node.op != "Const" else tf.make_ndarray(node.attr["value"].tensor)

    def with_nodes(self, changed: Iterable[Node], *, instead: Mapping[str, str]) -> FlatGraph:
        """Return a graph with further or other nodes, in which readers of a tensor in `instead` read another one."""
        nodes = {**self.nodes, **{node.name: node for node in changed}}
        return _needed(nodes, pixels=self.pixels, logits=self.logits, instead=instead)

    def definition(self) -> graph_pb2.GraphDef:
        """Return the graph as TensorFlow imports it."""
        return graph_pb2.GraphDef(node=self.nodes.values())


def flat_graph(model: keras.Model, *, contract: InputContract) -> FlatGraph:
    """Return what `model` computes in inference, subgraphs of constants computed.

    Raises:
        TrainingError: the model computes with operations that hosts refuse or cannot execute.
    """
    shape = [None, contract.height, contract.width, contract.channels]
    answer = tf.function(lambda pixels: model(pixels, training=False))
    concrete = answer.get_concrete_function(tf.TensorSpec(shape, tf.uint8, name=contract.input_name))
    frozen = convert_variables_to_constants_v2(concrete)
    nodes = {node.name: node for node in inlined(frozen.graph.as_graph_def()).node}
    pixels, logits = node_of(frozen.inputs[0].name), plain(frozen.outputs[0].name)
    passed_on = {
        (name if index == 0 else f"{name}:{index}"): plain(source)
        for name, node in nodes.items()
        if node.op in _PASS_ON
        for index, source in enumerate(source for source in node.input if not source.startswith("^"))
    }
    graph = _computed(_needed(nodes, pixels=pixels, logits=logits, instead=passed_on))
    refuse_operations({node.op for node in graph.nodes.values()} - SERVED_OPERATIONS)
    return graph


def constant_node(name: str, value: Array) -> Node:
    """Return a node that gives `value`."""
    node = Node(op="Const", name=name)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    return node


def node_of(tensor: str) -> str:
    """Return the name of the node that gives a tensor."""
    return tensor.partition(":")[0]


def plain(tensor: str) -> Tensor:
    """Return a tensor's name without the ":0" of a first output."""
    return Tensor(tensor.removesuffix(":0"))


def _needed(nodes: Mapping[str, Node], *, pixels: str, logits: str, instead: Mapping[str, str]) -> FlatGraph:
    """Return what the logits need, numbered in that order; the placeholder is kept in any case."""

    def resolved(tensor: str) -> str:
        tensor = plain(tensor)
        while tensor in instead:
            tensor = plain(instead[tensor])
        return tensor

    sources = {
        name: [resolved(source) for source in node.input if not source.startswith("^")] for name, node in nodes.items()
    }
    order = _in_order(resolved(logits), sources, first=pixels)
    names = {name: pixels if name == pixels else f"{nodes[name].op}_{number}" for number, name in enumerate(order)}

    def renamed(tensor: str) -> str:
        name, colon, index = tensor.partition(":")
        return names[name] + colon + index

    kept = {}
    for name in order:
        node = Node(op=nodes[name].op, name=names[name], input=[renamed(source) for source in sources[name]])
        for key, value in nodes[name].attr.items():
            if not key.startswith("_"):
                node.attr[key].CopyFrom(value)
        kept[node.name] = node
    return FlatGraph(nodes=kept, pixels=pixels, logits=Tensor(renamed(resolved(logits))))


def _in_order(tensor: str, sources: Mapping[str, list[str]], *, first: str) -> list[str]:
    """Return the nodes that `tensor` needs, each after its sources."""
    order, done = [first], {first}
    # Without recursion: networks are deeper than Python's stack.
    waiting = [node_of(tensor)]
    while waiting:
        name = waiting[-1]
        missing = [node_of(source) for source in sources[name] if node_of(source) not in done]
        if missing:
            waiting.extend(reversed(missing))
            continue
        waiting.pop()
        if name not in done:
            done.add(name)
            order.append(name)
    return order


def _computed(graph: FlatGraph) -> FlatGraph:
    """Return the graph with each subgraph of constants replaced by its value."""
    known: set[str] = set()
    for name, node in graph.nodes.items():
        is_computable = bool(node.input) and node.op in _COMPUTABLE
        if node.op == "Const" or (is_computable and all(source in known for source in node.input)):
            known.add(name)
    consumers = graph.consumers()
    wanted = [
        name
        for name in graph.nodes
        if name in known
        and graph.nodes[name].op != "Const"
        and (name == graph.logits or any(reader.name not in known for reader in consumers[name]))
    ]
    definition = graph_pb2.GraphDef(node=[graph.nodes[name] for name in graph.nodes if name in known])

    @tf.function  # type: ignore[untyped-decorator]
    def values() -> Any:
        return tf.graph_util.import_graph_def(definition, return_elements=[f"{name}:0" for name in wanted])

    constants = zip(wanted, values() if wanted else [], strict=True)
    return graph.with_nodes((constant_node(name, np.asarray(value)) for name, value in constants), instead={})
