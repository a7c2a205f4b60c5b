"""Replaces what a frozen graph calls by what it computes, without XLA.

Its place in the flow: `flat_graph` asks for it. Keras lets XLA compile convolutions in groups, since
TensorFlow cannot do them on a CPU otherwise. XLA makes serving on a CPU many times slower; where
each group is one channel, TensorFlow has a depthwise convolution of its own for the same sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from artifact_sync.errors import TrainingError

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


def inlined(graph: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """Return a frozen graph without calls and without convolutions in groups.

    Raises:
        TrainingError: it convolves in groups of several channels.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    if not any(node.op in _CALLS for node in graph.node):
        return graph
    nodes: list[Any] = list(graph.node)
    outputs: dict[str, str] = {}
    while any(node.op in _CALLS for node in nodes):
        nodes = [made for node in nodes for made in (_body(node, functions, outputs) if node.op in _CALLS else (node,))]
    for node in nodes:
        node.input[:] = [_resolved(source, outputs) for source in node.input if not source.startswith("^")]
    return _without_groups(graph_pb2.GraphDef(node=nodes, versions=graph.versions))


def _body(call: Any, functions: Mapping[str, Any], outputs: dict[str, str]) -> Iterator[Any]:
    """Yield the nodes of a called function, and enter in `outputs` what the call's outputs are now."""
    function = functions[call.attr["f"].func.name]
    body, flat_names = function_def_to_graph_def(function)
    given = dict(zip((argument.name for argument in function.signature.input_arg), call.input, strict=False))
    for index, result in enumerate(function.signature.output_arg):
        tensor = f"{call.name}/{flat_names[function.ret[result.name]]}"
        outputs[f"{call.name}:{index}"] = tensor
    for node in body.node:
        if node.name in given:
            outputs[f"{call.name}/{node.name}:0"] = given[node.name]
            continue
        node.input[:] = [f"{call.name}/{source}" for source in node.input if not source.startswith("^")]
        node.name = f"{call.name}/{node.name}"
        yield node


def _resolved(source: str, outputs: Mapping[str, str]) -> str:
    """Return the tensor behind the outputs and inputs of calls."""
    while (named := source if ":" in source else f"{source}:0") in outputs:
        source = outputs[named]
    return source


def _without_groups(graph: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """Return the graph with depthwise convolutions for those that convolve each channel on its own."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
    nodes: list[Any] = []
    for node in graph.node:
        if node.op != "Conv2D":
            nodes.append(node)
            continue
        given, weights = imported.get_operation_by_name(node.name).inputs
        channels = given.shape[1 if node.attr["data_format"].s == b"NCHW" else 3]
        nodes += [node] if weights.shape[2] == channels else _depthwise(node, weights.shape.as_list(), channels)
    return graph_pb2.GraphDef(node=nodes, versions=graph.versions)


def _depthwise(node: Any, shape: list[int], channels: int) -> Iterator[Any]:
    """Yield a depthwise convolution with the weights [h, w, 1, channels · m] of one in groups, in another shape."""
    if shape[2] != 1:
        raise TrainingError(
            f"Export refused: the model convolves {channels} channels in groups of {shape[2]}, which serving hosts "
            "cannot do without XLA. Build the network from convolutions of all channels or of each on its own, or set "
            "export.is_folded = false and serve it with XLA, slowly."
        )
    new_shape = node_def_pb2.NodeDef(op="Const", name=f"{node.name}/shape")
    new_shape.attr["dtype"].type = tf.int32.as_datatype_enum
    new_shape.attr["value"].tensor.CopyFrom(
        tf.make_tensor_proto([*shape[:2], channels, shape[3] // channels], tf.int32)
    )
    weights = node_def_pb2.NodeDef(op="Reshape", name=f"{node.name}/weights", input=[node.input[1], new_shape.name])
    weights.attr["T"].CopyFrom(node.attr["T"])
    weights.attr["Tshape"].type = tf.int32.as_datatype_enum
    depthwise = node_def_pb2.NodeDef(op="DepthwiseConv2dNative", name=node.name, input=[node.input[0], weights.name])
    for key in ("T", "strides", "padding", "explicit_paddings", "data_format", "dilations"):
        depthwise.attr[key].CopyFrom(node.attr[key])
    yield from (new_shape, weights, depthwise)
