"""Which operations a SavedModel's graph can run, held against lists of what a classifier needs.

Its place in the flow: model_scan.py parses the file and asks here. A graph has four regions, each
with its own list, because the saver inside every benign file must read and write files:

    serving   reached from a signature or an initialisation: computes, reads variables, nothing else
    restore   reached from the saver's restore operation, which runs when the model is loaded
    save      reached from the saver's save tensor, which a model server never runs
    the rest  functions that nothing names; loaders may still find them through the object graph

Functions are followed wherever an attribute or an operation's name refers to one: calls, branches,
loop bodies, however deep.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from validation.programs.protos import saved_model_pb2 as pb


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SERVING_OPERATIONS = _names(
    """
    Add AddV2 AvgPool BatchMatMulV2 BiasAdd Cast ConcatV2 Const Conv2D DepthwiseConv2dNative Elu Erf Erfc Exp
    ExpandDims FusedBatchNormV3 GatherV2 Identity IdentityN LeakyRelu Log LogSoftmax MatMul Max MaxPool Maximum Mean
    Minimum MirrorPad Mul Neg NoOp Pack Pad PadV2 PartitionedCall Placeholder Prod ReadVariableOp RealDiv Relu Relu6
    Reshape Rsqrt Selu Shape Sigmoid Slice Softmax Softplus Sqrt Square SquaredDifference Squeeze
    StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Transpose VarHandleOp
    """
)
"""What image classifiers compute with; none of it touches a file, a process, a network or Python."""

RESTORE_OPERATIONS = _names(
    """
    AssignVariableOp Const DisableCopyOnRead Identity NoOp Pack Placeholder ReadVariableOp RestoreV2
    StatefulPartitionedCall VarHandleOp
    """
)
"""What the saver needs to read the variables."""

SAVE_OPERATIONS = RESTORE_OPERATIONS | _names(
    "MergeV2Checkpoints SaveV2 Select ShardedFilename StaticRegexFullMatch StringJoin"
)
"""What the saver needs to write the variables."""

UNREACHED_OPERATIONS = SERVING_OPERATIONS | _names("AssignVariableOp DisableCopyOnRead VarIsInitializedOp")
"""What may stand where nothing leads: exporters leave the handles and checks of variables behind."""

INITIALISATION_COLLECTIONS = frozenset({"saved_model_main_op", "legacy_init_op"})


@dataclass
class _Walk:
    """The nodes and functions reached from one region's roots."""

    nodes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)


def graph_findings(meta_graph: pb.MetaGraph) -> list[str]:
    """Return every reason to refuse the graph, in words; none for a graph that only computes."""
    graph = _Graph(meta_graph)
    return [*graph.malformed(), *graph.forbidden()]


def reachable_operations(meta_graph: pb.MetaGraph) -> frozenset[str]:
    """Return the names of the operations reached from the signatures and the initialisation."""
    graph = _Graph(meta_graph)
    return frozenset(node.op for _, node in graph.nodes_of(graph.walk(graph.serving_roots())))


def constant_elements(meta_graph: pb.MetaGraph) -> int:
    """Return how many numbers all constants hold together once they are loaded.

    A constant of one repeated value takes a few bytes in the file and all of its shape in memory.
    """
    graph = meta_graph.graph_def
    functions = (node for function in graph.library.function for node in function.node_def)
    tensors = (
        tensor
        for node in chain(graph.node, functions)
        for attribute in node.attr.values()
        for tensor in (attribute.tensor, *attribute.list.tensor)
    )
    return sum(math.prod(abs(dim.size) for dim in tensor.tensor_shape.dim) for tensor in tensors)


class _Graph:
    """An index over one meta graph: nodes by name, functions by name."""

    def __init__(self, meta_graph: pb.MetaGraph) -> None:
        self._meta_graph = meta_graph
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}

    def serving_roots(self) -> Iterator[str]:
        """Yield the tensors named by any signature or initialisation."""
        for signature in self._meta_graph.signature_def.values():
            for tensor in (*signature.inputs.values(), *signature.outputs.values()):
                yield tensor.name
        for name, collection in self._meta_graph.collection_def.items():
            if name in INITIALISATION_COLLECTIONS:
                yield from collection.node_list.value

    def walk(self, roots: Iterable[str]) -> _Walk:
        """Return everything that running `roots` can run."""
        walk = _Walk()
        pending = [node_name(root) for root in roots]
        while pending:
            name = pending.pop()
            node = self._nodes.get(name)
            if node is None or name in walk.nodes:
                continue
            walk.nodes.add(name)
            pending += [node_name(source) for source in node.input]
            self._follow(node, walk)
        return walk

    def nodes_of(self, walk: _Walk) -> Iterator[tuple[str, pb.Node]]:
        """Yield (where, node) for everything in a walk that is not itself a call of a known function."""
        for name in sorted(walk.nodes):
            yield "the graph", self._nodes[name]
        for name in sorted(walk.functions):
            for node in self._functions[name].node_def:
                yield f"function {name}", node

    def malformed(self) -> Iterator[str]:
        """Yield what no honest exporter writes and what would blind the walk."""
        graph = self._meta_graph.graph_def
        if len(self._nodes) != len(graph.node) or len(self._functions) != len(graph.library.function):
            yield "two nodes or two functions share a name"
        known = SERVING_OPERATIONS | SAVE_OPERATIONS
        for name in sorted(known & set(self._functions)):
            yield f"a function takes the name of the operation {name}"
        for asset in self._meta_graph.asset_file_def:
            yield f"the asset file {asset.filename!r} is read when the model is loaded"

    def forbidden(self) -> Iterator[str]:
        """Yield each operation that stands in a region whose list does not hold it."""
        saver = self._meta_graph.saver_def
        regions = (
            ("a signature or the initialisation", SERVING_OPERATIONS, self.walk(self.serving_roots())),
            ("loading", RESTORE_OPERATIONS, self.walk([saver.restore_op_name])),
            ("saving", SAVE_OPERATIONS, self.walk([saver.save_tensor_name, saver.filename_tensor_name])),
        )
        reached = _Walk()
        for region, allowed, walk in regions:
            reached.nodes |= walk.nodes
            reached.functions |= walk.functions
            yield from self._outside(region, allowed, walk)
        rest = _Walk(nodes=set(self._nodes) - reached.nodes, functions=set(self._functions) - reached.functions)
        yield from self._outside("no signature", UNREACHED_OPERATIONS, rest)

    def _outside(self, region: str, allowed: frozenset[str], walk: _Walk) -> Iterator[str]:
        found: dict[str, list[str]] = defaultdict(list)
        for where, node in self.nodes_of(walk):
            if node.op not in allowed and node.op not in self._functions:
                found[node.op].append(f"{node.name} in {where}")
        for operation, places in sorted(found.items()):
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            yield f"operation {operation}, reached from {region} ({places[0]}{more})"

    def _follow(self, node: pb.Node, walk: _Walk) -> None:
        pending = [node]
        while pending:
            for name in functions_named_by(pending.pop()):
                function = self._functions.get(name)
                if function is not None and name not in walk.functions:
                    walk.functions.add(name)
                    pending += function.node_def


def functions_named_by(node: pb.Node) -> Iterator[str]:
    """Yield every name by which a node may call a function, whether or not there is one of that name."""
    # A node whose operation is a function's name calls it.
    yield node.op
    pending = list(node.attr.values())
    while pending:
        attribute = pending.pop()
        for reference in (attribute.func, *attribute.list.func):
            if reference.name:
                yield reference.name
                pending += reference.attr.values()


def node_name(tensor: str) -> str:
    """Return the node of a tensor "node:0" or of a control input "^node"."""
    return tensor.removeprefix("^").partition(":")[0]
