"""Folds batch normalisation, and whatever else scales and shifts channels, into the layer before it.

Its place in the flow: the export folds the flat graph of a trained network before it is saved. In
inference a batch normalisation multiplies each channel with one number and adds another; both can
be multiplied into the weights of the convolution or dense layer that feeds it, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training_cluster.exports.flat_graph import Array, FlatGraph, Node, constant_node

LINEAR_OPERATIONS = frozenset({"Conv2D", "DepthwiseConv2dNative", "MatMul"})
"""What multiplies with weights, its second input."""

_MULTIPLYING = frozenset({"Mul", "RealDiv", "FusedBatchNormV3"})


@dataclass(frozen=True)
class _Affine:
    """What a chain of operations does to each channel: y = scale · x + offset."""

    scale: Array
    offset: Array
    last: str
    multiplies: bool = False

    def then(self, node: Node, *, scale: Array | float = 1.0, offset: Array | float = 0.0) -> _Affine:
        return _Affine(
            scale=self.scale * scale,
            offset=self.offset * scale + offset,
            last=node.name,
            multiplies=self.multiplies or node.op in _MULTIPLYING,
        )


def folded(graph: FlatGraph) -> tuple[FlatGraph, int]:
    """Return the graph with as few operations as folding allows, and how many layers took something in.

    A layer whose output is read more than once before the normalisation, or whose weights another
    layer reads too, is left as it is.
    """
    consumers = graph.consumers()
    changed: list[Node] = []
    instead: dict[str, str] = {}
    count = 0
    for node in graph.nodes.values():
        if node.op not in LINEAR_OPERATIONS or node.name in instead:
            continue
        weights = graph.constant(node.input[1])
        if weights is None or len(consumers[node.input[1]]) > 1 or not _is_channels_last(node):
            continue
        chain = _chain(graph, node, consumers, channels=_channels(node, weights))
        if chain.multiplies:
            count += 1
            changed += _rewritten(node, weights, chain)
            instead[chain.last] = f"{node.name}/offset"
    return graph.with_nodes(changed, instead=instead), count


def _chain(graph: FlatGraph, linear: Node, consumers: dict[str, list[Node]], *, channels: int) -> _Affine:
    """Follow the only reader of each output as long as it scales or shifts channels by constants."""
    chain = _Affine(np.ones(channels), np.zeros(channels), linear.name)
    while chain.last != graph.logits and len(consumers[chain.last]) == 1:
        longer = _extended(graph, chain, consumers[chain.last][0], rank=2 if linear.op == "MatMul" else 4)
        if longer is None:
            break
        chain = longer
    return chain


def _extended(graph: FlatGraph, chain: _Affine, node: Node, *, rank: int) -> _Affine | None:
    """Return the chain with `node` at its end, or None when that does something else."""
    if node.op == "FusedBatchNormV3":
        return _extended_by_batch_norm(graph, chain, node)
    if len(node.input) != 2 or not _is_channels_last(node):
        return None
    is_first = node.input[0] == chain.last
    constant = graph.constant(node.input[1 if is_first else 0])
    value = None if constant is None else _by_channel(constant, channels=len(chain.scale), rank=rank)
    step = None if value is None else _step(node.op, value, is_first=is_first)
    return None if step is None else chain.then(node, scale=step[0], offset=step[1])


def _step(operation: str, value: Array, *, is_first: bool) -> tuple[Array | float, Array | float] | None:
    """Return scale and offset of an operation with a constant, or None; `is_first` says that x stands before it."""
    match operation, is_first:
        case ("Add" | "AddV2", _) | ("BiasAdd", True):
            return 1.0, value
        case "Mul", _:
            return value, 0.0
        case "RealDiv", True if np.all(value != 0):
            return 1 / value, 0.0
        case "Sub", True:
            return 1.0, -value
        case "Sub", False:
            return -1.0, value
    return None


def _extended_by_batch_norm(graph: FlatGraph, chain: _Affine, node: Node) -> _Affine | None:
    values = [graph.constant(source) for source in node.input[1:]]
    if node.attr["is_training"].b or node.input[0] != chain.last or not _is_channels_last(node):
        return None
    if any(value is None for value in values):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
    return chain.then(node, scale=scale, offset=beta - mean * scale)


def _by_channel(constant: Array, *, channels: int, rank: int) -> Array | None:
    """Return a constant as one number a channel, None when it differs within a channel."""
    is_one = constant.size == 1
    is_row = constant.size == channels and constant.shape[-1:] == (channels,)
    if constant.dtype.kind != "f" or constant.ndim > rank or not (is_one or is_row):
        return None
    return np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,))


def _is_channels_last(node: Node) -> bool:
    # Asking a map of a message for a key that is not there would enter it.
    return "data_format" not in node.attr or node.attr["data_format"].s == b"NHWC"


def _channels(node: Node, weights: Array) -> int:
    """Return how many channels the layer gives."""
    if node.op == "MatMul":
        return int(weights.shape[0 if node.attr["transpose_b"].b else 1])
    return int(np.prod(weights.shape[2:] if node.op == "DepthwiseConv2dNative" else weights.shape[3:]))


def _rewritten(node: Node, weights: Array, chain: _Affine) -> Iterator[Node]:
    """Yield the layer with scaled weights, and the addition of the offset behind it."""
    if node.op == "DepthwiseConv2dNative":
        scale = chain.scale.reshape(weights.shape[2:])
    elif node.op == "MatMul" and node.attr["transpose_b"].b:
        scale = chain.scale[:, None]
    else:
        scale = chain.scale
    yield constant_node(f"{node.name}/weights", (weights.astype(np.float64) * scale).astype(weights.dtype))
    yield constant_node(f"{node.name}/offsets", chain.offset.astype(weights.dtype))
    linear = Node()
    linear.CopyFrom(node)
    linear.input[1] = f"{node.name}/weights"
    yield linear
    offset = Node(op="BiasAdd", name=f"{node.name}/offset", input=[node.name, f"{node.name}/offsets"])
    offset.attr["T"].CopyFrom(node.attr["T"])
    offset.attr["data_format"].s = b"NHWC"
    yield offset
