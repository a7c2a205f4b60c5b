"""Run a command to its end and start it again when it died: what stays beside a training for a week.

Its place in the flow: `python -m training_cluster.hosts.host_side run` on a training host, one a run. A command
that a signal ended, or that says it lost a peer, is started again after a pause: so all hosts of a run come
together again from the last checkpoint. A checkpoint at which it was asked to end, success and real errors end it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from artifact_sync.durable import write_durably
from training_cluster.cluster import PEER_LOST_EXIT_CODE
from training_cluster.hosts.launch_folder import LaunchFolder, try_lock

_POLL_SECONDS = 0.05
_LOCK_TRIES = 20


@dataclass(frozen=True)
class Restarts:
    """How a command that died is started again.

    Attributes:
        limit: so often in a row without a new checkpoint between; 0 never starts it again.
        first_pause_seconds: before the first of these; each next one waits twice as long.
        longest_pause_seconds: but no longer than this.
    """

    limit: int = 10
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0

    def pause_seconds(self, fruitless: int) -> float:
        """Return the pause after so many deaths in a row that brought no new checkpoint."""
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** max(0, fruitless - 1))


USUAL_RESTARTS = Restarts()
"""A host has some minutes to come back before the others end."""


def supervise(
    folder: LaunchFolder,
    command: Sequence[str],
    *,
    run_dir: Path,
    launch_id: str = "",
    follows: str | None = None,
    restarts: Restarts = USUAL_RESTARTS,
) -> int | None:
    """Run `command` to its end as the holder of the folder's lock and return its exit code.

    SIGTERM and SIGINT are handed on to the command. Returns None, having done nothing, when another
    supervisor holds the lock, or when `follows` is given and is not the newest launch any more: of
    any number of starts exactly one runs, also when that one has ended before another gets its turn.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock_patiently(lock) or follows not in (None, folder.launch_id or ""):
            return None
        for stale in ("exit_code", "command.pid", "restarts"):
            (folder.path / stale).unlink(missing_ok=True)
        write_durably(folder.path / "launch_id", f"{launch_id}\n".encode())
        code = _Supervisor(folder, command, run_dir=run_dir, restarts=restarts, lock=lock).run()
        _note(folder.path / "exit_code", code)
        return code
    finally:
        os.close(lock)


@dataclass
class _Supervisor:
    folder: LaunchFolder
    command: Sequence[str]
    run_dir: Path
    restarts: Restarts
    lock: int
    process: subprocess.Popen[bytes] | None = None
    asked: list[int] = field(default_factory=list)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hand_on)
        fruitless, newest, count = 0, _newest_checkpoint(self.run_dir), 0
        while True:
            code = self._run_once()
            if self._ends_with(code):
                return code
            before, newest = newest, _newest_checkpoint(self.run_dir)
            fruitless = fruitless + 1 if newest == before else 1
            if fruitless > self.restarts.limit:
                self._say(f"{_how(code)}; not started again after {self.restarts.limit} times without a new checkpoint")
                return code
            pause, count = self.restarts.pause_seconds(fruitless), count + 1
            self._say(f"{_how(code)}; starting again in {pause:g} s from {newest or 'the beginning'}")
            if not self._pause(pause):
                return code
            _note(self.folder.path / "restarts", count)

    def _ends_with(self, code: int) -> bool:
        may_go_on = code < 0 or code == PEER_LOST_EXIT_CODE
        return not may_go_on or not self.restarts.limit or self._is_asked_to_end()

    def _is_asked_to_end(self) -> bool:
        return bool(self.asked) or self.folder.end_requested.exists()

    def _run_once(self) -> int:
        with self.folder.log.open("ab") as log:
            # The command holds the lock too, so that it counts as running when only its supervisor is
            # killed; a session of its own gives it a process group that can be killed as a whole.
            self.process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self.lock,),
                env={**os.environ, **self.folder.environment()},
                # By the command itself: whoever kills its supervisor the moment it runs can still end it.
                preexec_fn=self._write_pid,  # noqa: PLW1509 - this process has one thread
            )
        pid = self.process.pid
        if self.asked:
            signal_process(pid, self.asked[-1])
        # Until it is waited for, the kernel keeps its id: nobody reads that of another process from the file.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        (self.folder.path / "command.pid").unlink(missing_ok=True)
        # What it has started would hold its ports and the lock.
        signal_process(-pid, signal.SIGKILL)
        return self.process.wait()

    def _write_pid(self) -> None:
        # On a full disk it can be ended only with its machine; that it trains is worth more.
        with contextlib.suppress(OSError):
            (self.folder.path / "command.pid").write_text(f"{os.getpid()}\n")

    def _hand_on(self, number: int, _frame: object) -> None:
        self.asked.append(number)
        if self.process is not None and self.process.returncode is None:
            signal_process(self.process.pid, number)

    def _pause(self, seconds: float) -> bool:
        """Wait, and return whether nobody wants the command to end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._is_asked_to_end():
            time.sleep(_POLL_SECONDS)
        return not self._is_asked_to_end()

    def _say(self, text: str) -> None:
        # The disk may be full: that the training goes on does not hang on this line.
        with contextlib.suppress(OSError), self.folder.log.open("a") as log:
            log.write(f"liftgate: {text}\n")


def signal_process(pid: int, number: int) -> None:
    """Send a signal to a process, or to a group by its negative id; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _note(path: Path, number: int) -> None:
    # On a full disk the number is missing, which reads as "killed"; the training itself goes on all the same.
    with contextlib.suppress(OSError):
        write_durably(path, f"{number}\n".encode())


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else "a peer was lost"


def _newest_checkpoint(run_dir: Path) -> str:
    return max((path.name for path in run_dir.glob("checkpoints/step-*.checkpoint")), default="")


def _lock_patiently(descriptor: int) -> bool:
    # Somebody who only looks whether it is running holds the lock for an instant.
    for _ in range(_LOCK_TRIES):
        if try_lock(descriptor):
            return True
        time.sleep(_POLL_SECONDS)
    return False
