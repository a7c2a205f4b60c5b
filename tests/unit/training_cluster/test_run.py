"""What a run is bound to and which code it records."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from artifact_sync.errors import RefusedError
from training_cluster.runs.run import CodeState, TrainingStart, code_state, environment, hardware


def _start(**changes: object) -> TrainingStart:
    fields = {
        "run_id": "7c1f",
        "model": "parts",
        "trained_by": "ada",
        "started_at": datetime(2026, 11, 20, 6, tzinfo=UTC),
        "config": {"seed": 1},
        "config_sha256": "a" * 64,
        "data_manifest_sha256": "b" * 64,
    }
    return TrainingStart.model_validate({**fields, **changes})


def _git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, "-C", str(directory), *arguments], check=True, capture_output=True)


def test_the_first_start_is_kept_when_the_run_goes_on(tmp_path: Path) -> None:
    first = _start().begin(tmp_path)
    later = _start(started_at=datetime(2026, 11, 21, tzinfo=UTC), trained_by="bob").begin(tmp_path)
    assert later == first == _start()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config_sha256": "c" * 64}, "another config."),
        ({"data_manifest_sha256": "c" * 64}, "another data manifest."),
        ({"model": "other", "config_sha256": "c" * 64}, "another model and another config."),
    ],
)
def test_a_run_does_not_go_on_as_something_else(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    _start().begin(tmp_path)
    with pytest.raises(RefusedError) as refusal:
        _start(**changes).begin(tmp_path)
    assert named in str(refusal.value)
    assert "train under another run id" in str(refusal.value)


def test_the_code_is_a_commit_and_dirty_when_a_tracked_file_was_changed(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "__init__.py").write_text("")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    clean = code_state(tmp_path)
    assert len(clean.commit) == 40
    assert not clean.is_dirty
    (tmp_path / "__init__.py").write_text("changed")
    assert code_state(tmp_path) == CodeState(clean.commit, is_dirty=True)


def test_code_that_lies_in_a_foreign_repository_or_in_none_is_named_by_its_version(tmp_path: Path) -> None:
    assert code_state(tmp_path).commit.startswith("liftgate ")
    _git(tmp_path, "init", "-q")
    installed = tmp_path / "venv" / "training_cluster"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_state(installed).commit.startswith("liftgate ")


def test_environment_and_hardware_say_what_changes_the_result() -> None:
    found = environment(threads={"intra_op": 2})
    assert {"python", "keras", "numpy", "onednn", "intra_op_threads"} <= found.keys()
    machine = hardware(accelerators=())
    assert machine["accelerators"] == "none"
    assert int(machine["cores"]) >= 1
