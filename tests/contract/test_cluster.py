"""What every `Cluster` promises, over the one on this machine and the one that the playbook drives; real trainings."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync.errors import LiftgateError, RefusedError, TrainingError
from artifact_sync.manifest import verify_manifest
from training_cluster.cluster import Cluster, TrainingRequest, TrainingState
from training_cluster.hosts.ansible_cluster import AnsibleCluster
from training_cluster.hosts.local_cluster import LocalCluster


@pytest.fixture(scope="session")
def training_lab(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cluster_training_lab", repository / "tests" / "training_lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["local", "ansible"])
def cluster(request: pytest.FixtureRequest, repository: Path) -> Cluster:
    if request.param == "local":
        return LocalCluster()
    return AnsibleCluster(repository / "ansible" / "inventories" / "local")


@pytest.fixture
def request_training(tmp_path: Path, training_lab: ModuleType) -> Callable[..., TrainingRequest]:
    """Return a function that makes a request to train on noise, two classes of it."""

    def make(*, epochs: int = 2) -> TrainingRequest:
        generator = np.random.default_rng(7)
        classes = generator.integers(0, 2, size=160)
        pixels = (generator.integers(0, 128, size=(160, 8, 8, 1)) + 127 * classes[:, None, None, None]).astype(np.uint8)
        training_lab.write_dataset(tmp_path / "data", pixels, classes, labels=("dark", "bright"))
        config = tmp_path / "training.toml"
        config.write_text(training_lab.QUICK.replace("epochs = 2", f"epochs = {epochs}"))
        return TrainingRequest("contract-run", "digits", config, str(tmp_path / "data"), tmp_path / "runs", "ann")

    return make


def wait_for(cluster: Cluster, request: TrainingRequest, status: str, *, step: int = 0) -> TrainingState:
    deadline = time.monotonic() + 240
    state = cluster.state(request)
    while state.status != status or state.step < step:
        assert state.status in ("running", status), state
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
        state = cluster.state(request)
    return state


def test_a_run_that_was_never_started_is_absent_and_cannot_be_collected(
    cluster: Cluster, request_training: Callable[..., TrainingRequest]
) -> None:
    request = request_training()

    assert cluster.state(request).status == "absent"
    with pytest.raises(TrainingError, match="Run contract-run cannot be collected"):
        cluster.collect(request)
    cluster.stop(request)
    cluster.kill(request)
    with pytest.raises(RefusedError, match=r"wish for histograms is refused: run contract-run"):
        cluster.wish(request, "histograms")
    assert not request.run_folder.path.exists()


def test_a_run_is_stopped_goes_on_and_is_collected_and_left_as_it_is(
    cluster: Cluster, request_training: Callable[..., TrainingRequest]
) -> None:
    request = request_training(epochs=40)
    cluster.start(request)
    cluster.start(request)
    wait_for(cluster, request, "running", step=1)

    cluster.stop(request)

    stopped = cluster.state(request)
    assert stopped.status == "interrupted", stopped
    assert stopped.total_steps > stopped.step
    with pytest.raises(TrainingError, match="it is interrupted"):
        cluster.collect(request)
    cluster.start(request)
    cluster.wish(request, "profile", steps=2)
    cluster.kill(request)
    assert (request.run_folder.control / "profile").read_text() == "2\n"
    killed = cluster.state(request)
    assert killed.status == "interrupted", killed
    assert "killed by signal 9" in killed.detail
    cluster.start(request)
    done = wait_for(cluster, request, "complete")
    assert done.step == done.total_steps
    folder = cluster.collect(request)
    verify_manifest(folder.export, folder.read_manifest())
    assert folder.read_run().trained_by == "ann"
    written = folder.manifest_json.stat().st_mtime_ns
    cluster.start(request)
    cluster.stop(request)
    assert cluster.state(request).status == "complete"
    assert folder.manifest_json.stat().st_mtime_ns == written


def test_a_run_that_fails_says_why(cluster: Cluster, request_training: Callable[..., TrainingRequest]) -> None:
    request = request_training()
    shard = next(path for path in Path(request.data).rglob("*") if path.is_file() and path.suffix != ".json")
    shard.write_bytes(shard.read_bytes()[:-1])

    cluster.start(request)

    failed = wait_for(cluster, request, "failed")
    assert shard.name in failed.detail
    with pytest.raises(TrainingError, match=shard.name):
        cluster.collect(request)


def test_a_request_without_a_dataset_is_refused_at_once(
    cluster: Cluster, request_training: Callable[..., TrainingRequest]
) -> None:
    request = request_training()
    (Path(request.data) / "data_manifest.json").unlink()

    with pytest.raises(LiftgateError, match=r"data_manifest|dataset"):
        cluster.start(request)

    assert cluster.state(request).status == "absent"
