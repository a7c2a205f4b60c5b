"""How the functions of a graph call each other, and which files the saver's part reads through them.

Its place in the flow: model_scan.py adds these findings to scan_graph.py's. There operations are judged one by one;
here what they do together: functions in a circle never end, functions that TensorFlow may swap for others run unseen,
and a RestoreV2 whose file name is not the loader's reads somebody else's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from validation.programs.protos import saved_model_pb2 as pb
from validation.programs.scan_graph import functions_named_by, node_name

_SWAPPING_ATTRIBUTE = "api_implements"
"""Grappler's implementation selector runs any function with the same value instead of the one that is called."""

_PASSING_ON = frozenset({"Identity", "StopGradient"})
_IN_PROGRESS, _DONE = 1, 2


def call_findings(meta_graph: pb.MetaGraph) -> Iterator[str]:
    """Yield every reason to refuse what the functions do together, in words."""
    library = meta_graph.graph_def.library
    functions = {function.signature.name: function for function in library.function}
    for function in library.function:
        if _SWAPPING_ATTRIBUTE in function.attr:
            yield f"function {function.signature.name} may be run in place of another ({_SWAPPING_ATTRIBUTE})"
    for gradient in library.gradient:
        yield f"function {gradient.function_name} has a gradient function, which serving does not need"
    circle = _circle(functions)
    if circle is not None:
        # What follows would not come to an end either.
        yield f"function {circle} calls itself, directly or through others"
        return
    yield from dict.fromkeys(_foreign_files(meta_graph, functions))


def _circle(functions: Mapping[str, pb.Function]) -> str | None:
    """Return a function from which calls lead back to it."""
    calls = {
        name: [called for node in function.node_def for called in functions_named_by(node) if called in functions]
        for name, function in functions.items()
    }
    state: dict[str, int] = {}
    for start in functions:
        path = [(start, iter(calls[start]))] if start not in state else []
        while path:
            name, following = path[-1]
            state[name] = _IN_PROGRESS
            called = next(following, None)
            if called is None:
                state[name] = _DONE
                path.pop()
            elif state.get(called) == _IN_PROGRESS:
                return called
            elif called not in state:
                path.append((called, iter(calls[called])))
    return None


def _foreign_files(meta_graph: pb.MetaGraph, functions: Mapping[str, pb.Function]) -> Iterator[str]:
    """Yield each RestoreV2 that reads another file than the one whose name the loader hands in."""
    filename = node_name(meta_graph.saver_def.filename_tensor_name)
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    # Each entry: where, the nodes there, and the names that stand for the loader's file name.
    pending = [("the graph", nodes, frozenset({filename} if filename else ()))]
    seen = {("the graph", pending[0][2])}
    while pending:
        where, scope, own_names = pending.pop()
        for node in scope.values():
            is_own = [_origin(tensor, scope) in own_names for tensor in node.input if not tensor.startswith("^")]
            if node.op == "RestoreV2" and not (is_own and is_own[0]):
                yield f"operation RestoreV2 reads another file than the model's own variables ({node.name} in {where})"
            for name in functions_named_by(node):
                function = functions.get(name)
                if function is None:
                    continue
                arguments = [argument.name for argument in function.signature.input_arg]
                inner_names = frozenset(one for one, own in zip(arguments, is_own, strict=False) if own)
                if (name, inner_names) not in seen:
                    seen.add((name, inner_names))
                    inner = {inner_node.name: inner_node for inner_node in function.node_def}
                    pending.append((f"function {name}", inner, inner_names))


def _origin(tensor: str, scope: Mapping[str, pb.Node]) -> str:
    """Return the name of the node or argument that a tensor comes from, past those that only pass it on."""
    name, passed = node_name(tensor), set()
    while name in scope and scope[name].op in _PASSING_ON and scope[name].input and name not in passed:
        passed.add(name)
        name = node_name(scope[name].input[0])
    return name
