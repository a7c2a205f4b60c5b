"""The agent's process: one a directory, errors that do not end it, signals that do."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from artifact_sync.errors import RefusedError, SettingsError, StoreError
from serving.agent_loop import Wakeup, only_agent, pause_seconds, run_agent

HOLD = """
import sys
from pathlib import Path
from serving.agent_loop import only_agent
with only_agent(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Ticks:
    """An agent whose ticks are given."""

    def __init__(self, *answers: Any, poll_seconds: float = 0.001) -> None:
        self.settings = SimpleNamespace(poll_seconds=poll_seconds, poll_jitter=0.5, watch_seconds=0.001)
        self.answers = list(answers)
        self.looks: list[Any] = []
        self.requests: list[bool] = []

    def is_watching(self) -> bool:
        return bool(self.looks)

    def is_request_pending(self) -> bool:
        return self.requests.pop(0) if self.requests else False

    def must_return(self) -> bool:
        answer = self.looks.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    def tick(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def run(agent: Ticks, wakeup: Wakeup, *, until: int) -> list[Any]:
    seen: list[Any] = []

    def on_report(report: Any) -> None:
        seen.append(report)
        if len(seen) == until:
            wakeup.stop()

    run_agent(agent, wakeup=wakeup, on_report=on_report)
    return seen


def test_the_loop_ticks_until_it_is_asked_to_stop() -> None:
    agent = Ticks("a", "b", "c", "never")
    assert run(agent, Wakeup(), until=3) == ["a", "b", "c"]
    assert agent.answers == ["never"]


def test_an_error_is_one_line_in_the_log_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="liftgate.agent"):
        assert run(Ticks("a", StoreError("The bucket is away."), "b"), Wakeup(), until=2) == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == ["The bucket is away."]


def test_a_fault_of_the_program_ends_the_process_so_that_somebody_sees_it() -> None:
    with pytest.raises(ZeroDivisionError):
        run(Ticks(ZeroDivisionError()), Wakeup(), until=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_loop_between_two_ticks(number: signal.Signals) -> None:
    wakeup = Wakeup()
    before = signal.getsignal(number)
    with wakeup.installed():
        agent = Ticks(lambda: os.kill(os.getpid(), number) or "done", "never", poll_seconds=3600)
        assert run(agent, wakeup, until=99) == ["done"]
    assert signal.getsignal(number) == before


def test_a_hangup_cuts_the_pause_short() -> None:
    wakeup = Wakeup()
    with wakeup.installed():
        agent = Ticks(lambda: os.kill(os.getpid(), signal.SIGHUP), "at once", poll_seconds=3600)
        assert run(agent, wakeup, until=2) == [None, "at once"]


def test_a_pause_is_used_to_watch_and_ends_when_a_version_must_go() -> None:
    agent = Ticks("a", "b", poll_seconds=3600)
    agent.settings.poll_jitter = 0
    agent.looks = [False, StoreError("The disk."), True]
    assert run(agent, Wakeup(), until=2) == ["a", "b"]
    assert agent.looks == []


def test_a_request_ends_a_pause_at_once() -> None:
    agent = Ticks("a", "b", poll_seconds=3600)
    agent.requests = [False, True]
    assert run(agent, Wakeup(), until=2) == ["a", "b"]


def test_pauses_differ_from_host_to_host_within_the_jitter() -> None:
    pauses = {pause_seconds(30, jitter=0.2) for _ in range(200)}
    assert len(pauses) > 100
    assert min(pauses) >= 24
    assert max(pauses) <= 36
    assert pause_seconds(30, jitter=0) == 30


def test_a_second_agent_on_a_directory_is_refused_and_told_which_is_the_first(tmp_path: Path) -> None:
    with (
        only_agent(tmp_path),
        pytest.raises(RefusedError, match=f"process {os.getpid()} is the agent of"),
        only_agent(tmp_path),
    ):
        pass
    with only_agent(tmp_path / "other"), only_agent(tmp_path):
        pass


def test_kill_9_gives_the_lock_back(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RefusedError, match=f"process {child.pid} "), only_agent(tmp_path):
            pass
        child.kill()
        child.wait()
        with only_agent(tmp_path):
            pass


def test_a_models_dir_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="models_dir"), only_agent(tmp_path / "file"):
        pass
