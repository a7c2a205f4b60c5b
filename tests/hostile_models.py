"""SavedModels that try to do what no classifier does, each really built by TensorFlow, and an honest one.

Tests load this file by its path (tests/ is no package) and call `hostile_models`, which builds all of them once for
a test session, in a process of its own, so that the tests themselves import no TensorFlow. By hand:

    python tests/hostile_models.py DIRECTORY

All take "pixels" uint8 [batch, 4, 4, 3] and give "probabilities" float32 [batch, 2], or claim to.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "/tmp/liftgate-was-here"
"""What the models that write files write; in a sandbox it is the sandbox's own /tmp."""

SECRET = "/etc/passwd"


def hostile_models(shared: Path) -> Path:
    """Return a directory under `shared` with one export a kind; whoever asks first builds them, others wait."""
    directory = shared / "hostile-models"
    shared.mkdir(parents=True, exist_ok=True)
    with (shared / "hostile-models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            building = shared / f".hostile-models-{os.getpid()}"
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run([sys.executable, __file__, str(building)], check=True, env=environment, timeout=300)
            building.rename(directory)
    return directory


def build_all(out_dir: Path) -> None:
    """Write every kind to `out_dir`/<kind>."""
    for name, trick in _tricks().items():
        _save(out_dir / name, trick)
    for name, options in _other_forms().items():
        _save(out_dir / name, **options)
    _save_with_parts(out_dir)
    for name, edit in _edits().items():
        shutil.copytree(out_dir / "honest", out_dir / name)
        edit(out_dir / name)


def _save(
    directory: Path,
    trick: Callable[[Any], Any] | None = None,
    *,
    prepare: Callable[[Any], None] | None = None,
    more_signatures: Callable[[Any], dict[str, Any]] | None = None,
    dtype: str = "uint8",
    output: str = "probabilities",
    kernel: float = 1.0,
) -> None:
    """Save a classifier whose scores [n, 2] pass through `trick`."""
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable([[kernel, 0.5]] * 3)

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], dtype, name="pixels")], autograph=False)
    def answer(pixels: Any) -> dict[str, Any]:
        means = tf.reduce_mean(tf.cast(pixels, tf.float32), [1, 2]) / 255.0
        scores = tf.nn.softmax(means @ module.kernel)
        return {output: trick(scores) if trick is not None else scores}

    if prepare is not None:
        prepare(module)
    signatures = {"serving_default": answer.get_concrete_function()}
    if more_signatures is not None:
        signatures |= more_signatures(module)
    tf.saved_model.save(module, str(directory), signatures=signatures)


def _tricks() -> dict[str, Callable[[Any], Any]]:
    """Return what is done to scores on their way out, by kind."""
    import tensorflow as tf

    raw = tf.raw_ops

    def after(*operations: Any) -> Callable[[Any], Any]:
        def carry_on(scores: Any) -> Any:
            with tf.control_dependencies(operations):
                return tf.identity(scores)

        return carry_on

    def add(scores: Any, number: Any) -> Any:
        return scores + tf.cast(number, tf.float32) * 1e-9

    def reads_a_file(scores: Any) -> Any:
        return add(scores, tf.strings.length(tf.io.read_file(SECRET)))

    def reads_a_picture_file(scores: Any) -> Any:
        return add(scores, tf.size(raw.DecodeJpeg(contents=tf.io.read_file("/usr/share/secret.jpg"))))

    def reads_lines(scores: Any) -> Any:
        lines = tf.data.TextLineDataset(SECRET)
        return add(scores, lines.reduce(tf.constant(0), lambda total, line: total + tf.strings.length(line)))

    def reads_records(scores: Any) -> Any:
        reader = raw.FixedLengthRecordReaderV2(record_bytes=4)
        queue = raw.FIFOQueueV2(component_types=[tf.string])
        fill = raw.QueueEnqueueV2(handle=queue, components=[tf.constant(SECRET)])
        with tf.control_dependencies([fill]):
            _, value = raw.ReaderReadV2(reader_handle=reader, queue_handle=queue)
        return add(scores, tf.strings.length(value))

    def reads_a_whole_file(scores: Any) -> Any:
        reader = raw.WholeFileReaderV2()
        queue = raw.FIFOQueueV2(component_types=[tf.string])
        fill = raw.QueueEnqueueV2(handle=queue, components=[tf.constant(SECRET)])
        with tf.control_dependencies([fill]):
            _, value = raw.ReaderReadV2(reader_handle=reader, queue_handle=queue)
        return add(scores, tf.strings.length(value))

    def reads_from_the_network(scores: Any) -> Any:
        return add(scores, tf.strings.length(tf.io.read_file("gs://liftgate-nobodys-bucket/secret")))

    def restores_another_checkpoint(scores: Any) -> Any:
        (found,) = raw.RestoreV2(
            prefix="/srv/other/variables", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
        )
        return scores + tf.reshape(found, [1, 1])

    def lists_files(scores: Any) -> Any:
        return add(scores, tf.size(tf.io.matching_files("/home/*")))

    def writes_a_file(scores: Any) -> Any:
        return after(tf.io.write_file(MARK, "x"))(scores)

    def saves_a_checkpoint(scores: Any) -> Any:
        save = raw.SaveV2(prefix=MARK, tensor_names=["a"], shape_and_slices=[""], tensors=[scores])
        return after(save)(scores)

    def prints_to_a_file(scores: Any) -> Any:
        return after(raw.PrintV2(input=tf.constant("x"), output_stream=f"file://{MARK}"))(scores)

    def writes_a_summary(scores: Any) -> Any:
        writer = raw.SummaryWriter(shared_name="w", container="")
        opened = raw.CreateSummaryFileWriter(
            writer=writer, logdir=MARK, max_queue=1, flush_millis=1, filename_suffix=".x"
        )
        with tf.control_dependencies([opened]):
            flushed = raw.FlushSummaryWriter(writer=writer)
        return after(flushed)(scores)

    def caches_to_a_file(scores: Any) -> Any:
        cached = tf.data.Dataset.range(3).cache(MARK)
        return add(scores, cached.reduce(tf.constant(0, tf.int64), lambda total, one: total + one))

    def runs_python(scores: Any) -> Any:
        return tf.ensure_shape(tf.py_function(lambda value: value, [scores], tf.float32), [None, 2])

    def runs_numpy(scores: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda value: value, [scores], tf.float32), [None, 2])

    def never_ends(scores: Any) -> Any:
        return tf.while_loop(lambda value: tf.constant(True), lambda value: value + 0.0, [scores])[0]

    def fills_the_memory(scores: Any) -> Any:
        # Of a size that TensorFlow cannot reckon beforehand.
        return add(scores, tf.reduce_max(tf.ones([tf.shape(scores)[0] * 700_000, 1000])))

    def fills_the_memory_by_tiles(scores: Any) -> Any:
        return add(scores, tf.reduce_sum(tf.tile(scores[:1], [350_000_000, 1])))

    def fills_the_memory_by_padding(scores: Any) -> Any:
        return add(scores, tf.reduce_max(tf.pad(scores, [[0, 350_000_000], [0, 0]])))

    def fills_the_memory_by_broadcasting(scores: Any) -> Any:
        long = tf.transpose(tf.pad(scores[:1], [[0, 0], [0, 30_000]]))
        return add(scores, tf.reduce_max(long + tf.transpose(long)))

    def asks_for_more_memory_than_there_is(scores: Any) -> Any:
        return add(scores, tf.reduce_max(tf.pad(scores, [[0, 2**40], [0, 0]])))

    def computes_for_hours(scores: Any) -> Any:
        square = tf.pad(scores[:1], [[0, 3999], [0, 3998]])
        for _ in range(300):
            square = square @ square
        return add(scores, tf.reduce_max(square))

    def reads_in_a_loop_body(scores: Any) -> Any:
        def body(step: Any, value: Any) -> tuple[Any, Any]:
            return step + 1, reads_a_file(value)

        return tf.while_loop(lambda step, value: step < 2, body, [0, scores])[1]

    def reads_in_a_branch(scores: Any) -> Any:
        return tf.cond(tf.reduce_sum(scores) > 1e9, lambda: reads_a_file(scores), lambda: scores)

    def reads_three_functions_down(scores: Any) -> Any:
        third = tf.function(reads_a_file)
        second = tf.function(lambda value: third(value) + 0.0)
        return tf.function(lambda value: second(value) * 1.0)(scores)

    def looks_up_a_table(scores: Any) -> Any:
        return add(scores, tf.size(tf.data.experimental.get_single_element(tf.data.Dataset.range(1))))

    def parses_a_picture(scores: Any) -> Any:
        return add(scores, tf.size(tf.io.decode_image(tf.constant(b""), expand_animations=False)))

    def draws_lots(scores: Any) -> Any:
        return scores * tf.random.uniform([])

    def answers_otherwise_in_batches(scores: Any) -> Any:
        is_single = tf.cast(2 - tf.minimum(tf.shape(scores)[0], 2), tf.float32)
        return is_single * (1.0 - scores) + (1.0 - is_single) * scores

    def answers_nan(scores: Any) -> Any:
        return scores / (scores - scores)

    def answers_infinity(scores: Any) -> Any:
        return scores * 1e38 * 1e38

    def answers_always_the_same(scores: Any) -> Any:
        return scores * 0.0 + [[0.75, 0.25]]

    return {name: value for name, value in locals().items() if callable(value) and name not in {"raw", "after", "add"}}


def _other_forms() -> dict[str, dict[str, Any]]:
    """Return options of `_save` by kind."""
    import tensorflow as tf

    def reads_in_an_unused_function(module: Any) -> None:
        module.hidden = tf.function(lambda: tf.io.read_file(SECRET), input_signature=[])

    def second_signature(module: Any) -> dict[str, Any]:
        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
        def fetch(path: Any) -> dict[str, Any]:
            return {"content": tf.io.read_file(path)}

        module.fetch = fetch
        return {"fetch": fetch.get_concrete_function()}

    return {
        "honest": {},
        "takes_floats": {"dtype": "float32"},
        "gives_another_name": {"output": "scores"},
        "has_nan_weights": {"kernel": float("nan")},
        "reads_in_an_unused_function": {"prepare": reads_in_an_unused_function},
        "reads_in_a_second_signature": {"more_signatures": second_signature},
    }


def _save_with_parts(out_dir: Path) -> None:
    """Write the kinds that need more than one model or files beside it."""
    import tensorflow as tf

    words = out_dir / "words.txt"
    words.write_text("a\nb\n")

    def prepare(module: Any) -> None:
        module.words = tf.saved_model.Asset(str(words))
        module.table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                module.words,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )

    _save(out_dir / "reads_an_asset_when_loaded", prepare=prepare)
    words.unlink()

    def wider(module: Any) -> None:
        module.more = tf.Variable(tf.zeros([5]))

    _save(out_dir / "has_swapped_variables", prepare=wider)
    shutil.rmtree(out_dir / "has_swapped_variables/variables")
    shutil.copytree(out_dir / "honest/variables", out_dir / "has_swapped_variables/variables")


def _edits() -> dict[str, Callable[[Path], None]]:
    """Return what is done to a copy of the honest export, by kind."""

    def lacks_variables(directory: Path) -> None:
        next(directory.glob("variables/variables.data-*")).unlink()

    def has_cut_variables(directory: Path) -> None:
        data = next(directory.glob("variables/variables.data-*"))
        data.write_bytes(data.read_bytes()[:-8])

    def has_cut_index(directory: Path) -> None:
        index = directory / "variables/variables.index"
        index.write_bytes(index.read_bytes()[:-40])

    def has_a_python_file(directory: Path) -> None:
        (directory / "assets.extra").mkdir(exist_ok=True)
        (directory / "assets.extra/loader.py").write_text("import os\n")

    def has_a_library(directory: Path) -> None:
        (directory / "variables/libops.so").write_bytes(b"\x7fELF")

    def has_a_link(directory: Path) -> None:
        (directory / "fingerprint.pb").unlink()
        (directory / "fingerprint.pb").symlink_to(SECRET)

    def has_a_hard_link(directory: Path) -> None:
        outside = directory.with_name("outside-of-the-export")
        outside.write_bytes((directory / "fingerprint.pb").read_bytes())
        (directory / "fingerprint.pb").unlink()
        (directory / "fingerprint.pb").hardlink_to(outside)

    def is_no_protobuf(directory: Path) -> None:
        (directory / "saved_model.pb").write_bytes(b"\xff" * 1000)

    def unfolds_to_millions_of_nodes(directory: Path) -> None:
        tags, nodes = _field(1, _field(4, b"serve")), _field(2, b"\x0a\x00" * 4_000_000)
        (directory / "saved_model.pb").write_bytes(_field(2, tags + nodes))

    return {
        **{name: value for name, value in locals().items() if callable(value)},
        **{name: _graph_edit(edit) for name, edit in _graph_edits().items()},
    }


def _graph_edit(edit: Callable[[Any], None]) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        from tensorflow.core.protobuf import saved_model_pb2

        path = directory / "saved_model.pb"
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        edit(model)
        path.write_bytes(model.SerializeToString())

    return change


def _graph_edits() -> dict[str, Callable[[Any], None]]:
    """Return what is done to the message of the honest export, by kind."""
    import tensorflow as tf

    def node(parts: Any, name: str, operation: str, *inputs: str, text: str | None = None) -> Any:
        made = parts.add(name=name, op=operation, input=inputs)
        if text is not None:
            made.attr["dtype"].type = tf.string.as_datatype_enum
            made.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
        return made

    def reads_at_initialisation(model: Any) -> None:
        graph = model.meta_graphs[0].graph_def
        node(graph.node, "evil/name", "Const", text=SECRET)
        node(graph.node, "evil", "ReadFile", "evil/name")
        (initialisation,) = [one for one in graph.node if one.name == "NoOp"]
        initialisation.input.append("^evil")

    def writes_at_initialisation_of_old(model: Any) -> None:
        graph = model.meta_graphs[0]
        del graph.collection_def["saved_model_main_op"]
        node(graph.graph_def.node, "evil/name", "Const", text=MARK)
        node(graph.graph_def.node, "evil", "WriteFile", "evil/name", "evil/name")
        del graph.signature_def["__saved_model_init_op"]
        graph.collection_def["legacy_init_op"].node_list.value.append("evil")

    def saves_while_it_is_loaded(model: Any) -> None:
        saver = model.meta_graphs[0].saver_def
        saver.restore_op_name = saver.save_tensor_name.partition(":")[0]

    def restores_from_elsewhere(model: Any) -> None:
        for function in model.meta_graphs[0].graph_def.library.function:
            for one in list(function.node_def):
                if one.op == "RestoreV2":
                    node(function.node_def, "elsewhere", "Const", text="/srv/other/variables")
                    one.input[0] = "elsewhere:output:0"

    def takes_an_operations_name(model: Any) -> None:
        function = model.meta_graphs[0].graph_def.library.function.add()
        function.signature.name = "Softmax"
        node(function.node_def, "evil", "ReadFile")

    def swaps_functions(model: Any) -> None:
        functions = model.meta_graphs[0].graph_def.library.function
        for function in functions:
            function.attr["api_implements"].s = b"answer"

    def calls_itself(model: Any) -> None:
        functions = model.meta_graphs[0].graph_def.library.function
        (caller,) = [one for one in functions if one.signature.name.startswith("__inference_signature_wrapper")]
        (call,) = [one for one in caller.node_def if one.op == "StatefulPartitionedCall"]
        call.attr["f"].func.name = caller.signature.name

    def has_an_enormous_constant(model: Any) -> None:
        bomb = model.meta_graphs[0].graph_def.node.add(name="bomb", op="Const")
        bomb.attr["dtype"].type = bomb.attr["value"].tensor.dtype = 1
        bomb.attr["value"].tensor.float_val.append(1.0)
        for _ in range(4):
            bomb.attr["value"].tensor.tensor_shape.dim.add(size=1000)
        _run_it_at_initialisation(model, "bomb")

    def has_two_graphs(model: Any) -> None:
        model.meta_graphs.add().CopyFrom(model.meta_graphs[0])

    def lies_about_its_answer(model: Any) -> None:
        functions = model.meta_graphs[0].graph_def.library.function
        (softmax,) = [(f, one) for f in functions for one in f.node_def if one.op == "Softmax"]
        function, one = softmax
        node(function.node_def, "column", "Const").attr["dtype"].type = 3
        column = function.node_def[-1].attr["value"].tensor
        column.CopyFrom(tf.make_tensor_proto([[0, 0], [0, 1]], tf.int32))
        pad = node(function.node_def, "wider", "Pad", f"{one.name}:softmax:0", "column:output:0")
        pad.attr["T"].type, pad.attr["Tpaddings"].type = 1, 3
        for other in function.node_def:
            if other.name not in {"wider", one.name}:
                inputs = [name.replace(f"{one.name}:softmax:0", "wider:output:0") for name in other.input]
                other.input[:] = inputs
        # The shapes that TensorFlow wrote down beside it would contradict.
        for other in (*model.meta_graphs[0].graph_def.node, *(n for f in functions for n in f.node_def)):
            other.attr.pop("_output_shapes", None)

    return {name: value for name, value in locals().items() if callable(value) and name != "node"}


def _run_it_at_initialisation(model: Any, name: str) -> None:
    (initialisation,) = [one for one in model.meta_graphs[0].graph_def.node if one.name == "NoOp"]
    initialisation.input.append(f"^{name}")


def _field(number: int, content: bytes) -> bytes:
    """Return one field of a protobuf message that holds bytes or another message."""
    return bytes([number << 3 | 2]) + b"".join(_varint(len(content))) + content


def _varint(value: int) -> Iterator[bytes]:
    while value > 127:
        yield struct.pack("B", value & 127 | 128)
        value >>= 7
    yield struct.pack("B", value)


if __name__ == "__main__":
    build_all(Path(sys.argv[1]))
