"""SavedModels for what tests/serving_models.py has no reason to have: wrong signatures, odd shapes, sizes seen.

Its place in the flow: made once a session by the contract suite's conftest. Each maker writes a
SavedModel that appears at `path` whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Signatures = dict[str, Any]


def plus(path: Path, addend: float) -> None:
    """serving_default: x float32 [-1] → y = x + addend; the addend is a variable, in files of its own."""

    def build(v1: Any) -> Signatures:
        x = v1.placeholder(v1.float32, [None], name="x")
        addend_variable = v1.Variable(addend, name="addend", use_resource=True)
        return {"serving_default": _signature(v1, "predict", {"x": x}, {"y": x + addend_variable})}

    _save(path, build)


def pair(path: Path) -> None:
    """Two inputs and several outputs, all float32.

    - serving_default: a [-1], b [-1] → sum, difference
    - with_default: the same, where b is 10 when it is not given
    - scalar: a → total, of no dimension
    - uneven: a → first (its first row), all
    - complex: a → z complex64
    """

    def build(v1: Any) -> Signatures:
        a, b = (v1.placeholder(v1.float32, None, name=name) for name in "ab")
        both = {"sum": v1.add(a, b, "sum"), "difference": v1.subtract(a, b, "difference")}
        with_default = _signature(v1, "predict", {"a": a, "b": b}, both)
        with_default.defaults["b"].CopyFrom(v1.make_tensor_proto(10.0))
        return {
            "serving_default": _signature(v1, "predict", {"a": a, "b": b}, both),
            "with_default": with_default,
            "scalar": _signature(v1, "predict", {"a": a}, {"total": v1.reduce_sum(a)}),
            "uneven": _signature(v1, "predict", {"a": a}, {"first": a[:1], "all": v1.identity(a)}),
            "complex": _signature(v1, "predict", {"a": a}, {"z": v1.complex(a, a)}),
        }

    _save(path, build)


def features(path: Path) -> None:
    """tf.Examples with an int64 `age`, a float `weight` and bytes `name`, each scalar and by default 0 or empty.

    Good signatures: `years` (regress: age), `weights` (regress, [batch]: weight), `size` (classify: age and
    weight as scores of "old" and "heavy"), `names` (classify, [batch, 1]: name, no scores). The rest are
    wrong: see the tests.
    """

    def build(v1: Any) -> Signatures:
        serialized = v1.placeholder(v1.string, [None], name="examples")
        parsed = v1.parse_example(
            serialized,
            {
                "age": v1.FixedLenFeature([], v1.int64, 0),
                "weight": v1.FixedLenFeature([], v1.float32, 0.0),
                "name": v1.FixedLenFeature([], v1.string, ""),
            },
        )
        age, weight = v1.cast(parsed["age"], v1.float32), v1.identity(parsed["weight"])
        names = v1.expand_dims(parsed["name"], 1)
        rows = v1.shape(age)[0]
        labels = v1.tile(v1.constant([["old", "heavy"]]), [rows, 1])
        both = v1.stack([age, weight], axis=1)
        given = {"inputs": serialized}
        return {
            "years": _signature(v1, "regress", given, {"outputs": v1.expand_dims(age, 1)}),
            "weights": _signature(v1, "regress", given, {"outputs": weight}),
            "size": _signature(v1, "classify", given, {"classes": labels, "scores": both}),
            "names": _signature(v1, "classify", given, {"classes": names}),
            "regress_two_columns": _signature(v1, "regress", given, {"outputs": both}),
            "regress_two_outputs": _signature(v1, "regress", given, {"outputs": age, "more": weight}),
            "regress_other_output": _signature(v1, "regress", given, {"years": age}),
            "classify_flat": _signature(v1, "classify", given, {"scores": weight}),
            "classify_no_scores": _signature(v1, "classify", given, {"years": both}),
            "classify_three_outputs": _signature(
                v1, "classify", given, {"classes": labels, "scores": both, "more": weight}
            ),
        }

    _save(path, build)


def sizes(path: Path) -> None:
    """What a batch looked like when it was run; rows of padding show in `total`.

    - serving_default: x float32 [-1] → y = x + 1, rows int32 [-1] (of the batch), total [-1] (of the batch)
    - two: a, b float32 → sum
    - scalar_output: x → total of no dimension
    - short_output: x → its first row
    - count: regress, Examples (any) → how many were run together
    - count_classes: classify, the same as a score
    """

    def build(v1: Any) -> Signatures:
        x, a, b = (v1.placeholder(v1.float32, None, name=name) for name in ("x", "a", "b"))
        serialized = v1.placeholder(v1.string, [None], name="examples")
        size, count = v1.shape(x)[:1], v1.shape(serialized)[:1]
        counts = v1.expand_dims(v1.cast(v1.fill(count, count[0]), v1.float32), 1)
        rows = {"y": x + 1.0, "rows": v1.fill(size, size[0]), "total": v1.fill(size, v1.reduce_sum(x))}
        return {
            "serving_default": _signature(v1, "predict", {"x": x}, rows),
            "two": _signature(v1, "predict", {"a": a, "b": b}, {"sum": a + b}),
            "scalar_output": _signature(v1, "predict", {"x": x}, {"total": v1.reduce_sum(x)}),
            "short_output": _signature(v1, "predict", {"x": x}, {"first": x[:1]}),
            "count": _signature(v1, "regress", {"inputs": serialized}, {"outputs": counts}),
            "count_classes": _signature(v1, "classify", {"inputs": serialized}, {"scores": v1.identity(counts)}),
        }

    _save(path, build)


def _signature(v1: Any, method: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    info = v1.saved_model.build_tensor_info
    return v1.saved_model.build_signature_def(
        {alias: info(tensor) for alias, tensor in inputs.items()},
        {alias: info(tensor) for alias, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


def _save(path: Path, build: Callable[[Any], Signatures]) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{path.name}"
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = build(v1)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(temporary))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    temporary.rename(path)
