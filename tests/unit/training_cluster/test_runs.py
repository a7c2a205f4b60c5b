"""Runs as their files tell them: listed, compared, planned anew and measured against each other."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.durable import write_durably
from artifact_sync.errors import NotFoundError, RefusedError
from artifact_sync.manifest import build_manifest
from artifact_sync.records import GoldenExample, GoldenExamples, InputContract, RunRecord
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH, RunFolder
from training_cluster.config.training_config import TrainingConfig
from training_cluster.datasets.data_manifest import DataManifest, ShardEntry
from training_cluster.runs.catalogue import list_runs, summarize
from training_cluster.runs.comparison import ABSENT, Difference, compare_runs, flattened
from training_cluster.runs.comparison_page import comparison_page
from training_cluster.runs.curves import Curve, first_difference, read_curves, sparkline
from training_cluster.runs.reproduction import plan_reproduction, reproduced
from training_cluster.runs.run import CodeState, TrainingStart

_CONFIG = TrainingConfig()
_CONTRACT = InputContract(height=8, width=8, channels=1)
_CODE = CodeState("c0ffee", is_dirty=False)


def _record(run_id: str, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "run_id": run_id,
        "model": "digits",
        "trained_by": "ada",
        "started_at": datetime(2026, 11, 20, 6, tzinfo=UTC),
        "finished_at": datetime(2026, 11, 20, 7, tzinfo=UTC),
        "code_commit": "c0ffee",
        "code_dirty": False,
        "data_manifest_sha256": "1" * 64,
        "config": _CONFIG.resolved(),
        "config_sha256": _CONFIG.sha256,
        "seed": 1,
        "is_deterministic": True,
        "environment": {"python": "3.11", "intra_op_threads": "2"},
        "hardware": {"cores": "2", "accelerators": "none"},
        "metrics": {"validation_accuracy": 0.9},
        "labels": ("a", "b"),
        "input_contract": _CONTRACT,
    }
    return RunRecord.model_validate({**fields, **changes})


def _run(
    folder: RunFolder, *, weights: bytes = b"w", scores: tuple[float, ...] = (0.5, 0.5), **changes: Any
) -> RunFolder:
    golden = GoldenExamples(
        height=8,
        width=8,
        channels=1,
        tolerance=0.1,
        examples=(GoldenExample(pixels_base64=base64.b64encode(bytes(64)).decode(), scores=scores),),
    )
    write_durably(folder.export / "variables" / "variables.data-00000-of-00001", weights)
    write_durably(folder.export / GOLDEN_EXAMPLES_PATH, golden.to_json())
    write_durably(folder.run_json, _record(folder.run_id, **changes).to_json())
    write_durably(folder.manifest_json, build_manifest(folder.export).to_json())
    return folder


def _progress(folder: RunFolder, *losses: float) -> None:
    lines = [{"event": "step", "step": 5 * (i + 1), "total_steps": 99, "loss": loss} for i, loss in enumerate(losses)]
    write_durably(folder.path / "progress.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())


def test_runs_are_listed_newest_first_with_what_their_files_say(tmp_path: Path) -> None:
    _run(RunFolder(tmp_path / "old"), started_at=datetime(2026, 11, 1, tzinfo=UTC))
    new = _run(RunFolder(tmp_path / "new"))
    _run(RunFolder(new.variants / "new-bfloat16"))
    (new.variants / "new-half").mkdir()
    begun = RunFolder(tmp_path / "begun")
    start = TrainingStart(
        run_id="begun",
        model="digits",
        trained_by="bob",
        started_at=datetime(2026, 11, 10, tzinfo=UTC),
        config={},
        config_sha256="2" * 64,
        data_manifest_sha256="3" * 64,
    )
    write_durably(begun.path / "started.json", start.to_json())
    write_durably(tmp_path / "torn" / "manifest.json", b"{}")
    write_durably(tmp_path / "torn" / "run.json", b"{")
    (tmp_path / ".launch").mkdir()

    runs = list_runs(tmp_path)
    assert [(run.folder.run_id, run.status) for run in runs] == [
        ("new", "complete"),
        ("begun", "absent"),
        ("old", "complete"),
        ("torn", "unreadable"),
    ]
    assert runs[0].variants == ("new-bfloat16",)
    assert runs[1].start == start
    with pytest.raises(NotFoundError, match="there are no runs"):
        list_runs(tmp_path / "nowhere")


def test_a_run_on_another_host_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    host = {"python": "python3", "app_dir": "/opt", "launch_dir": "/l", "run_dir": "/r", "connection": "ssh"}
    attachment = {"run_id": "far", "host": "gpu1", "address": "10.0.0.9", **host}
    write_durably(tmp_path / ".launch" / "far" / "attachment.json", json.dumps(attachment).encode())
    summary = summarize(RunFolder(tmp_path / "far"))
    assert (summary.status, summary.detail) == ("elsewhere", "on gpu1; `liftgate train --attach far` asks there")


def test_curves_hold_what_was_written_last_and_no_half_lines(tmp_path: Path) -> None:
    lines = [
        {"event": "distribution", "step": 0, "detail": "a 3"},
        {"event": "step", "step": 5, "total_steps": 20, "epoch": 1, "loss": 3.0},
        {"event": "step", "step": 10, "loss": 9.0},
        {"event": "step", "step": 10, "loss": 2.0},
        {"event": "step", "step": 15, "loss": float("nan"), "detail": "text"},
        {"event": "epoch", "step": 15, "validation_loss": 1.5},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "progress.jsonl").write_text(f'{text}[1]\n{{"event": "st')
    assert read_curves(tmp_path) == {"loss": Curve((5, 10), (3.0, 2.0)), "validation_loss": Curve((15,), (1.5,))}
    assert read_curves(tmp_path / "nowhere") == {}


def test_a_sparkline_rises_and_falls_with_its_curve() -> None:
    curve = Curve(tuple(range(100)), tuple(float(i) for i in range(100)))
    assert sparkline(curve, width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline(Curve((1, 2), (4.0, 4.0))) == "▁▁"
    assert sparkline(Curve((1, 2), (0.0, 4.0)), scale=(0.0, 8.0)) == "▁▅"


def test_the_first_different_step_counts_where_both_have_a_point() -> None:
    one = {"loss": Curve((5, 10, 15), (3.0, 2.0, 1.0))}
    assert first_difference(one, {"loss": Curve((5, 15, 20), (3.0, 1.5, 0.0))}) == 15
    assert first_difference(one, {"loss": Curve((5, 12), (3.0, 7.0))}) is None
    assert first_difference(one, {}) is None


def test_a_comparison_names_what_differs_and_nothing_else(tmp_path: Path) -> None:
    changed = _CONFIG.resolved()
    changed["optimization"]["learning_rate"] = 0.5
    one = _run(RunFolder(tmp_path / "one"))
    other = _run(
        RunFolder(tmp_path / "other"),
        config=changed,
        code_dirty=True,
        data_manifest_sha256="4" * 64,
        environment={"python": "3.12", "intra_op_threads": "2", "tensorflow": "2.21"},
        metrics={"validation_accuracy": 0.8, "validation_loss": 0.5},
    )
    _progress(one, 3.0, 2.0)
    _progress(other, 3.0, 1.0)
    found = compare_runs(one, other)
    assert found.differences == {
        "code": (Difference("changed beside the commit", "no", "yes"),),
        "data": (Difference("dataset", "1" * 16, "4" * 16),),
        "configuration": (Difference("optimization.learning_rate", "0.001", "0.5"),),
        "environment": (Difference("python", "3.11", "3.12"), Difference("tensorflow", ABSENT, "2.21")),
        "hardware": (),
    }
    assert found.figures == (
        Difference("validation_accuracy", "0.9", "0.8"),
        Difference("validation_loss", ABSENT, "0.5"),
    )
    assert found.remarks == (
        "Run one has no account of its data; only the digests of the datasets are compared.",
        "Run other has no account of its data; only the digests of the datasets are compared.",
    )


def test_the_account_of_the_data_is_compared_in_counts(tmp_path: Path) -> None:
    def with_data(name: str, zeros: int) -> RunFolder:
        manifest = DataManifest(
            contract=_CONTRACT,
            labels=("a", "b"),
            shards=(ShardEntry(path="x", size_bytes=1, sha256="5" * 64, count=zeros + 7),),
            example_counts={"a": zeros, "b": 7},
            slice_counts={"light": {"dim": zeros}},
            rejects=(),
            excluded=(),
            duplicates=(),
            feedback_count=0,
            sources_sha256="6" * 64,
            guard_sha256="7" * 64,
        )
        folder = _run(RunFolder(tmp_path / name), data_manifest_sha256=manifest.sha256)
        write_durably(folder.data_manifest_json, manifest.to_json())
        return folder

    found = compare_runs(with_data("one", 3), with_data("other", 1003))
    assert [(row.name, row.first, row.second) for row in found.differences["data"] if row.name != "dataset"] == [
        ("examples", "10", "1,010"),
        ("examples of a", "3", "1,003"),
        ("examples of light dim", "3", "1,003"),
    ]
    assert found.remarks == ()


def test_tables_in_tables_become_dotted_keys() -> None:
    assert flattened({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {"a.b": "1", "a.c.d": "1, 2", "e": "{}"}


def test_the_page_draws_both_curves_and_spells_out_what_people_wrote(tmp_path: Path) -> None:
    one = _run(RunFolder(tmp_path / "one"))
    other = _run(RunFolder(tmp_path / "other"), environment={"python": "<script>alert(1)</script>"})
    _progress(one, 3.0, 2.0)
    _progress(other, 3.0, 1.0)
    page = comparison_page(compare_runs(one, other))
    assert page.count("<polyline") == 2
    assert 'points="320.0,8.0 632.0,100.0"' in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_same_training_can_be_planned_where_data_and_code_are_the_same() -> None:
    plan = plan_reproduction(_record("one"), data_manifest_sha256="1" * 64, code=_CODE)
    assert (plan.config, plan.remarks) == (_CONFIG, ())


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({}, CodeState("beef", is_dirty=False), "its code was c0ffee, and this is beef"),
        ({"code_dirty": True}, _CODE, "its code had changes that no commit holds"),
        ({}, CodeState("c0ffee", is_dirty=True), "this code has changes that no commit holds"),
        ({"config_sha256": "9" * 64}, _CODE, "this code has other keys than its configuration"),
    ],
)
def test_another_code_is_refused_unless_it_is_allowed(changes: dict[str, Any], code: CodeState, named: str) -> None:
    record = _record("one", **changes)
    with pytest.raises(RefusedError) as refusal:
        plan_reproduction(record, data_manifest_sha256="1" * 64, code=code)
    assert f"  - {named}; check out the commit c0ffee, or say --allow-code-difference" in str(refusal.value)
    plan = plan_reproduction(record, data_manifest_sha256="1" * 64, code=code, is_other_code_allowed=True)
    assert plan.remarks == (named,)


def test_other_data_and_a_configuration_of_another_time_are_refused_in_any_case() -> None:
    record = _record("one", config={"optimization": {"speed": 3}})
    with pytest.raises(RefusedError) as refusal:
        plan_reproduction(record, data_manifest_sha256="1" * 64, code=_CODE, is_other_code_allowed=True)
    assert "this code does not take its configuration (optimization.speed)" in str(refusal.value)
    with pytest.raises(RefusedError, match=r"from the dataset 1{16}, and this is 8{16}: name the same one with --data"):
        plan_reproduction(_record("one"), data_manifest_sha256="8" * 64, code=_CODE, is_other_code_allowed=True)


def test_the_same_weights_are_the_same_run(tmp_path: Path) -> None:
    one, other = _run(RunFolder(tmp_path / "one")), _run(RunFolder(tmp_path / "other"), hardware={"cores": "9"})
    found = reproduced(one, other)
    assert (found.is_identical, found.score_difference, found.reasons) == (True, 0.0, ())


def test_other_weights_are_measured_and_explained(tmp_path: Path) -> None:
    one = _run(RunFolder(tmp_path / "one"))
    other = _run(
        RunFolder(tmp_path / "other"),
        weights=b"v",
        scores=(0.25, 0.75),
        is_deterministic=False,
        environment={"python": "3.11", "intra_op_threads": "0", "export_bfloat16": "refused: why"},
        hardware={"cores": "2", "accelerators": "H200"},
    )
    _progress(one, 3.0, 2.0)
    _progress(other, 3.0, 1.0)
    found = reproduced(one, other)
    assert (found.is_identical, found.score_difference, found.first_different_step) == (False, 0.25, 10)
    assert [reason.split(" ")[0] for reason in found.reasons] == [
        "environment:",
        "hardware:",
        "execution.is_deterministic",
        "the",
        "some",
    ]
    assert found.reasons[0] == "environment: intra_op_threads was 2 and is 0"
