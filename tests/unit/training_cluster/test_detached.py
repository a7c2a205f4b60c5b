"""A detached command: one at a time, outliving its starter, stopped as a group, its end known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingState
from training_cluster.hosts.detached import start_detached, stop_detached
from training_cluster.hosts.host_side import main, run_digests
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import observe


@pytest.fixture(autouse=True)
def importable(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[LaunchFolder]:
    folder = LaunchFolder(tmp_path / "launch")
    yield folder
    stop_detached(folder, grace_seconds=0.0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_command_runs_to_its_end_and_leaves_its_exit_code_and_words(launch: LaunchFolder) -> None:
    assert not launch.exists

    assert start_detached(launch, shell("echo said; echo complained >&2; exit 3"), name="unit", run_dir=launch.path)
    wait_for(lambda: not launch.is_running)

    assert launch.exists
    assert launch.exit_code == 3
    assert launch.log_tail(5) == ("said", "complained")


def test_a_running_command_is_not_started_again(launch: LaunchFolder) -> None:
    assert start_detached(launch, ["sleep", "100"], name="unit", run_dir=launch.path)
    first = launch.launch_id

    assert not start_detached(launch, ["sleep", "100"], name="unit", run_dir=launch.path)

    assert launch.is_running
    assert launch.launch_id == first


def test_of_starts_at_the_same_time_one_runs(launch: LaunchFolder, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    start = [sys.executable, "-m", "training_cluster.hosts.host_side", "start", "--launch-dir", str(launch.path)]
    start += ["--run-dir", str(tmp_path / "run"), "--", *shell(f"echo $$ >> {runs}; sleep 100")]

    starters = [subprocess.Popen(start, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [json.loads(starter.communicate()[0]) for starter in starters]

    assert sorted(answer["changed"] for answer in answers) == [False, False, False, True]
    wait_for(runs.exists)
    assert len(runs.read_text().split()) == 1


def test_a_stopped_command_may_end_in_its_own_way(launch: LaunchFolder, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    start_detached(
        launch,
        shell(f"trap 'exit 75' TERM; touch {ready}; while :; do sleep 0.02; done"),
        name="unit",
        run_dir=launch.path,
    )
    wait_for(ready.exists)

    assert stop_detached(launch, grace_seconds=30)

    assert launch.exit_code == 75
    assert not stop_detached(launch, grace_seconds=30)


def test_a_command_that_does_not_end_is_killed_with_its_children(launch: LaunchFolder, tmp_path: Path) -> None:
    child = tmp_path / "child"
    start_detached(
        launch, shell(f"trap '' TERM; sleep 100 & echo $! > {child}; wait; wait"), name="unit", run_dir=launch.path
    )
    wait_for(lambda: child.exists() and child.read_text() != "")

    stop_detached(launch, grace_seconds=0.1)

    assert launch.exit_code == -signal.SIGKILL
    wait_for(lambda: not Path("/proc", child.read_text().strip()).exists())


def test_a_command_whose_supervisor_was_killed_still_counts_as_running(launch: LaunchFolder, tmp_path: Path) -> None:
    start_detached(
        launch, shell(f"echo $PPID > {tmp_path / 'supervisor'}; exec sleep 100"), name="unit", run_dir=launch.path
    )
    wait_for(lambda: (tmp_path / "supervisor").exists() and (tmp_path / "supervisor").read_text() != "")

    os.kill(int((tmp_path / "supervisor").read_text()), signal.SIGKILL)

    assert launch.is_running
    assert not start_detached(launch, ["true"], name="unit", run_dir=launch.path)
    stop_detached(launch, grace_seconds=30)
    assert not launch.is_running


@pytest.mark.parametrize(
    ("exit_code", "status", "detail"),
    [
        ("75\n", "interrupted", "interrupted at a checkpoint near step 7"),
        ("-9\n", "interrupted", "killed by signal 9 after step 7; it goes on from its checkpoint"),
        (None, "interrupted", "killed, or its machine went down after step 7; it goes on from its checkpoint"),
        ("11\n", "failed", "exit code 11 after step 7: the loss is not a number"),
        ("0\n", "failed", "exit code 0 after step 7: the loss is not a number"),
    ],
)
def test_how_a_run_ended_is_told_from_its_files(
    tmp_path: Path, exit_code: str | None, status: str, detail: str
) -> None:
    launch, run = LaunchFolder(tmp_path / "launch"), RunFolder(tmp_path / "run-1")
    run.path.mkdir()
    (run.path / "progress.jsonl").write_text('{"step": 7, "total_steps": 9, "loss": 0.25}\n{"step": 8, "tot')
    launch.path.mkdir()
    (launch.path / "lock").touch()
    launch.log.write_text("the loss is not a number\n")
    if exit_code is not None:
        (launch.path / "exit_code").write_text(exit_code)

    assert observe(launch, run) == TrainingState(status, 7, detail, 9)  # type: ignore[arg-type]


def test_a_run_with_a_manifest_is_complete_whatever_else_lies_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run-1")
    run.path.mkdir()
    run.manifest_json.write_text("{}")
    (run.path / "progress.jsonl").write_text('{"event": "end", "step": 9, "total_steps": 9, "accuracy": 0.9}\n')

    assert observe(LaunchFolder(tmp_path / "none"), run) == TrainingState("complete", 9, "accuracy 0.9", 9)


def test_the_digests_of_a_run_leave_out_checkpoints_and_hidden_files(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name in ("export/saved_model.pb", "checkpoints/step", ".trainer-0.lock", "export/.tmp-1", "run.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)

    assert [entry.path for entry in run_digests(run).files] == ["export/saved_model.pb", "run.json"]


def test_a_verb_that_fails_says_why_and_ends_with_the_errors_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training_cluster.hosts.detached._START_SECONDS", 0.1)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    code = main(["start", "--launch-dir", str(tmp_path / "launch"), "--run-dir", str(tmp_path / "run"), "--", "true"])

    assert code == 11
    assert "The training did not come up" in capsys.readouterr().err
