"""A run that goes on elsewhere: its hosts heard at once, its checkpoint fetched, its curves shown here."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError, TrainingError, TrustError
from training_cluster.hosts.attachment import AttachedHost, Attachment
from training_cluster.hosts.checkpoint_fetch import fetch_checkpoint
from training_cluster.hosts.tensorboard import remote_board
from training_cluster.hosts.watch import HostView, RunWatch
from training_cluster.training.checkpoint import CheckpointFolder, read_checkpoint

# A driver that says what nvidia-smi says of one GPU.
_DRIVER = (
    "printf '#!/bin/sh\\necho 0, Tesla T4, 93, 1200, 15360, 44\\n' > /usr/bin/nvidia-smi; chmod +x /usr/bin/nvidia-smi"
)


@pytest.fixture
def attached(repository: Path, tmp_path: Path) -> Callable[..., AttachedHost]:
    """Return a function that makes a machine one host of a run."""

    def make(machine: Any, *, index: int = 0, pinned: str | None = None) -> AttachedHost:
        known_hosts = tmp_path / f"known_hosts_{machine.name}"
        known_hosts.write_text(machine.known_hosts_line if pinned is None else pinned)
        return AttachedHost(
            name=machine.name,
            connection="ssh",
            address="127.0.0.1",
            port=machine.port,
            user="trainer",
            identity_file=machine.identity_file,
            known_hosts=known_hosts,
            python=sys.executable,
            app_dir=PurePosixPath(repository),
            launch_dir=PurePosixPath("/srv/liftgate/runs/.launch/r1"),
            run_dir=PurePosixPath("/srv/liftgate/runs/r1"),
            index=index,
        )

    return make


def train_on(machine: Any, *, step: int, name: str = "progress.jsonl") -> None:
    """Make it look as if a trainer ran: its lock is held, its log and its progress grow."""
    line = {"at": "2026-11-20T06:00:00Z", "event": "step", "step": step, "total_steps": 50, "loss": 0.25}
    files = "mkdir -p /srv/liftgate/runs/.launch/r1 /srv/liftgate/runs/r1; cd /srv/liftgate/runs"
    files += f"; echo '{json.dumps(line)}' >> r1/{name}; echo began on {machine.name} > .launch/r1/log"
    running = "setsid --fork flock .launch/r1/lock sleep 1000 </dev/null >/dev/null 2>&1"
    started = machine.run(
        f"{files}; {running}; until ! flock -n .launch/r1/lock true; do sleep 0.02; done", user="trainer"
    )
    assert started.returncode == 0, started.stderr


def eventually(watch: RunWatch, wanted: Callable[[tuple[HostView, ...]], bool]) -> tuple[HostView, ...]:
    deadline = time.monotonic() + 60
    while not wanted(views := watch.views()):
        assert time.monotonic() < deadline, views
        time.sleep(0.05)
    return views


def test_hosts_are_heard_together_and_a_lost_one_holds_up_nobody(
    lab: Any, attached: Callable[..., AttachedHost]
) -> None:
    chief, other = lab.boot("gpu1"), lab.boot("gpu2")
    chief.run(_DRIVER)
    train_on(chief, step=7)
    train_on(other, step=6, name="progress-1.jsonl")
    heard: list[tuple[str, str]] = []
    hosts = [attached(chief), attached(other, index=1)]

    with RunWatch(hosts, on_log=lambda host, line: heard.append((host, line)), every_seconds=0.1) as watch:
        first, second = eventually(watch, lambda views: all(view.report is not None for view in views))
        assert first.report is not None
        assert second.report is not None
        assert (first.report.status, first.report.step, first.report.figures) == ("running", 7, {"loss": 0.25})
        assert (second.report.status, second.report.step) == ("running", 6)
        assert [gpu.use_percent for gpu in first.report.gpus] == [93.0]
        assert first.last_line == "began on gpu1"

        other.power_off()
        _, lost = eventually(watch, lambda views: bool(views[1].trouble))
        assert "gpu2" in lost.trouble
        assert lost.report == second.report

        # A connection that broke is made again, and the log goes on where it was read.
        chief.run("pkill -f hosts.host_repor[t]")
        train_on(chief, step=8)
        eventually(watch, lambda views: views[0].report is not None and views[0].report.step == 8)

    assert heard.count(("gpu1", "began on gpu1")) == 1
    assert ("gpu2", "began on gpu2") in heard
    # Nobody listens any more, so nobody speaks.
    for _ in range(100):
        if not chief.run("pgrep -f hosts.host_repor[t]").stdout:
            return
        time.sleep(0.05)
    pytest.fail("the report goes on on the host")


def test_the_newest_checkpoint_comes_here_verified_and_from_another_host_when_the_chief_is_gone(
    lab: Any, attached: Callable[..., AttachedHost], tmp_path: Path
) -> None:
    machine, into = lab.boot("gpu1"), tmp_path / "checkpoints"
    here, there = tmp_path / "run", "/srv/liftgate/runs/r1/checkpoints"
    folder = CheckpointFolder(here, binding={})
    gone = attached(machine).model_copy(update={"name": "gpu0", "port": 1})
    attachment = Attachment.of("r1", (gone, attached(machine, index=1)))
    with pytest.raises(TrainingError, match="gpu0 cannot be reached"):
        fetch_checkpoint(attachment, into)

    first = folder.save({"w": np.arange(500_000)}, step=100)
    machine.copy(here, there)
    fetched = fetch_checkpoint(attachment, into)

    assert fetched == into / first.name
    assert read_checkpoint(fetched).step == 100
    before = fetched.stat().st_ino
    assert fetch_checkpoint(attachment, into) == fetched
    assert fetched.stat().st_ino == before

    # A fetch that was cut off goes on: what it has already is not asked for again, as its wrong bytes show.
    second = folder.save({"w": np.arange(500_000)}, step=200)
    machine.copy(here, there)
    size, changed = machine.run(f"stat -c '%s %Y' {there}/{second.name}").stdout.split()
    partial = into / f".{second.name}.{size}.{changed}.partial"
    partial.write_bytes(b"x" * 1_000_000)
    with pytest.raises(IntegrityError, match=r"step-0000000200\.checkpoint of host gpu1 refused"):
        fetch_checkpoint(attachment, into)
    partial.write_bytes(second.read_bytes()[:1_000_000])
    assert fetch_checkpoint(attachment, into) == into / second.name
    assert sorted(path.name for path in into.iterdir()) == [first.name, second.name]


def test_the_curves_of_a_run_are_shown_here_and_nothing_stays_on_the_host(
    lab: Any, attached: Callable[..., AttachedHost]
) -> None:
    machine = lab.boot("gpu1")
    machine.run("mkdir -p /srv/liftgate/runs/r1/events")

    with remote_board(attached(machine), run_id="r1") as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}data/environment", timeout=30) as page:
            assert "/srv/liftgate/runs/r1/events" in json.load(page)["data_location"]

    for _ in range(100):
        if not machine.run("pgrep -f hosts.board_progra[m]").stdout:
            return
        time.sleep(0.05)
    pytest.fail("TensorBoard goes on on the host")


def test_a_host_whose_key_is_not_pinned_is_not_asked_again(lab: Any, attached: Callable[..., AttachedHost]) -> None:
    machine = lab.boot("gpu1")

    with RunWatch([attached(machine, pinned="")], every_seconds=0.1) as watch:
        (view,) = eventually(watch, lambda views: bool(views[0].trouble))

    assert isinstance(view.refusal, TrustError)
    assert "its key is not pinned" in view.trouble
