"""SavedModels for tests of model servers: small graphs of known arithmetic, one for each thing to be tested.

Tests load this file by its path (tests/ is no package):

    spec = importlib.util.spec_from_file_location("serving_models", repository / "tests/serving_models.py")

The makers import TensorFlow (about 5 s, once a process); importing this file does not. Each writes a
SavedModel that appears at `path` whole, and returns `path`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

EXAMPLE_SIGNATURES = ("regress_x_to_y", "regress_x_to_y2", "regress_x2_to_y3", "classify_x_to_y", "classify_x2_to_y3")
"""The signatures of `half_plus_two` that share one input of serialized tf.Examples."""

TYPES = (
    *("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "string"),
)
"""The signatures of `many_types` that a client can send arrays to."""

QUANTISED_TYPES = ("qint8", "quint8", "qint16", "quint16", "qint32")
"""The signatures of `many_types` of types that NumPy does not have."""


def half_plus_two(path: Path) -> Path:
    """y = x / 2 + 2, under every method.

    A tf.Example has the features x (one float, needed) and x2 (one float, else 0). With y = x/2 + 2,
    y2 = x/2 + 3 and y3 = x2/2 + 3:

    - serving_default: predict, x float32 [-1, 1] → y float32 of its shape (any other shape does as well)
    - regress_x_to_y, regress_x_to_y2, regress_x2_to_y3: Examples → [batch, 1]
    - classify_x_to_y: Examples → scores [[y]]
    - classify_x2_to_y3: Examples → scores [[y3, -y3]], classes [["y3", "minus"]]
    - classify_x_to_sign: Examples → classes [["positive"]] or [["negative"]], no scores
    - regress_others: as regress_x_to_y, but its Examples come in by a tensor of their own
    """
    return _half_plus(path, 2.0)


def half_plus_three(path: Path) -> Path:
    """As `half_plus_two`, with y = x / 2 + 3."""
    return _half_plus(path, 3.0)


def many_types(path: Path) -> Path:
    """x → y, the same, of any shape; the signature is the type's name, of TYPES or QUANTISED_TYPES."""
    import tensorflow as tf

    module = tf.Module()
    signatures = {}
    for name in (*TYPES, *QUANTISED_TYPES):
        specification = tf.TensorSpec(None, tf.as_dtype(name), name="x")
        echo = _function(lambda x: {"y": tf.identity(x)}, specification)
        setattr(module, name, echo)
        signatures[name] = echo
    return _save(path, module, signatures)


def strings(path: Path) -> Path:
    """serving_default: text string [-1] → echo and echo_bytes (the same), length int32, each [-1]."""
    import tensorflow as tf

    module = tf.Module()

    def answer(text: Any) -> dict[str, Any]:
        return {"echo": tf.identity(text), "echo_bytes": tf.identity(text), "length": tf.strings.length(text)}

    module.answer = _function(answer, tf.TensorSpec([None], tf.string, name="text"))
    return _save(path, module, {"serving_default": module.answer})


def matrix_half_plus_two(path: Path) -> Path:
    """serving_default: x float32 [-1, 2, 2] → y = x / 2 + 2, of the same shape."""
    import tensorflow as tf

    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(2.0)
    specification = tf.TensorSpec([None, 2, 2], tf.float32, name="x")
    module.answer = _function(lambda x: {"y": module.a * x + module.b}, specification)
    return _save(path, module, {"serving_default": module.answer})


def counter(path: Path) -> Path:
    """A number in the server's memory; outputs are the scalar `output` float32.

    - get_counter, incr_counter, reset_counter: predict, no inputs
    - incr_counter_by: predict, delta float32 []

    It is saved as 7, and an init op sets it to 0: a counter that begins at 7 was not initialised.
    """

    def build(v1: Any) -> tuple[dict[str, Any], Any]:
        value = v1.Variable(7.0, name="counter", use_resource=True)
        delta = v1.placeholder(v1.float32, [], name="delta")
        outputs = {
            "get_counter": ({}, value.read_value()),
            "incr_counter": ({}, value.assign_add(1.0, read_value=True)),
            "incr_counter_by": ({"delta": delta}, value.assign_add(delta, read_value=True)),
            "reset_counter": ({}, value.assign(0.0, read_value=True)),
        }
        signatures = {
            name: _signature(v1, "predict", inputs, {"output": v1.identity(output)})
            for name, (inputs, output) in outputs.items()
        }
        return signatures, value.assign(0.0, read_value=False)

    return _save_graph(path, build)


def slow(path: Path, seconds: float) -> Path:
    """serving_default: x float32 [-1] → y, the same, after a loop that turns for `seconds`; it can be cancelled."""
    import tensorflow as tf

    module = tf.Module()

    def answer(x: Any) -> dict[str, Any]:
        end = tf.timestamp() + seconds
        now = tf.while_loop(lambda now: now < end, lambda _: (tf.timestamp(),), (tf.timestamp(),))
        with tf.control_dependencies(now):
            return {"y": tf.identity(x)}

    module.answer = _function(answer, tf.TensorSpec([None], tf.float32, name="x"))
    return _save(path, module, {"serving_default": module.answer})


def endless(path: Path) -> Path:
    """serving_default: x float32 [-1] → y, after a loop that nobody lives to see the end of; it can be cancelled.

    Unlike `slow` it looks at no clock, which TensorFlow refuses where operations are to be deterministic.
    """
    import tensorflow as tf

    module = tf.Module()

    def answer(x: Any) -> dict[str, Any]:
        turns = tf.while_loop(lambda n: n < 2**62, lambda n: (n + 1,), (tf.constant(0, tf.int64),))
        with tf.control_dependencies(turns):
            return {"y": tf.identity(x)}

    module.answer = _function(answer, tf.TensorSpec([None], tf.float32, name="x"))
    return _save(path, module, {"serving_default": module.answer})


def wide(path: Path) -> Path:
    """serving_default: x float32 [-1, -1] → total float32 [-1] (of each row), width int32 [-1] (as it was run).

    Padding shows in both: the width is that of the widest of a batch, and what pads is added up.
    """
    import tensorflow as tf

    module = tf.Module()

    def answer(x: Any) -> dict[str, Any]:
        size = tf.shape(x)
        return {"total": tf.reduce_sum(x, axis=1), "width": tf.fill(size[:1], size[1])}

    module.answer = _function(answer, tf.TensorSpec([None, None], tf.float32, name="x"))
    return _save(path, module, {"serving_default": module.answer})


def _half_plus(path: Path, addend: float) -> Path:
    def build(v1: Any) -> tuple[dict[str, Any], Any]:
        a, b, c = (
            v1.Variable(start, name=name, use_resource=True) for name, start in (("a", 0.5), ("b", addend), ("c", 3.0))
        )
        examples, others = (v1.placeholder(v1.string, [None], name=name) for name in ("examples", "others"))
        features = {"x": v1.FixedLenFeature([1], v1.float32), "x2": v1.FixedLenFeature([1], v1.float32, [0.0])}
        parsed = v1.parse_example(examples, features)
        x, x2 = v1.identity(parsed["x"], "x"), v1.identity(parsed["x2"], "x2")
        y, y2, y3 = v1.identity(a * x + b, "y"), v1.identity(a * x + c, "y2"), v1.identity(a * x2 + c, "y3")
        y_of_others = a * v1.parse_example(others, features)["x"] + b
        names = v1.tile(v1.constant([["y3", "minus"]]), [v1.shape(y3)[0], 1])
        sign = v1.where_v2(x < 0.0, "negative", "positive")
        signatures = {
            "serving_default": _signature(v1, "predict", {"x": x}, {"y": y}),
            "regress_x_to_y": _signature(v1, "regress", {"inputs": examples}, {"outputs": y}),
            "regress_x_to_y2": _signature(v1, "regress", {"inputs": examples}, {"outputs": y2}),
            "regress_x2_to_y3": _signature(v1, "regress", {"inputs": examples}, {"outputs": y3}),
            "classify_x_to_y": _signature(v1, "classify", {"inputs": examples}, {"scores": y}),
            "classify_x2_to_y3": _signature(
                v1, "classify", {"inputs": examples}, {"scores": v1.concat([y3, -y3], 1), "classes": names}
            ),
            "classify_x_to_sign": _signature(v1, "classify", {"inputs": examples}, {"classes": sign}),
            "regress_others": _signature(v1, "regress", {"inputs": others}, {"outputs": y_of_others}),
        }
        return signatures, None

    return _save_graph(path, build)


def _signature(v1: Any, method: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    info = v1.saved_model.build_tensor_info
    return v1.saved_model.build_signature_def(
        {alias: info(tensor) for alias, tensor in inputs.items()},
        {alias: info(tensor) for alias, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


def _save_graph(path: Path, build: Callable[[Any], tuple[dict[str, Any], Any]]) -> Path:
    """Save as TensorFlow 1 does, which alone writes classify and regress signatures."""
    import tensorflow as tf

    v1 = tf.compat.v1
    temporary = _temporary(path)
    with tf.Graph().as_default(), v1.Session() as session:
        signatures, init_op = build(v1)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(temporary))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures, main_op=init_op)
        builder.save()
    return temporary.rename(path)


def _function(answer: Callable[..., dict[str, Any]], specification: Any) -> Any:
    import tensorflow as tf

    # Without AutoGraph, which warns of files that were loaded by their path.
    return tf.function(answer, input_signature=[specification], autograph=False)


def _save(path: Path, module: Any, signatures: dict[str, Any]) -> Path:
    import tensorflow as tf

    temporary = _temporary(path)
    tf.saved_model.save(module, str(temporary), signatures=signatures)
    return temporary.rename(path)


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".tmp-{path.name}"
