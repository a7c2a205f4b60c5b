"""The agent's process: one per models directory, a tick now and then, an end between two steps.

Its place in the flow: `liftgate agent` builds the collaborators and calls `run_agent`. SIGTERM and
SIGINT end it between steps, SIGHUP makes it look at once. Errors of a tick are one line in the log
and never end the loop: what is served does not depend on it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from artifact_sync.errors import LiftgateError, RefusedError, SettingsError
from serving.agent import Agent
from serving.tick_report import TickReport

_LOG = logging.getLogger("liftgate.agent")
LOCK_NAME = ".agent.lock"
_LOOK_SECONDS = 0.1


class Wakeup:
    """The process's signals: whether to stop, and a sleep that they cut short.

    Plain flags, looked at often: a signal's handler may run while the main thread holds the lock of
    a `threading.Event`, and would wait for it for ever.
    """

    def __init__(self) -> None:
        self._is_stopping = False
        self._is_woken = False

    def should_stop(self) -> bool:
        """Return whether the process was asked to end."""
        return self._is_stopping

    def stop(self) -> None:
        """Ask the process to end between two steps."""
        self._is_stopping = True

    def wake(self) -> None:
        """Cut the present sleep, or the next one, short."""
        self._is_woken = True

    def sleep(self, seconds: float, *, is_wanted: Callable[[], bool] = lambda: False) -> bool:
        """Wait for `seconds`, for a signal or until `is_wanted`; return whether the wait was cut short."""
        deadline = time.monotonic() + seconds
        while not (is_cut := self._is_stopping or self._is_woken or is_wanted()) and time.monotonic() < deadline:
            time.sleep(max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic())))
        self._is_woken = False
        return is_cut

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP while inside; only the main thread can."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            (self.wake if number == signal.SIGHUP else self.stop)()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def only_agent(models_dir: Path) -> Iterator[None]:
    """Hold the lock of `models_dir`; it is given back even by kill -9.

    Raises:
        RefusedError: another agent works there.
        SettingsError: the directory cannot be made or written.
    """
    path = models_dir / LOCK_NAME
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SettingsError(
            f"The agent cannot use models_dir {models_dir}: {error.strerror}. Create it and let this user write there."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise RefusedError(
                f"Agent refused: process {owner} is the agent of {models_dir} already. Stop it first, or give this "
                "one a models_dir and a model server of its own. `kill -HUP` makes a running agent look at once."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def run_agent(agent: Agent, *, wakeup: Wakeup, on_report: Callable[[TickReport], None]) -> None:
    """Tick until asked to stop; tell each report to `on_report`.

    Make the agent with `should_stop=wakeup.should_stop`, so that a step that waits ends too.
    """
    while not wakeup.should_stop():
        try:
            on_report(agent.tick())
        except LiftgateError as error:
            _LOG.error("%s", error)
        _pause(agent, wakeup)


def _pause(agent: Agent, wakeup: Wakeup) -> None:
    """Wait for the next tick; meanwhile watch over a new version, and obey a request to go back at once."""
    settings = agent.settings
    left_seconds = pause_seconds(settings.poll_seconds, jitter=settings.poll_jitter)
    while left_seconds > 0 and not wakeup.should_stop():
        part_seconds = min(left_seconds, settings.watch_seconds) if agent.is_watching() else left_seconds
        if wakeup.sleep(part_seconds, is_wanted=agent.is_request_pending):
            return
        left_seconds -= part_seconds
        try:
            if left_seconds > 0 and agent.must_return():
                return
        except LiftgateError as error:
            _LOG.error("%s", error)


def pause_seconds(poll_seconds: float, *, jitter: float) -> float:
    """Return a pause between (1 - jitter) and (1 + jitter) times `poll_seconds`."""
    return poll_seconds * (1.0 + jitter * secrets.SystemRandom().uniform(-1.0, 1.0))
