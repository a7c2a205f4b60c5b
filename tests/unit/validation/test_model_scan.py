from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact_sync.errors import RefusedError
from artifact_sync.records import InputContract
from validation.model_scan import ScanLimits, scan_export
from validation.protos import saved_model_pb2 as pb
from validation.scan_graph import graph_findings

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
        "import sys; from pathlib import Path; from validation.model_scan import scan_export; "
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


def test_functions_that_call_each_other_in_a_circle_end(honest_model: HonestModel) -> None:
    graph = with_function(honest_model().meta_graphs[0], "hidden", "Softmax")
    answer, hidden = graph.graph_def.library.function
    answer.node_def.add(name="there", op="PartitionedCall").attr["f"].func.name = "hidden"
    hidden.node_def.add(name="back", op="PartitionedCall").attr["f"].func.name = "answer"
    assert graph_findings(graph) == []


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
    from validation.protos.generate import generate

    generate(tmp_path)
    for name in ("saved_model_pb2.py", "saved_model_pb2.pyi"):
        generated = (tmp_path / "validation/protos" / name).read_text()
        assert generated == (repository / "validation/protos" / name).read_text()
