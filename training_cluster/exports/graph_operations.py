"""Which operations a served graph may reach, and which an export does reach.

Its place in the flow: a SavedModel is a program, and the gate lets through only programs made of
these operations. The export checks its own work against the list, so that a network which the gate
would refuse is refused before days are spent on approving it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from artifact_sync.errors import TrainingError

_OPERATIONS = """
AddV2 AvgPool BiasAdd Cast ConcatV2 Const Conv2D DepthwiseConv2dNative Erfc FusedBatchNormV3 GatherV2 Identity
IdentityN MatMul Max MaxPool Maximum Mean Minimum Mul Neg NoOp Pack Pad PartitionedCall Placeholder Prod
ReadVariableOp RealDiv Relu Relu6 Reshape Rsqrt Shape Sigmoid Softmax Sqrt Square SquaredDifference Squeeze
StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Transpose VarHandleOp
"""
SERVED_OPERATIONS = frozenset(_OPERATIONS.split())


def reachable_operations(export_dir: Path, *, signature_name: str) -> frozenset[str]:
    """Return the operations that a call of the signature can execute, nested functions included."""
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((export_dir / "saved_model.pb").read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    graph = meta_graph.graph_def
    nodes = {node.name: node for node in graph.node}
    outputs = (tensor.name for tensor in meta_graph.signature_def[signature_name].outputs.values())
    waiting = [name.partition(":")[0] for name in outputs]
    found: list[graph_pb2.NodeDef] = []
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().removeprefix("^").partition(":")[0]
        if name not in seen:
            seen.add(name)
            found.append(nodes[name])
            waiting.extend(nodes[name].input)
    return frozenset(_with_functions(found, {entry.signature.name: entry for entry in graph.library.function}))


def refuse_other_operations(export_dir: Path, *, signature_name: str) -> None:
    """Check that the signature reaches only `SERVED_OPERATIONS`.

    Raises:
        TrainingError: names the others.
    """
    refuse_operations(reachable_operations(export_dir, signature_name=signature_name) - SERVED_OPERATIONS)


def refuse_operations(others: Iterable[str]) -> None:
    """Refuse the operations `others`, if there are any.

    Raises:
        TrainingError: names them.
    """
    named = ", ".join(sorted(others))
    if named:
        raise TrainingError(
            f"Export refused: the model uses the operations {named}, which serving hosts do not execute. "
            "Build the network from layers without them."
        )


def _with_functions(nodes: Iterable[graph_pb2.NodeDef], functions: dict[str, object]) -> Iterable[str]:
    waiting, called = list(nodes), set[str]()
    while waiting:
        node = waiting.pop()
        yield node.op
        names = {node.op} & functions.keys()
        for attribute in node.attr.values():
            names |= {attribute.func.name, *(entry.name for entry in attribute.list.func)} - {""}
        for name in names - called:
            called.add(name)
            waiting.extend(functions[name].node_def)  # type: ignore[attr-defined]
