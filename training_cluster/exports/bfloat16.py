"""Turns a flat graph's convolutions and dense layers to bfloat16, for CPUs that multiply it faster.

Its place in the flow: makes the variant "bfloat16" of an export. What sums over many numbers or ends
in scores stays float32: means, normalisations, the last dense layer, the softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from training_cluster.exports.flat_graph import FlatGraph, Node, constant_node, node_of
from training_cluster.exports.folding import LINEAR_OPERATIONS

_CARRIERS = "AddV2 AvgPool BiasAdd ConcatV2 LeakyRelu MaxPool Mul Pad PadV2 Relu Relu6 Reshape Sigmoid Squeeze"
_CARRYING = frozenset(_CARRIERS.split())
"""What may stay in bfloat16 between two layers: it rounds each number once and sums few or none."""

_WHOLE_NUMBERS = {"ConcatV2": -1, "Pad": 1, "PadV2": 1, "Reshape": 1}
"""Which input of an operation is a shape or an axis."""


@dataclass
class _Rewriting:
    """The new nodes so far, and which tensors there are in bfloat16 under which name."""

    graph: FlatGraph
    exact: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    halved: dict[str, str] = field(default_factory=dict)
    widened: dict[str, str] = field(default_factory=dict)


def in_bfloat16(graph: FlatGraph) -> FlatGraph:
    """Return the graph with all layers but the last computed in bfloat16; the logits stay float32."""
    rewriting = _Rewriting(graph, exact=frozenset(_before_logits(graph)))
    for node in graph.nodes.values():
        if _turns(rewriting, node):
            _turn(rewriting, node)
        else:
            _keep(rewriting, node)
    return graph.with_nodes(rewriting.nodes, instead={})


def _before_logits(graph: FlatGraph) -> Iterator[str]:
    """Yield the nodes from the logits back to the layer that gives them, that one included."""
    name = node_of(graph.logits)
    while True:
        yield name
        node = graph.nodes[name]
        sources = [source for source in node.input if graph.constant(source) is None]
        if node.op in LINEAR_OPERATIONS or len(sources) != 1:
            return
        name = node_of(sources[0])


def _turns(rewriting: _Rewriting, node: Node) -> bool:
    """Return whether a node is to compute in bfloat16."""
    if node.name in rewriting.exact or "T" not in node.attr or node.attr["T"].type != types_pb2.DT_FLOAT:
        return False
    if node.op in LINEAR_OPERATIONS:
        return True
    if node.op not in _CARRYING:
        return False
    given = [source for source in _numbers(node) if rewriting.graph.constant(source) is None]
    return bool(given) and all(rewriting.halved.get(source) == source for source in given)


def _turn(rewriting: _Rewriting, node: Node) -> None:
    turned = Node()
    turned.CopyFrom(node)
    turned.attr["T"].type = types_pb2.DT_BFLOAT16
    numbers = set(_numbers(node))
    for index, source in enumerate(node.input):
        if source in numbers:
            turned.input[index] = _halved(rewriting, source)
    rewriting.nodes.append(turned)
    rewriting.halved[node.name] = node.name


def _keep(rewriting: _Rewriting, node: Node) -> None:
    kept = Node()
    kept.CopyFrom(node)
    for index, source in enumerate(node.input):
        if rewriting.halved.get(source) == source:
            kept.input[index] = _widened(rewriting, source)
    rewriting.nodes.append(kept)


def _numbers(node: Node) -> list[str]:
    """Return the inputs that are of the type T: all but shapes and axes."""
    without = _WHOLE_NUMBERS.get(node.op)
    skipped = None if without is None else without % len(node.input)
    return [source for index, source in enumerate(node.input) if index != skipped]


def _halved(rewriting: _Rewriting, tensor: str) -> str:
    """Return the name of a tensor's bfloat16 form."""
    if tensor not in rewriting.halved:
        name = f"{tensor.replace(':', '_')}/halved"
        value = rewriting.graph.constant(tensor)
        if value is not None:
            rewriting.nodes.append(constant_node(name, value.astype(tf.bfloat16.as_numpy_dtype)))
        else:
            rewriting.nodes.append(_cast(name, tensor, types_pb2.DT_FLOAT, types_pb2.DT_BFLOAT16))
        rewriting.halved[tensor] = name
    return rewriting.halved[tensor]


def _widened(rewriting: _Rewriting, tensor: str) -> str:
    """Return the name of the float32 form of a tensor that is computed in bfloat16."""
    if tensor not in rewriting.widened:
        rewriting.widened[tensor] = f"{tensor}/widened"
        rewriting.nodes.append(_cast(f"{tensor}/widened", tensor, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT))
    return rewriting.widened[tensor]


def _cast(name: str, source: str, given: int, wanted: int) -> Node:
    node = Node(op="Cast", name=name, input=[source])
    node.attr["SrcT"].type = given
    node.attr["DstT"].type = wanted
    return node
