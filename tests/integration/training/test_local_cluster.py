"""Training on this machine in a process of its own: start, follow, stop, go on, collect."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import IntegrityError, NotFoundError, SettingsError, TrainingError
from training_cluster.cluster import Cluster, TrainingRequest, TrainingState
from training_cluster.hosts.detached import kill_detached
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.local_cluster import LocalCluster


@pytest.fixture
def request_of(training: Any) -> Any:
    """Make the request of a run by its id."""

    def make(run_id: str) -> TrainingRequest:
        return TrainingRequest(
            run_id=run_id,
            model="digits",
            config_path=training.config_path,
            data=str(training.data_dir),
            runs_dir=training.runs_dir,
            trained_by="ada",
        )

    return make


def _wait(cluster: Cluster, request: TrainingRequest, *, step: int | None = None) -> TrainingState:
    """Wait for a step, or for the end."""
    while (state := cluster.state(request)).status == "running":
        if step is not None and state.step >= step:
            return state
        time.sleep(0.05)
    return state


def test_a_run_is_started_stopped_continued_and_collected(request_of: Any) -> None:
    cluster: Cluster = LocalCluster()
    request = request_of("story")
    assert cluster.state(request).status == "absent"
    with pytest.raises(TrainingError, match="cannot be collected: it is absent"):
        cluster.collect(request)

    cluster.start(request)
    cluster.start(request)
    assert _wait(cluster, request, step=5).status == "running"
    cluster.stop(request)
    stopped = cluster.state(request)
    assert stopped.status == "interrupted", stopped

    # Another process finds the run by its files.
    later: Cluster = LocalCluster()
    later.start(request)
    ended = _wait(later, request)
    assert ended.status == "complete", ended
    assert ended.step == ended.total_steps == 40
    folder = later.collect(request)
    assert folder.read_run().trained_by == "ada"

    later.start(request)
    later.stop(request)
    assert later.state(request).status == "complete"
    (folder.export / "saved_model.pb").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=r"saved_model\.pb"):
        later.collect(request)


def test_a_training_that_fails_says_why(request_of: Any, training: Any) -> None:
    training.config_path.write_text("[optimization]\noptimizer = 'sgd'\nlearning_rate = 1e30\nbatch_size = 32\n")
    cluster = LocalCluster()
    request = request_of("wild")
    cluster.start(request)
    state = _wait(cluster, request)
    assert state.status == "failed"
    assert "exit code 11" in state.detail
    assert "no candidate is written" in state.detail


def test_what_cannot_be_trained_is_refused_at_once(request_of: Any, training: Any, tmp_path: Path) -> None:
    training.config_path.write_text("[model]\nwidth = 3\n")
    with pytest.raises(SettingsError, match="did you mean"):
        LocalCluster().start(request_of("refused"))
    training.config_path.write_text("")
    with pytest.raises(NotFoundError, match="There is no dataset"):
        LocalCluster().start(
            TrainingRequest("refused", "m", training.config_path, str(tmp_path), training.runs_dir, "ada")
        )
    assert not training.runs_dir.exists()


@pytest.fixture
def waiting_python(tmp_path: Path) -> str:
    """An interpreter that trains nothing: it says what it was given and waits for SIGTERM."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\ntrap "exit 75" TERM\necho "$TF_NUM_INTRAOP_THREADS $@"\nwhile :; do sleep 0.05; done\n')
    path.chmod(0o755)
    return str(path)


def test_workers_of_one_machine_are_each_started_again_alone_or_among_fewer(
    request_of: Any, training: Any, waiting_python: str
) -> None:
    request = dataclasses.replace(request_of("pair"), spread="hosts")
    launches = [
        LaunchFolder(training.runs_dir / ".launch" / "pair"),
        LaunchFolder(training.runs_dir / ".launch" / "pair" / "worker-1"),
    ]
    cluster = LocalCluster(workers=2, python=waiting_python, stop_grace_seconds=5)
    cluster.start(request)
    first = [launch.launch_id for launch in launches]
    addresses = json.loads(launches[0].tf_config)["cluster"]
    assert json.loads(launches[1].tf_config) == {"cluster": addresses, "task": {"type": "worker", "index": 1}}

    # Attaching leaves a run alone, whatever it would be spread over if it were started now.
    later = LocalCluster(python=waiting_python, stop_grace_seconds=5)
    later.start(dataclasses.replace(request, spread="host"))
    assert [launch.launch_id for launch in launches] == first

    kill_detached(launches[1])
    assert "-1 is missing: killed by signal 9" in later.state(request).detail
    later.start(request)
    assert launches[0].launch_id == first[0]
    assert launches[1].launch_id != first[1]
    assert json.loads(launches[1].tf_config)["cluster"] == addresses

    kill_detached(launches[1])
    later.start(dataclasses.replace(request, spread="host"))
    assert launches[0].tf_config == ""
    assert not launches[1].is_running
    wait_until = time.monotonic() + 60
    while "--spread host " not in "".join(launches[0].log_tail(1)):
        assert time.monotonic() < wait_until
        time.sleep(0.02)
    later.kill(request)
    assert later.state(request).status == "interrupted"
