"""`agent --back`: obeyed by an agent that runs, by one that starts, and instead of one that hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync.clock import SystemClock
from artifact_sync.errors import RefusedError
from serving.agent_loop import LOCK_NAME, Wakeup, only_agent, run_agent
from serving.agent_takeover import end_owner, lock_owner, return_now
from serving.back_request import BackRequest, BackRequests

HANG = """
import sys, time
from pathlib import Path
from serving.agent_loop import only_agent
with only_agent(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def lab(agent_lab: ModuleType, memory_path: Path) -> Any:
    """A host that serves version 2 and has 1 as the last good one."""
    lab = agent_lab.Lab(memory_path)
    lab.initialise()
    for version in (1, 2):
        lab.publish(version)
        lab.agent().tick()
    yield lab
    assert lab.server.faults == []


@pytest.fixture
def hanging(lab: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of this host's agent and obeys nobody."""
    command = [sys.executable, "-c", HANG, str(lab.settings.models_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def requests(lab: Any) -> BackRequests:
    return BackRequests(lab.model_dir)


def test_without_an_agent_the_command_does_it_itself(lab: Any) -> None:
    lab.store.is_away = True
    report = return_now(lab.agent(), reason="users complain")
    assert report is not None
    assert report.served == {"stable": 1}
    assert not requests(lab).is_pending()


def test_an_agent_that_runs_obeys_in_the_middle_of_its_pause(lab: Any) -> None:
    wakeup = Wakeup()
    settings = lab.settings.model_copy(update={"poll_seconds": 3600.0})
    runs = lab.agent(settings=settings, should_stop=wakeup.should_stop)
    reports: list[Any] = []
    first, second = threading.Event(), threading.Event()

    def on_report(report: Any) -> None:
        reports.append(report)
        (second if first.is_set() else first).set()

    def work() -> None:
        with only_agent(lab.settings.models_dir):
            run_agent(runs, wakeup=wakeup, on_report=on_report)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert first.wait(60)
        # The lock is a file's and both are one process here, so only the wait for the other one is new.
        assert return_now(lab.agent(), reason="users complain", grace_seconds=60) is None
        assert second.wait(60)
    finally:
        wakeup.stop()
        thread.join()
    assert lab.server.labels == {"stable": 1}
    assert lab.acknowledgements(2)[-1].detail == "users complain"


def test_a_request_cuts_a_wait_for_a_load_short_and_is_obeyed_at_once(lab: Any) -> None:
    lab.server.stuck.add(3)
    lab.publish(3)
    real, asked = lab.server.status, [0]

    def status(model: str) -> Any:
        asked[0] += 1
        if asked[0] == 12:
            lab.store.is_away = True
            lab.agent().request_return(reason="users complain")
        return real(model)

    lab.server.status = status
    report = lab.agent().tick()
    assert lab.clock.monotonic() < lab.settings.load_timeout_seconds
    assert lab.server.labels == {"stable": 1}, report
    assert not requests(lab).is_pending()


def test_a_request_cuts_a_pull_short(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.publish(3)
    real, opened = lab.registry.open_blob, []

    def open_blob(sha256: str) -> Any:
        if not opened:
            lab.agent().request_return(reason="users complain")
        opened.append(sha256)
        return real(sha256)

    monkeypatch.setattr(lab.registry, "open_blob", open_blob)
    report = lab.agent().tick()
    # Release 3 is newer than what was left, so it is taken once the way back is done.
    assert [step.error for step in report.steps if step.name == "PullVersion"][-1] == ""
    assert lab.state()["withdrawal"] is None
    assert lab.server.labels == {"stable": 3}


def test_an_agent_that_starts_obeys_before_it_asks_the_bucket(lab: Any) -> None:
    lab.agent().request_return(reason="users complain")
    asked: list[dict[str, int]] = []

    class Trust:
        def refresh(self) -> Any:
            asked.append(lab.server.labels)
            return lab.reader().refresh()

    lab.agent(trust=Trust()).tick()
    assert asked == [{"stable": 1}]


def test_a_hanging_agent_is_ended_and_its_place_taken(lab: Any, hanging: subprocess.Popen[str]) -> None:
    assert lock_owner(lab.settings.models_dir / LOCK_NAME) == hanging.pid
    report = return_now(lab.agent(), reason="users complain", grace_seconds=0.1)
    assert report is not None
    assert report.served == {"stable": 1}
    assert hanging.wait(10) == -signal.SIGKILL


def test_only_the_holder_of_the_lock_is_ended(lab: Any) -> None:
    path = lab.settings.models_dir / LOCK_NAME
    path.write_text("1\n")
    assert lock_owner(path) is None
    end_owner(lab.settings.models_dir)
    with only_agent(lab.settings.models_dir):
        assert lock_owner(path) == os.getpid()
        end_owner(lab.settings.models_dir)


def test_a_return_that_nobody_can_do_says_so_and_stays_asked_for(
    lab: Any, hanging: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", forbidden)
        with pytest.raises(RefusedError, match=f"kill -9 {hanging.pid}"):
            return_now(lab.agent(), reason="users complain", grace_seconds=0.1)
    assert requests(lab).is_pending()
    with pytest.raises(RefusedError, match=r"is not done after 0\.3 s"):
        return_now(lab.agent(), reason="users complain", timeout_seconds=0.3)


def test_a_request_is_about_one_release_and_obeyed_once(lab: Any) -> None:
    lab.agent().request_return(reason="users complain")
    data = (lab.model_dir / ".back-request.json").read_bytes()
    lab.agent().tick()
    assert lab.server.labels == {"stable": 1}
    (lab.model_dir / ".back-request.json").write_bytes(data)
    lab.agent().tick()
    assert lab.server.labels == {"stable": 1}, "not from 1 to something else"
    lab.publish(3)
    lab.agent().tick()
    (lab.model_dir / ".back-request.json").write_bytes(data)
    assert lab.agent().tick().served == {"stable": 3}, "that was about release 2"
    assert not requests(lab).is_pending()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff"])
def test_a_request_that_cannot_be_read_is_dropped(lab: Any, data: bytes) -> None:
    (lab.model_dir / ".back-request.json").write_bytes(data)
    assert lab.agent().tick().served == {"stable": 2}
    assert not requests(lab).is_pending()


def test_a_request_is_a_record(lab: Any) -> None:
    release = lab.agent().request_return(reason="users complain")
    document = json.loads((lab.model_dir / ".back-request.json").read_bytes())
    assert (document["release"], document["reason"]) == (release, "users complain")
    now = SystemClock().now()
    other = BackRequest(model="shapes", release=release, reason="again", at=now)
    requests(lab).write(other)
    assert requests(lab).read() == other


def test_without_another_good_version_nothing_is_asked_for(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = agent_lab.Lab(memory_path)
    lab.initialise()
    with pytest.raises(RefusedError, match="no other good version"):
        return_now(lab.agent(), reason="users complain")
    lab.publish(1)
    lab.agent().tick()
    with pytest.raises(RefusedError, match="no other good version"):
        return_now(lab.agent(), reason="users complain")
    assert not requests(lab).is_pending()
