"""How a run over several hosts stands, from what each of them says."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact_sync.errors import TrainingError
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingState, TrainingStatus
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import HostState, joint_state, observe


def at(name: str, status: TrainingStatus, step: int = 7, detail: str = "loss 0.5") -> HostState:
    return HostState(name, TrainingState(status, step, detail, 9))


GONE = HostState("gpu2", None, "Host gpu2 cannot be reached.")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([at("gpu1", "running"), at("gpu2", "running")], TrainingState("running", 7, "loss 0.5", 9)),
        ([at("gpu1", "complete", 9), GONE], TrainingState("complete", 9, "loss 0.5", 9)),
        ([at("gpu1", "running"), at("gpu2", "complete")], TrainingState("running", 7, "loss 0.5", 9)),
        ([at("gpu1", "running"), GONE], TrainingState("running", 7, "loss 0.5; Host gpu2 cannot be reached.", 9)),
        (
            [at("gpu1", "running"), at("gpu2", "interrupted", 3, "killed")],
            TrainingState("running", 7, "loss 0.5; gpu2 is missing: killed", 9),
        ),
        (
            [at("gpu1", "interrupted", 3, "killed"), at("gpu2", "running")],
            TrainingState("running", 3, "loss 0.5; gpu1 is missing: killed", 9),
        ),
        (
            [at("gpu1", "running"), at("gpu2", "failed", 3, "exit code 12")],
            TrainingState("failed", 7, "gpu2: exit code 12", 9),
        ),
        (
            [at("gpu1", "interrupted", detail="at 7"), at("gpu2", "interrupted", detail="at 7")],
            TrainingState("interrupted", 7, "at 7", 9),
        ),
        (
            [at("gpu1", "interrupted", detail="at 7"), at("gpu2", "absent", 0, "never")],
            TrainingState("interrupted", 7, "gpu1: at 7; gpu2: never", 9),
        ),
        ([at("gpu1", "absent", 0), at("gpu2", "absent", 0)], TrainingState("absent", 0, "loss 0.5", 9)),
    ],
)
def test_a_run_stands_as_its_hosts_say_together(hosts: list[HostState], expected: TrainingState) -> None:
    assert joint_state(hosts) == expected


def test_nothing_is_said_of_a_run_that_may_go_on_where_nobody_can_look() -> None:
    with pytest.raises(TrainingError, match="gpu2 cannot be reached"):
        joint_state([at("gpu1", "interrupted"), GONE])


@pytest.mark.parametrize(("index", "status"), [(0, "failed"), (1, "complete")])
def test_only_a_chief_that_ended_without_a_manifest_has_failed(tmp_path: Path, index: int, status: str) -> None:
    launch, run = LaunchFolder(tmp_path / "launch"), RunFolder(tmp_path / "run-1")
    run.path.mkdir()
    for name in ("progress.jsonl", "progress-1.jsonl"):
        (run.path / name).write_text('{"step": 9, "total_steps": 9}\n')
    launch.path.mkdir()
    (launch.path / "lock").touch()
    (launch.path / "exit_code").write_text("0\n")

    state = observe(launch, run, index=index)

    assert (state.status, state.step) == (status, 9)


def test_a_worker_that_waited_in_vain_for_another_can_be_started_again(tmp_path: Path) -> None:
    launch = LaunchFolder(tmp_path / "launch")
    launch.path.mkdir()
    (launch.path / "lock").touch()
    (launch.path / "exit_code").write_text("76\n")
    launch.log.write_text("not started again after 10 times without a new checkpoint\n")

    state = observe(launch, RunFolder(tmp_path / "run-1"))

    assert state.status == "interrupted"
    assert state.detail.startswith("lost another host after step 0: not started again after 10 times")
