"""Hostile SavedModels, each really built by TensorFlow, against the scan."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import RefusedError
from artifact_sync.records import InputContract
from validation.model_scan import scan_export
from validation.protos import saved_model_pb2 as pb
from validation.scan_graph import SERVING_OPERATIONS

CONTRACT = InputContract(height=4, width=4, channels=3)
Build = Callable[..., Path]


def scan(directory: Path) -> frozenset[str]:
    return scan_export(directory, contract=CONTRACT, classes=2).operations


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Save a classifier whose answer passes through `trick`, which is called with scores [n, 2]."""
    import tensorflow as tf

    def save(
        trick: Callable[[Any], Any] | None = None,
        *,
        prepare: Callable[[Any], None] | None = None,
        dtype: Any = tf.uint8,
        output: str = "probabilities",
    ) -> Path:
        module = tf.Module()
        module.kernel = tf.Variable(tf.ones([3, 2]))

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], dtype, name="pixels")])
        def answer(pixels: Any) -> dict[str, Any]:
            scores = tf.nn.softmax(tf.reduce_mean(tf.cast(pixels, tf.float32), [1, 2]) @ module.kernel)
            return {output: trick(scores) if trick is not None else scores}

        if prepare is not None:
            prepare(module)
        directory = tmp_path / "export"
        tf.saved_model.save(module, str(directory), signatures={"serving_default": answer.get_concrete_function()})
        return directory

    return save


def test_an_honest_classifier_passes_and_its_operations_are_known(build: Build) -> None:
    operations = scan(build())
    assert {"Cast", "MatMul", "Mean", "Softmax", "StatefulPartitionedCall", "ReadVariableOp"} <= operations
    assert operations <= SERVING_OPERATIONS


def tricks() -> dict[str, Callable[[Any], Any]]:
    import tensorflow as tf

    def reads(scores: Any) -> Any:
        return scores + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)

    def writes(scores: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file("/tmp/liftgate-was-here", "x")]):
            return tf.identity(scores)

    def runs_python(scores: Any) -> Any:
        return tf.ensure_shape(tf.py_function(lambda value: value, [scores], tf.float32), [None, 2])

    def runs_numpy(scores: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda value: value, [scores], tf.float32), [None, 2])

    def lists_files(scores: Any) -> Any:
        return scores + tf.cast(tf.size(tf.io.matching_files("/home/*")), tf.float32)

    def prints(scores: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.PrintV2(input=tf.constant("x"), output_stream="file:///tmp/x")]):
            return tf.identity(scores)

    def saves(scores: Any) -> Any:
        with tf.control_dependencies(
            [tf.raw_ops.SaveV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[scores])]
        ):
            return tf.identity(scores)

    def restores(scores: Any) -> Any:
        (found,) = tf.raw_ops.RestoreV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])
        return scores + tf.reshape(found, [1, 1])

    def never_ends(scores: Any) -> Any:
        return tf.while_loop(lambda value: tf.constant(True), lambda value: value + 0.0, [scores])[0]

    def reads_in_a_loop_body(scores: Any) -> Any:
        def body(step: Any, value: Any) -> tuple[Any, Any]:
            return step + 1, value + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)

        return tf.while_loop(lambda step, value: step < 2, body, [0, scores])[1]

    def reads_in_a_branch(scores: Any) -> Any:
        return tf.cond(tf.reduce_sum(scores) > 1e9, lambda: reads(scores), lambda: scores)

    def reads_three_functions_down(scores: Any) -> Any:
        third = tf.function(reads)
        second = tf.function(lambda value: third(value) + 0.0)
        return tf.function(lambda value: second(value) * 1.0)(scores)

    def looks_up_a_table(scores: Any) -> Any:
        return scores + tf.cast(tf.size(tf.data.experimental.get_single_element(tf.data.Dataset.range(1))), tf.float32)

    def parses(scores: Any) -> Any:
        return scores + tf.cast(tf.size(tf.io.decode_image(tf.constant(b""), expand_animations=False)), tf.float32)

    return {name: value for name, value in locals().items() if callable(value)}


@pytest.mark.parametrize(
    ("trick", "operation"),
    [
        ("reads", "ReadFile"),
        ("writes", "WriteFile"),
        ("runs_python", "EagerPyFunc"),
        ("runs_numpy", "PyFunc"),
        ("lists_files", "MatchingFiles"),
        ("prints", "PrintV2"),
        ("saves", "SaveV2"),
        ("restores", "RestoreV2"),
        ("never_ends", "While"),
        ("reads_in_a_loop_body", "ReadFile"),
        ("reads_in_a_branch", "ReadFile"),
        ("reads_three_functions_down", "ReadFile"),
        ("looks_up_a_table", "RangeDataset"),
        ("parses", "DecodeImage"),
    ],
)
def test_what_a_classifier_does_not_need_is_refused_wherever_it_hides(build: Build, trick: str, operation: str) -> None:
    directory = build(tricks()[trick])
    with pytest.raises(RefusedError, match=rf"operation (Stateless)?{operation}, reached from a signature") as refused:
        scan(directory)
    assert refused.value.exit_code == 3


def test_an_operation_that_runs_at_initialisation_is_refused(build: Build) -> None:
    directory = build()
    model = edit(directory)
    graph = model.meta_graphs[0]
    graph.graph_def.node.add(name="evil", op="ReadFile")
    (initialisation,) = [node for node in graph.graph_def.node if node.name == "NoOp"]
    initialisation.input.append("^evil")
    write(directory, model)
    with pytest.raises(RefusedError, match="operation ReadFile, reached from a signature or the initialisation"):
        scan(directory)


def test_a_saver_that_writes_while_the_model_is_loaded_is_refused(build: Build) -> None:
    directory = build()
    model = edit(directory)
    graph = model.meta_graphs[0]
    graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(":")[0]
    write(directory, model)
    with pytest.raises(RefusedError, match=r"operation (MergeV2Checkpoints|SaveV2), reached from loading"):
        scan(directory)


def test_a_function_that_only_the_object_graph_names_is_looked_at_too(build: Build) -> None:
    import tensorflow as tf

    def prepare(module: Any) -> None:
        @tf.function(input_signature=[])
        def hidden() -> Any:
            return tf.io.read_file("/etc/passwd")

        module.hidden = hidden

    with pytest.raises(RefusedError, match="operation ReadFile, reached from no signature"):
        scan(build(prepare=prepare))


def test_an_asset_that_is_read_when_the_model_is_loaded_is_refused(build: Build, tmp_path: Path) -> None:
    import tensorflow as tf

    (tmp_path / "words.txt").write_text("a\nb\n")

    def prepare(module: Any) -> None:
        module.words = tf.saved_model.Asset(str(tmp_path / "words.txt"))

    with pytest.raises(RefusedError, match=r"'assets/words\.txt' does not belong in an export"):
        scan(build(prepare=prepare))


def test_a_function_that_takes_an_operations_name_is_refused(build: Build) -> None:
    directory = build()
    model = edit(directory)
    function = model.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = "Softmax"
    function.node_def.add(name="evil", op="ReadFile")
    write(directory, model)
    with pytest.raises(RefusedError) as refused:
        scan(directory)
    assert "a function takes the name of the operation Softmax" in str(refused.value)
    assert "operation ReadFile, reached from a signature" in str(refused.value)


def test_a_signature_of_another_kind_is_refused(build: Build, tmp_path: Path) -> None:
    import tensorflow as tf

    with pytest.raises(RefusedError, match=r"the input 'pixels' is not uint8 \[batch, 4, 4, 3\]"):
        scan(build(dtype=tf.float32))
    shutil.rmtree(tmp_path / "export")
    with pytest.raises(RefusedError, match="the signature does not give 'probabilities'"):
        scan(build(output="scores"))
    shutil.rmtree(tmp_path / "export")
    two_scores = build()
    with pytest.raises(RefusedError, match=r"the output 'probabilities' is not float32 \[batch, 3\]"):
        scan_export(two_scores, contract=CONTRACT, classes=3)


def test_a_constant_that_unfolds_to_more_than_any_memory_is_refused(build: Build) -> None:
    directory = build()
    model = edit(directory)
    bomb = model.meta_graphs[0].graph_def.node.add(name="bomb", op="Const")
    bomb.attr["value"].tensor.dtype = 1
    bomb.attr["value"].tensor.float_val.append(1.0)
    for _ in range(4):
        bomb.attr["value"].tensor.tensor_shape.dim.add(size=1000)
    write(directory, model)
    assert (directory / "saved_model.pb").stat().st_size < 100_000
    with pytest.raises(RefusedError, match=r"its constants unfold to 1,000,000,0\d\d,\d{3} numbers"):
        scan(directory)


def test_two_meta_graphs_are_one_too_many(build: Build) -> None:
    directory = build()
    model = edit(directory)
    model.meta_graphs.add().CopyFrom(model.meta_graphs[0])
    write(directory, model)
    with pytest.raises(RefusedError, match="one meta graph"):
        scan(directory)


def test_the_messages_of_the_scan_have_tensorflows_own_field_numbers() -> None:
    from tensorflow.core.protobuf import saved_model_pb2 as reference

    def compare(ours: Any, theirs: Any, seen: set[str]) -> None:
        if ours.full_name in seen:
            return
        seen.add(ours.full_name)
        for field in ours.fields:
            twin = theirs.fields_by_name[field.name]
            assert (field.number, field.is_repeated) == (twin.number, twin.is_repeated), field.full_name
            if field.message_type is not None:
                compare(field.message_type, twin.message_type, seen)

    seen: set[str] = set()
    compare(pb.SavedModel.DESCRIPTOR, reference.SavedModel.DESCRIPTOR, seen)
    assert len(seen) > 15


def test_what_training_may_export_the_gate_lets_through() -> None:
    from training_cluster.graph_operations import SERVED_OPERATIONS

    assert SERVED_OPERATIONS <= SERVING_OPERATIONS


def edit(directory: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2 as full

    return full.SavedModel.FromString((directory / "saved_model.pb").read_bytes())


def write(directory: Path, model: Any) -> None:
    (directory / "saved_model.pb").write_bytes(model.SerializeToString())
