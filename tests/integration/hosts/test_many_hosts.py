"""One run over two hosts on machines with a network of their own: power cuts, cut cables, stops, refusals."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import PreflightError, RefusedError
from training_cluster.cluster import TrainingRequest, TrainingState
from training_cluster.hosts.ansible_cluster import AnsibleCluster

MakeRequest = Callable[..., TrainingRequest]
MakeCluster = Callable[..., AnsibleCluster]


@pytest.fixture(scope="module")
def gpus(site: Any) -> dict[str, Any]:
    """The two machines by name; a test that boots one anew puts it here."""
    return {name: site.boot(name) for name in ("gpu1", "gpu2")}


@pytest.fixture
def cluster_of(write_inventory: Callable[..., Path], standin_command: list[str]) -> MakeCluster:
    def make(*hosts: Any, **variables: object) -> AnsibleCluster:
        return AnsibleCluster(write_inventory(*hosts), variables={"training_run_command": standin_command, **variables})

    return make


def wait_for(
    cluster: AnsibleCluster, request: TrainingRequest, condition: Callable[[TrainingState], bool]
) -> TrainingState:
    deadline = time.monotonic() + 240
    while not condition(state := cluster.state(request)):
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    return state


def runs_at(step: int) -> Callable[[TrainingState], bool]:
    return lambda state: state == TrainingState("running", step, f"loss {1 / step:.4g}", 4)


def test_a_host_that_lost_power_comes_back_into_its_run(
    gpus: dict[str, Any], site: Any, cluster_of: MakeCluster, make_request: MakeRequest
) -> None:
    cluster, request = cluster_of(*gpus.values()), make_request("powerless", hold_at=2, spread="hosts")
    cluster.start(request)
    wait_for(cluster, request, runs_at(2))
    gpus["gpu2"].power_off()

    alone = wait_for(cluster, request, lambda state: "gpu2 cannot be reached" in state.detail)
    assert alone.status == "running"
    gpus["gpu2"] = site.boot("gpu2")
    missing = wait_for(cluster, request, lambda state: "gpu2 is missing: killed, or its machine" in state.detail)
    assert missing.status == "running"
    for machine in gpus.values():
        machine.run("touch /srv/liftgate/runs/powerless/go")
    cluster.start(request)

    wait_for(cluster, request, lambda state: state.status == "complete")
    folder = cluster.collect(request)
    lines = (folder.path / "progress-1.jsonl").read_text().splitlines()
    # Whether it had written down its first steps when the power went is chance; the others it did after it came back.
    assert {json.loads(line)["step"] for line in lines} >= {3, 4}
    assert (folder.variants / "powerless-bfloat16" / "export" / "saved_model.pb").is_file()
    assert not folder.checkpoints.exists()
    assert gpus["gpu1"].run("cat /srv/liftgate/runs/.launch/powerless/restarts").stdout != ""
    # Only what is trained from is on the hosts.
    assert gpus["gpu2"].run("find /srv/liftgate/data -name holdout.csv").stdout == ""


def test_hosts_that_were_cut_off_come_together_again_and_are_stopped_and_killed(
    gpus: dict[str, Any], cluster_of: MakeCluster, make_request: MakeRequest
) -> None:
    cluster, request = cluster_of(*gpus.values()), make_request("cut-off", steps=40, hold_at=2, spread="hosts")
    cluster.start(request)
    wait_for(cluster, request, lambda state: state.step == 2)
    cluster.wish(request, "profile", steps=7)
    gpus["gpu2"].cut_off()
    wait_for(cluster, request, lambda state: "gpu2 cannot be reached" in state.detail)
    wait_for(cluster, request, lambda state: "started again" in state.detail)
    gpus["gpu2"].connect()

    # Nobody plays anything: the hosts find each other by themselves.
    wait_for(cluster, request, lambda state: state.status == "running" and state.step > 2)
    assert gpus["gpu1"].run("cat /srv/liftgate/runs/cut-off/events/profile").stdout == "7\n"
    cluster.stop(request)
    stopped = cluster.state(request)
    assert stopped.status == "interrupted", stopped
    with pytest.raises(RefusedError, match="run cut-off is not running here"):
        cluster.wish(request, "histograms")
    cluster.start(request)
    wait_for(cluster, request, lambda state: state.status == "running")
    cluster.kill(request)
    assert "killed by signal 9" in cluster.state(request).detail


def test_all_that_keeps_hosts_from_training_together_is_told_at_once(
    gpus: dict[str, Any], site: Any, cluster_of: MakeCluster, make_request: MakeRequest
) -> None:
    gone = site.boot("gpu3")
    gone.power_off()
    gpus["gpu1"].run("ip route add blackhole 10.77.0.12")
    taken = "nohup python3 -m http.server 12345 >/dev/null 2>&1 &"
    gpus["gpu2"].run(f"bash -c '{taken} until (echo > /dev/tcp/127.0.0.1/12345) 2>/dev/null; do sleep 0.05; done'")
    cluster = cluster_of(
        *gpus.values(),
        gone,
        training_run_work_dir="/root/not-mine",
        training_run_python="/opt/none/python",
        training_run_min_memory_gb=10_000,
        training_run_needs_gpu=True,
    )

    with pytest.raises(PreflightError) as refusal:
        cluster.start(make_request("unfit", spread="hosts"))

    gpus["gpu1"].run("ip route del blackhole 10.77.0.12")
    gpus["gpu2"].run("pkill -f http.server")
    lines = str(refusal.value).splitlines()
    assert lines[0] == "Training refused: 3 of 3 hosts not fit to train:"
    for host in ("gpu1", "gpu2"):
        for failure in (
            "there is no /opt/none/python",
            "user 1001 may not write to /root",
            "GB of memory left and 10000 GB are asked for",
            "nvidia-smi does not answer",
        ):
            assert any(line.startswith(f"  {host}: ") and failure in line for line in lines), (host, failure, lines)
    for failure in (
        "gpu1: gpu2 cannot be reached at 10.77.0.12:12345 from here",
        "gpu2: gpu1 cannot be reached at 10.77.0.11:12345 from here",
        "gpu2: port 12345 cannot be listened at (Address already in use)",
        "gpu3: it cannot be reached",
    ):
        assert any(failure in line for line in lines), (failure, lines)
    assert cluster.state(make_request("unfit")).status == "absent"


def test_the_real_trainer_trains_on_two_hosts(
    gpus: dict[str, Any], write_inventory: Callable[..., Path], digits_request: TrainingRequest, repository: Path
) -> None:
    """The whole way: code, configuration and data are placed, TensorFlow trains, the export comes home and verifies."""
    cluster = AnsibleCluster(write_inventory(*gpus.values()))

    cluster.start(digits_request)
    wait_for(cluster, digits_request, lambda state: state.status != "running")
    run = cluster.collect(digits_request).read_run()

    ask = ["git", "-C", str(repository), "cat-file", "-t", run.code_commit]
    kind = subprocess.run(ask, capture_output=True, text=True, check=False)
    assert kind.stdout == "commit\n", run.code_commit
    assert run.trained_by == "ann"
    assert len(run.labels) == 10
    assert run.environment["workers"] == "2"
    # Each host has what it needs to go on without the other.
    listings = {machine.run("ls /srv/liftgate/runs/real-digits/checkpoints").stdout for machine in gpus.values()}
    assert len(listings) == 1
    assert "checkpoint" in listings.pop()


@pytest.fixture
def bucket(site: Any) -> Iterator[str]:
    """The address of a store on the head that has one object for whoever shows a signature."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_signed = "Credential=train-key/" in self.headers.get("Authorization", "")
            found = is_signed and self.path == "/photos/flowers/data_manifest.json"
            self.send_response(200 if found else 403)
            self.send_header("Content-Length", "2" if found else "0")
            self.end_headers()
            self.wfile.write(b"{}" if found else b"")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("10.77.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://10.77.0.1:{server.server_address[1]}"
        server.shutdown()


def test_data_is_streamed_with_keys_that_nobody_else_on_the_host_can_read(
    gpus: dict[str, Any], bucket: str, cluster_of: MakeCluster, make_request: MakeRequest
) -> None:
    request = dataclasses.replace(make_request("streamed", hold_at=2), data="s3://photos/flowers")
    keys = {"AWS_ENDPOINT_URL": bucket, "AWS_ACCESS_KEY_ID": "train-key", "AWS_SECRET_ACCESS_KEY": "of-the-lab"}
    with pytest.raises(PreflightError, match=r"s3://photos/flowers/data_manifest.json cannot be read from here"):
        cluster_of(gpus["gpu1"], training_run_s3_environment=keys | {"AWS_ACCESS_KEY_ID": "wrong"}).start(request)
    cluster = cluster_of(gpus["gpu1"], training_run_s3_environment=keys)
    cluster.start(request)
    wait_for(cluster, request, runs_at(2))

    machine = gpus["gpu1"]
    launch = "/srv/liftgate/runs/.launch/streamed"
    assert machine.run(f"stat -c '%a %U' {launch}/environment.json").stdout == "600 trainer\n"
    assert "of-the-lab" not in machine.run("cat /proc/[0-9]*/cmdline").stdout
    environment = machine.run(f"cat /proc/$(cat {launch}/command.pid)/environ").stdout
    assert "AWS_SECRET_ACCESS_KEY=of-the-lab" in environment.split("\0")
    cluster.kill(request)
