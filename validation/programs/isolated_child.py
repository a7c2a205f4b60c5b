"""`python -m validation.programs.isolated_child ORDER [ARGUMENT]…`: run one program as nobody, limited and watched.

Its place in the flow: the first process inside the walls that isolation.py builds. It starts the program that holds
the model as its only child, ends it when it takes too long or too much memory, and, if the order asks for it, writes
an `Ending` with the files that were left behind on stdout. It imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from validation.programs.system_calls import PROGRAM, put_on

ANSWER_FD = 3
"""Where the program writes what it has to say, if the order asks for an Ending."""

_POLL_SECONDS, _SERVER_POLL_SECONDS = 0.01, 0.1
"""How often memory and time are looked at; a server is being timed meanwhile."""

_ANSWER_BYTES = 256 * 1024
_LISTED_FILES = 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ProcessLimits:
    """What the program may take; `memory_bytes` is what it really holds (resident), looked at all the time.

    Attributes:
        wall_seconds: from its start to its end; None for a server, which its owner ends.
        cpu_seconds: of all its threads together; None for a server.
        memory_bytes: resident memory.
        address_bytes: what it may ask for beyond that without touching it; libraries reserve some.
        file_bytes: the largest file that it may write.
        tasks: its threads (processes it may not start), together with everything else of the same user.
        open_files: its descriptors.
    """

    wall_seconds: float | None = 120.0
    cpu_seconds: int | None = 120
    memory_bytes: int = 4 * 1024**3
    address_bytes: int = 8 * 1024**3
    file_bytes: int = 1024**2
    tasks: int = 4096
    open_files: int = 256


@dataclass(frozen=True)
class Order:
    """What to run, as whom, within which limits.

    Attributes:
        command: the program and its arguments.
        user: the number of the user and group to become; None to stay who one is.
        scratch: the only place where the program can write, looked through when it has ended.
        is_reported: whether to write an Ending, and to give the program ANSWER_FD.
    """

    command: tuple[str, ...]
    limits: ProcessLimits
    user: int | None
    scratch: str
    is_reported: bool


@dataclass(frozen=True)
class Ending:
    """How the program ended; `signal` is 0 where it ended by itself, with `exit_code`."""

    stopped_for: Literal["time", "memory"] | None
    exit_code: int
    signal: int
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    answer: str
    written: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """Carry out the order and return 0, or for a server its exit code."""
    fields = json.loads(arguments[0])
    limits = ProcessLimits(**fields.pop("limits"))
    order = Order(**{**fields, "command": (*fields["command"], *arguments[1:]), "limits": limits})
    _die_with_parent()
    if order.user is not None:
        _become(order.user)
    before = frozenset(_files_under(Path(order.scratch))) if order.is_reported else frozenset()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _run(order, write_end)
        except OSError as error:
            os.write(2, f"{order.command[0]}: {error}\n".encode())
        finally:
            os._exit(127)
    os.close(write_end)
    ending = _watch(child, order, read_end, before)
    if order.is_reported:
        sys.stdout.write(json.dumps(asdict(ending)))
    return 0 if order.is_reported else ending.exit_code


def _run(order: Order, write_end: int) -> None:
    """Become the program; returns only if that fails."""
    _die_with_parent()
    if order.is_reported:
        # What the model's library prints must not look like an answer.
        os.dup2(2, 1)
        os.dup2(write_end, ANSWER_FD, inheritable=True)
    _limit(order.limits)
    put_on(PROGRAM)
    os.execv(order.command[0], order.command)  # noqa: S606  (no shell is the point)


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _die_with_parent() -> None:
    """Be killed when the parent ends, however it ends (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _limit(limits: ProcessLimits) -> None:
    wanted = [
        (resource.RLIMIT_AS, limits.memory_bytes + limits.address_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NPROC, limits.tasks),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ]
    if limits.cpu_seconds is not None:
        wanted.append((resource.RLIMIT_CPU, limits.cpu_seconds))
    for kind, value in wanted:
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _watch(child: int, order: Order, read_end: int, before: frozenset[str]) -> Ending:
    """Wait for the program's end, bring it about where a limit is passed, and see what it left behind."""
    limits, started = order.limits, time.monotonic()
    stopped_for: Literal["time", "memory"] | None = None
    answer, peak_bytes, is_open = bytearray(), 0, True
    while True:
        if is_open:
            ready, _, _ = select.select([read_end], [], [], _POLL_SECONDS)
            data = os.read(read_end, 65536) if ready else None
            is_open = data != b""
            answer += (data or b"")[: _ANSWER_BYTES - len(answer)]
        else:
            time.sleep(_POLL_SECONDS if order.is_reported else _SERVER_POLL_SECONDS)
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        resident_bytes = _resident_bytes(child)
        peak_bytes = max(peak_bytes, resident_bytes)
        if stopped_for is None and resident_bytes > limits.memory_bytes:
            stopped_for = "memory"
        elif stopped_for is None and limits.wall_seconds and time.monotonic() - started > limits.wall_seconds:
            stopped_for = "time"
        if stopped_for is not None:
            os.kill(child, signal.SIGKILL)
    while is_open and len(answer) < _ANSWER_BYTES and (data := os.read(read_end, 65536)):
        answer += data
    left = _files_under(Path(order.scratch)) if order.is_reported else iter(())
    return Ending(
        stopped_for=stopped_for,
        exit_code=os.waitstatus_to_exitcode(status),
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        seconds=round(time.monotonic() - started, 3),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
        memory_bytes=max(peak_bytes, usage.ru_maxrss * 1024),
        answer=answer.decode("utf-8", errors="replace"),
        written=tuple(islice((path for path in left if path not in before), _LISTED_FILES)),
    )


def _resident_bytes(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_bytes().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def _files_under(directory: Path) -> Iterator[str]:
    for parent, directories, files in os.walk(directory):
        yield from (str(Path(parent, name)) for name in (*directories, *files))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
