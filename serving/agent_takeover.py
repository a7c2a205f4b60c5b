"""Gets a return to the version before done in seconds, whatever the agent of this host is doing.

Its place in the flow: `liftgate agent --back WHY` writes the request and calls `return_now`. An agent
that runs obeys it between two steps. One that hangs, on a bucket that does not answer perhaps, is
killed: every step may be, and whoever comes next obeys the request before it asks the bucket.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from artifact_sync.errors import RefusedError
from serving.agent import Agent
from serving.agent_loop import LOCK_NAME, only_agent
from serving.tick_report import TickReport

_LOOK_SECONDS = 0.1


def return_now(
    agent: Agent, *, reason: str, grace_seconds: float = 5.0, timeout_seconds: float = 60.0
) -> TickReport | None:
    """Return this host to its version before; None when the agent that runs has done it.

    Args:
        agent: made for this process; it ticks when no other process is the agent.
        reason: why, for the acknowledgement.
        grace_seconds: how long the agent that runs may take before it is killed.
        timeout_seconds: how long to wait in all.

    Raises:
        RefusedError: there is no version to go back to, or it was not done in time.
    """
    models_dir = agent.settings.models_dir
    release = agent.request_return(reason=reason)
    began, has_killed = time.monotonic(), False
    while time.monotonic() - began < timeout_seconds:
        if agent.has_returned(release):
            return None
        try:
            with only_agent(models_dir):
                return agent.tick()
        except RefusedError:
            time.sleep(_LOOK_SECONDS)
        if not has_killed and time.monotonic() - began > grace_seconds and agent.is_request_pending():
            end_owner(models_dir)
            has_killed = True
    raise RefusedError(
        f"The return was asked for and is not done after {timeout_seconds:g} s. The request stays, and the agent obeys "
        "it when it can: look at its log, and at the model server's."
    )


def end_owner(models_dir: Path) -> None:
    """Kill the process that holds the lock of `models_dir`, if there is one.

    Raises:
        RefusedError: this user may not.
    """
    owner = lock_owner(models_dir / LOCK_NAME)
    if owner is None or owner == os.getpid():
        return
    try:
        os.kill(owner, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError:
        raise RefusedError(
            f"The agent, process {owner}, does not obey and this user may not end it. The request stays. "
            f"Run this as root, or end it yourself: kill -9 {owner}."
        ) from None


def lock_owner(path: Path) -> int | None:
    """Return the process that holds the lock on `path`, by what the kernel says (proc(5), /proc/locks)."""
    try:
        info = path.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    for line in lines:
        words = line.split()
        if "FLOCK" in words and "->" not in words and wanted in words:
            pid = int(words[words.index(wanted) - 1])
            return pid if pid > 0 else None
    return None
