from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from artifact_sync.errors import RefusedError
from artifact_sync.records import InputContract
from validation.programs.model_scan import ScanLimits, scan_export
from validation.programs.protos import saved_model_pb2 as pb
from validation.programs.scan_calls import call_findings
from validation.programs.scan_graph import graph_findings
from validation.programs.scan_parts import NotAMessageError, count_parts

CONTRACT = InputContract(height=4, width=4, channels=3)


HonestModel = Callable[[], pb.SavedModel]


def refusal(export: Path, limits: ScanLimits | None = None) -> str:
    with pytest.raises(RefusedError) as refused:
        scan_export(export, contract=CONTRACT, classes=2, limits=limits or ScanLimits())
    return str(refused.value)


def test_an_honest_export_passes_with_the_operations_it_can_run(export: Path) -> None:
    report = scan_export(export, contract=CONTRACT, classes=2)
    assert report.operations == {"Placeholder", "StatefulPartitionedCall", "Softmax"}


def test_the_scan_needs_no_tensorflow(export: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from validation.programs.model_scan import scan_export; "
        "from artifact_sync.records import InputContract; "
        f"scan_export(Path({str(export)!r}), contract=InputContract(height=4, width=4, channels=3), classes=2); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["loader.py", "variables/extra.so", "assets.extra/labels.json.bak", "keras_metadata.pb", "saved_model.pbtxt"],
)
def test_a_file_that_no_export_has_is_refused(export: Path, name: str) -> None:
    (export / name).write_bytes(b"x")
    assert f"the file {name!r} does not belong in an export" in refusal(export)


def test_links_pipes_and_strange_directories_are_refused_all_at_once(export: Path) -> None:
    (export / "assets").mkdir()
    (export / "assets/password").symlink_to("/etc/passwd")
    (export / "variables/outside").symlink_to("/etc")
    os.mkfifo(export / "fingerprint.pb")
    (export / "code").mkdir()
    text = refusal(export)
    assert "'assets/password' is a link or a special file" in text
    assert "'variables/outside' is a link or a special file" in text
    assert "'fingerprint.pb' is a link or a special file" in text
    assert "the directory 'code' does not belong in an export" in text


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_missing_file_is_named(export: Path, name: str) -> None:
    (export / name).unlink()
    assert f"{name} is missing" in refusal(export)


def test_missing_weights_are_named(export: Path) -> None:
    (export / "variables/variables.data-00000-of-00001").unlink()
    assert "variables/variables.data-… is missing" in refusal(export)


def test_sizes_and_numbers_are_capped(export: Path) -> None:
    assert "saved_model.pb has" in refusal(export, ScanLimits(graph_bytes=10))
    assert "variables.index has 5 bytes, more than 4" in refusal(export, ScanLimits(file_bytes=4))
    assert "it has more than 2 files" in refusal(export, ScanLimits(files=2))


def test_a_file_with_a_second_name_is_refused(export: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").hardlink_to(export / "assets.extra/labels.json")
    assert "'assets.extra/labels.json' has another name elsewhere (a hard link)" in refusal(export)


def test_what_the_graph_unfolds_to_is_capped_before_it_is_parsed(export: Path) -> None:
    nodes = 50_000
    graph = b"\x12" + varint(2 * nodes) + b"\x0a\x00" * nodes
    (export / "saved_model.pb").write_bytes(b"\x12" + varint(len(graph)) + graph)
    assert "saved_model.pb unfolds to more than 40,000 parts" in refusal(export, ScanLimits(graph_parts=40_000))


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes((*written, value))


def parts_of(message: Message) -> int:
    """Count as a reader of the parsed message would; map entries are messages too."""
    total = 0
    for field, value in message.ListFields():
        entries = field.message_type is not None and field.message_type.GetOptions().map_entry
        if entries:
            key, inner = field.message_type.fields
            total += sum(
                1 + bool(k) * (key.type == key.TYPE_STRING) + (1 + parts_of(v) if inner.message_type else bool(v))
                for k, v in value.items()
            )
        elif field.message_type is not None:
            total += sum(1 + parts_of(one) for one in (value if field.is_repeated else [value]))
        elif field.type == field.TYPE_STRING:
            total += len(value) if field.is_repeated else 1
    return total


def test_parts_are_counted_as_the_parser_makes_them(honest_model: HonestModel) -> None:
    model = honest_model()
    with_restore(model.meta_graphs[0])
    content = model.SerializeToString()
    assert count_parts(content, pb.SavedModel, limit=10**6) == parts_of(model) > 50
    assert count_parts(content, pb.SavedModel, limit=10) == 11


@given(st.binary(max_size=200))
def test_bytes_that_can_be_counted_are_the_ones_that_can_be_parsed(content: bytes) -> None:
    try:
        count_parts(content, pb.SavedModel, limit=10**6)
        is_counted = True
    except NotAMessageError:
        is_counted = False
    try:
        pb.SavedModel.FromString(content)
    except DecodeError:
        return
    # Only groups are parsed and not counted; nothing that TensorFlow writes has them.
    assert is_counted or any(byte & 7 in {3, 4} for byte in content)


def test_a_file_that_became_a_link_after_it_was_looked_at_is_not_followed(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (export / "saved_model.pb").rename(tmp_path / "elsewhere.pb")
    (export / "saved_model.pb").symlink_to(tmp_path / "elsewhere.pb")
    monkeypatch.setattr("validation.programs.model_scan._file_findings", lambda *_: [])
    assert "saved_model.pb cannot be read" in refusal(export)


def test_bytes_that_are_no_savedmodel_are_refused(export: Path) -> None:
    (export / "saved_model.pb").write_bytes(b"\xff" * 100)
    assert "saved_model.pb is not a SavedModel" in refusal(export)


def test_an_unknown_operation_is_named_with_its_place(export: Path, honest_model: HonestModel) -> None:
    model = honest_model()
    model.meta_graphs[0].graph_def.library.function[0].node_def.add(name="evil", op="ReadFile")
    (export / "saved_model.pb").write_bytes(model.SerializeToString())
    text = refusal(export)
    assert "operation ReadFile, reached from a signature or the initialisation (evil in function answer)" in text


def test_a_model_without_the_signature_of_its_contract_is_refused(export: Path, honest_model: HonestModel) -> None:
    model = honest_model()
    signatures = model.meta_graphs[0].signature_def
    signatures["other"].CopyFrom(signatures.pop("serving_default"))
    (export / "saved_model.pb").write_bytes(model.SerializeToString())
    assert "there is no signature 'serving_default'" in refusal(export)
    model = honest_model()
    model.meta_graphs[0].signature_def["serving_default"].inputs["secret"].name = "pixels:0"
    (export / "saved_model.pb").write_bytes(model.SerializeToString())
    assert "takes ['pixels', 'secret'] instead of ['pixels']" in refusal(export)


def with_function(graph: pb.MetaGraph, name: str, operation: str) -> pb.MetaGraph:
    function = graph.graph_def.library.function.add()
    function.signature.name = name
    function.node_def.add(name="evil", op=operation)
    return graph


def test_functions_are_followed_through_every_kind_of_reference(honest_model: HonestModel) -> None:
    for refer in ("single", "list", "nested", "operation"):
        graph = with_function(honest_model().meta_graphs[0], "hidden", "WriteFile")
        node = graph.graph_def.library.function[0].node_def.add(name="call", op="PartitionedCall")
        if refer == "single":
            node.attr["f"].func.name = "hidden"
        elif refer == "list":
            node.attr["branches"].list.func.add(name="hidden")
        elif refer == "nested":
            node.attr["f"].func.name = "answer"
            node.attr["f"].func.attr["inner"].func.name = "hidden"
        else:
            node.op = "hidden"
        assert graph_findings(graph) == [
            "operation WriteFile, reached from a signature or the initialisation (evil in function hidden)"
        ], refer


def test_functions_that_call_each_other_in_a_circle_are_refused_and_do_not_hold_the_scan_up(
    honest_model: HonestModel,
) -> None:
    graph = with_function(honest_model().meta_graphs[0], "hidden", "Softmax")
    answer, hidden = graph.graph_def.library.function
    answer.node_def.add(name="there", op="PartitionedCall").attr["f"].func.name = "hidden"
    assert list(call_findings(graph)) == []
    hidden.node_def.add(name="back", op="PartitionedCall").attr["f"].func.name = "answer"
    assert graph_findings(graph) == []
    assert list(call_findings(graph)) == ["function answer calls itself, directly or through others"]


def test_a_long_chain_of_calls_is_no_circle(honest_model: HonestModel) -> None:
    graph = honest_model().meta_graphs[0]
    for index in range(3000):
        with_function(graph, f"f{index}", "Softmax").graph_def.library.function[-1].node_def.add(
            name="next", op=f"f{index + 1}"
        )
        graph.graph_def.library.function[-1].node_def.add(name="again", op=f"f{index + 2}")
    assert list(call_findings(graph)) == []


def test_functions_that_run_in_place_of_others_are_refused(honest_model: HonestModel) -> None:
    graph = honest_model().meta_graphs[0]
    graph.graph_def.library.function[0].attr["api_implements"].SetInParent()
    graph.graph_def.library.gradient.add(function_name="answer")
    assert list(call_findings(graph)) == [
        "function answer may be run in place of another (api_implements)",
        "function answer has a gradient function, which serving does not need",
    ]


def with_restore(graph: pb.MetaGraph) -> pb.Function:
    """Let the saver's restore operation call a function that reads variables from the file of its argument."""
    graph.graph_def.node.add(name="saver_filename", op="Placeholder")
    call = graph.graph_def.node.add(name="restore", op="StatefulPartitionedCall", input=["saver_filename"])
    call.attr["f"].func.name = "restored"
    graph.saver_def.filename_tensor_name = "saver_filename:0"
    graph.saver_def.restore_op_name = "restore"
    function = graph.graph_def.library.function.add()
    function.signature.name = "restored"
    function.signature.input_arg.add(name="file_prefix")
    function.node_def.add(name="same", op="Identity", input=["file_prefix"])
    function.node_def.add(name="read", op="RestoreV2", input=["same:output:0", "names:output:0"])
    return function


def test_variables_are_read_from_the_file_that_the_loader_names(honest_model: HonestModel) -> None:
    graph = honest_model().meta_graphs[0]
    with_restore(graph)
    assert list(call_findings(graph)) == graph_findings(graph) == []


@pytest.mark.parametrize(
    "trick", ["constant", "another argument", "no input", "called from the graph", "a second call"]
)
def test_variables_that_are_read_from_elsewhere_are_refused(honest_model: HonestModel, trick: str) -> None:
    graph = honest_model().meta_graphs[0]
    function = with_restore(graph)
    read = function.node_def[1]
    where = "function restored"
    if trick == "constant":
        function.node_def.add(name="elsewhere", op="Const")
        function.node_def[0].input[0] = "elsewhere:output:0"
    elif trick == "another argument":
        function.signature.input_arg.add(name="other")
        read.input[0] = "other"
    elif trick == "no input":
        del read.input[:]
    elif trick == "called from the graph":
        graph.graph_def.node.add(name="read", op="RestoreV2", input=["elsewhere"])
        where = "the graph"
    else:
        graph.graph_def.node.add(name="again", op="restored", input=["pixels"])
    assert list(call_findings(graph)) == [
        f"operation RestoreV2 reads another file than the model's own variables (read in {where})"
    ]


def test_control_inputs_are_followed(honest_model: HonestModel) -> None:
    graph = honest_model().meta_graphs[0]
    graph.graph_def.node.add(name="evil", op="WriteFile")
    graph.graph_def.node[1].input.append("^evil")
    assert "operation WriteFile, reached from a signature" in graph_findings(graph)[0]


def test_the_saver_may_write_when_it_saves_and_not_when_it_restores(honest_model: HonestModel) -> None:
    graph = honest_model().meta_graphs[0]
    graph.graph_def.node.add(name="save", op="SaveV2")
    graph.saver_def.save_tensor_name = "save:0"
    assert graph_findings(graph) == []
    graph.saver_def.restore_op_name = "save"
    assert graph_findings(graph) == ["operation SaveV2, reached from loading (save in the graph)"]


def test_nodes_that_share_a_name_and_blind_the_walk_are_refused(honest_model: HonestModel) -> None:
    graph = honest_model().meta_graphs[0]
    graph.graph_def.node.add(name="call", op="ReadFile")
    assert "two nodes or two functions share a name" in graph_findings(graph)


def test_the_generated_messages_are_those_of_the_proto_file(tmp_path: Path, repository: Path) -> None:
    from validation.programs.protos.generate import generate

    generate(tmp_path)
    for name in ("saved_model_pb2.py", "saved_model_pb2.pyi"):
        generated = (tmp_path / "validation/programs/protos" / name).read_text()
        assert generated == (repository / "validation/programs/protos" / name).read_text()
