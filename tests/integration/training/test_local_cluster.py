"""Training on this machine in a process of its own: start, follow, stop, go on, collect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import IntegrityError, NotFoundError, SettingsError, TrainingError
from training_cluster.cluster import Cluster, TrainingRequest, TrainingState
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
        LocalCluster().start(TrainingRequest("refused", "m", training.config_path, str(tmp_path), training.runs_dir, "ada"))
    assert not training.runs_dir.exists()
