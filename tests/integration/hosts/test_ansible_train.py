"""The playbook trains on real hosts: detached, re-attached, refused with all failures, collected by digest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import PreflightError, TrainingError
from training_cluster.cluster import TrainingRequest, TrainingState
from training_cluster.hosts.ansible_cluster import AnsibleCluster

MakeRequest = Callable[..., TrainingRequest]
WriteInventory = Callable[..., Path]


def wait_until(cluster: AnsibleCluster, request: TrainingRequest, *statuses: str, step: int = 0) -> TrainingState:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        state = cluster.state(request)
        assert state.status in ("absent", "running", *statuses), state
        if state.status in statuses and state.step >= step:
            return state
        time.sleep(0.3)
    raise AssertionError(f"still {state}")


@pytest.fixture
def ssh_cluster(write_inventory: WriteInventory, standin_command: list[str]) -> Callable[..., AnsibleCluster]:
    def make(*hosts: Any, pinned: str | None = None, **variables: object) -> AnsibleCluster:
        inventory = write_inventory(*hosts, pinned=pinned)
        return AnsibleCluster(inventory, variables={"training_run_command": standin_command, **variables})

    return make


@pytest.fixture(scope="module")
def gpu1(shared_lab: Any) -> Any:
    return shared_lab.boot("gpu1")


@pytest.fixture(scope="module")
def gpu2(shared_lab: Any) -> Any:
    """A machine with real systemd."""
    return shared_lab.boot("gpu2", systemd=True)


def test_a_second_controller_finds_the_run_where_it_goes_on(
    gpu1: Any, gpu2: Any, ssh_cluster: Callable[..., AnsibleCluster], make_request: MakeRequest
) -> None:
    request = make_request("found-again", hold_at=2)
    ssh_cluster(gpu2).start(request)
    (request.runs_dir / ".launch" / "found-again" / "attachment.json").unlink()

    both = ssh_cluster(gpu1, gpu2)
    both.start(request)

    attachment = json.loads((request.runs_dir / ".launch" / "found-again" / "attachment.json").read_text())
    assert attachment["host"] == "gpu2"
    wait_until(both, request, "running", step=1)
    # Attaching asks nothing of the other host, which may be down.
    ssh_cluster(gpu1, gpu2, pinned=gpu2.known_hosts_line).start(request)
    assert gpu2.run("cat /srv/liftgate/runs/found-again/starts").stdout == "0\n"
    both.stop(request)


def test_with_systemd_the_training_is_a_unit_that_root_starts(
    gpu2: Any, write_inventory: WriteInventory, standin_command: list[str], make_request: MakeRequest
) -> None:
    inventory = write_inventory(gpu2, variables={"ansible_user": "root", "training_run_work_dir": "/srv/of-root"})
    cluster = AnsibleCluster(inventory, variables={"training_run_command": standin_command})
    request = make_request("as-a-unit", hold_at=2)

    cluster.start(request)

    assert gpu2.run("systemctl is-active liftgate-train-as-a-unit").stdout == "active\n"
    wait_until(cluster, request, "running", step=1)
    gpu2.run("systemctl stop liftgate-train-as-a-unit")
    assert cluster.state(request).status == "interrupted"


def test_a_stopped_run_goes_on_from_its_checkpoint_and_comes_home_verified(
    gpu1: Any, ssh_cluster: Callable[..., AnsibleCluster], make_request: MakeRequest
) -> None:
    cluster, request = ssh_cluster(gpu1), make_request("stopped", hold_at=2)
    cluster.start(request)
    wait_until(cluster, request, "running", step=2)

    cluster.stop(request)
    assert cluster.state(request).status == "interrupted"
    with pytest.raises(TrainingError, match="it is interrupted"):
        cluster.collect(request)

    gpu1.run("touch /srv/liftgate/runs/stopped/go")
    cluster.start(request)
    assert wait_until(cluster, request, "complete") == TrainingState("complete", 4, "loss 0.25", 4)
    assert not request.run_folder.is_complete
    folder = cluster.collect(request)
    assert folder == request.run_folder
    assert (folder.path / "starts").read_text() == "0\n2\n"
    assert (folder.export / "saved_model.pb").read_bytes() == Path(request.data, "data_manifest.json").read_bytes()
    assert not folder.checkpoints.exists()
    assert gpu1.run("stat -c %U /srv/liftgate/runs/stopped").stdout == "trainer\n"


def test_a_training_that_fails_tells_its_last_words(
    gpu1: Any, ssh_cluster: Callable[..., AnsibleCluster], make_request: MakeRequest
) -> None:
    cluster, request = ssh_cluster(gpu1), make_request("nan", fail_at=2)
    cluster.start(request)

    state = wait_until(cluster, request, "failed")

    assert state.step == 1
    assert "exit code 1 after step 1" in state.detail
    assert "the loss is not a number" in state.detail
    with pytest.raises(TrainingError, match="the loss is not a number"):
        cluster.collect(request)


def test_a_host_whose_key_is_not_pinned_is_never_talked_to(
    gpu1: Any, ssh_cluster: Callable[..., AnsibleCluster], make_request: MakeRequest
) -> None:
    cluster = ssh_cluster(gpu1, pinned="")

    with pytest.raises(PreflightError, match="Host key verification failed"):
        cluster.start(make_request("not-pinned"))

    assert "not-pinned" not in gpu1.run("ls /srv/liftgate/runs/.launch").stdout


def test_a_controller_in_another_time_zone_finds_no_fault_with_the_clock(
    repository: Path, standin_command: list[str], make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    local = repository / "ansible" / "inventories" / "local"
    cluster, request = AnsibleCluster(local, variables={"training_run_command": standin_command}), make_request("far")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    cluster.start(request)

    wait_until(cluster, request, "complete")
    assert cluster.collect(request) == request.run_folder
    # Ctrl-C while a command follows the run is still Ctrl-C.
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_inventory_without_training_hosts_is_told(
    ssh_cluster: Callable[..., AnsibleCluster], make_request: MakeRequest
) -> None:
    with pytest.raises(PreflightError, match="names no host in the group training_hosts"):
        ssh_cluster().start(make_request("nowhere"))


def test_the_training_lives_on_when_the_controller_is_killed(
    gpu1: Any, write_inventory: WriteInventory, standin_command: list[str], make_request: MakeRequest, repository: Path
) -> None:
    """The playbook as an operator runs it is killed while it follows; run again it follows to the end."""
    request = make_request("orphan", hold_at=2)
    variables = request.runs_dir.with_name("request.json")
    variables.write_text(
        json.dumps(
            {
                "training_run_id": request.run_id,
                "training_run_model": request.model,
                "training_run_trained_by": request.trained_by,
                "training_run_config_path": str(request.config_path),
                "training_run_data": request.data,
                "training_run_runs_dir": str(request.runs_dir),
                "training_run_poll_seconds": 1,
                "training_run_command": standin_command,
            }
        )
    )
    inventory = write_inventory(gpu1)
    ansible_playbook = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/train.yml"]
    command = [*ansible_playbook, "-i", str(inventory), "-e", f"@{variables}"]
    cluster = AnsibleCluster(inventory)
    with subprocess.Popen(
        command,
        cwd=repository / "ansible",
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as controller:
        try:
            wait_until(cluster, request, "running", step=2)
        finally:
            os.killpg(controller.pid, signal.SIGKILL)
    assert cluster.state(request).status == "running"
    gpu1.run("touch /srv/liftgate/runs/orphan/go")

    again = subprocess.run(command, cwd=repository / "ansible", capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout
    assert request.run_folder.is_complete
    assert (request.run_folder.path / "starts").read_text() == "0\n"
