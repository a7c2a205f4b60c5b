"""Run a command so that it outlives whoever asked for it, and tell later whether it still runs and how it ended.

Its place in the flow: on a training host the playbook starts the trainer through here. What is known
of the command lies in a launch folder: `lock` is held as long as its supervisor or the command
lives, `command.pid` says whom to signal, `exit_code` how it ended, `log` what it said. A lock and
not a process id decides, because ids are used again and a lock is let go by the kernel, also after
kill -9.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.durable import write_durably
from artifact_sync.errors import TrainingError

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_PASSED_ON_PREFIXES = ("TF_", "CUDA_", "XLA_", "NVIDIA_", "LIFTGATE_")
_STOP_SECONDS = 300
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LAUNCH_TRIES = 20
_LAUNCH_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class LaunchFolder:
    """The folder that holds what is known of one detached command."""

    path: Path

    @property
    def log(self) -> Path:
        """What the command wrote on stdout and stderr, of all its starts."""
        return self.path / "log"

    @property
    def exit_code(self) -> int | None:
        """How the command ended, negative for a signal; None: it runs, was killed with its supervisor, or never ran."""
        return _read_number(self.path / "exit_code")

    @property
    def exists(self) -> bool:
        """Whether the command was ever started."""
        return (self.path / "lock").exists()

    @property
    def is_running(self) -> bool:
        """Whether the supervisor or the command lives."""
        with self._open_lock() as descriptor:
            return descriptor is not None and not _try_lock(descriptor)

    @property
    def command_pid(self) -> int | None:
        """The process id of the command, which is its process group's too; meaningful while it runs."""
        return _read_number(self.path / "command.pid")

    @property
    def launch_id(self) -> str | None:
        """The name of the newest start that took the lock."""
        try:
            return (self.path / "launch_id").read_text().strip()
        except FileNotFoundError:
            return None

    def log_tail(self, lines: int) -> tuple[str, ...]:
        """Return the last lines of the log, at most `lines`, reading at most 64 KiB."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - 65536))
                text = stream.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ()
        return tuple(line.rstrip() for line in text.splitlines()[-lines:])

    @contextmanager
    def _open_lock(self) -> Iterator[int | None]:
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def supervise(
    folder: LaunchFolder, command: Sequence[str], *, launch_id: str = "", follows: str | None = None
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
        for stale in ("exit_code", "command.pid"):
            (folder.path / stale).unlink(missing_ok=True)
        write_durably(folder.path / "launch_id", f"{launch_id}\n".encode())
        code = _run_locked(folder, command, lock=lock)
        write_durably(folder.path / "exit_code", f"{code}\n".encode())
        return code
    finally:
        os.close(lock)


def start_detached(folder: LaunchFolder, command: Sequence[str], *, name: str) -> bool:
    """Start `command` under a supervisor that lives on when this process and its session end.

    With systemd as the machine's first process the supervisor is the transient unit `name`: the
    service manager then owns it, and stops it in order when the machine goes down. Elsewhere it is
    a session of its own. Returns False when it was running already.

    Raises:
        TrainingError: the supervisor did not come up.
    """
    if folder.is_running:
        return False
    folder.path.mkdir(parents=True, exist_ok=True)
    before, launch_id = folder.launch_id, secrets.token_hex(8)
    supervisor = [sys.executable, "-m", "training_cluster.hosts.host_side", "run"]
    supervisor += ["--launch-dir", str(folder.path), "--launch-id", launch_id, "--follows", before or "", "--"]
    _spawn([*_launcher(name), *supervisor, *command], folder=folder)
    _wait_until_up(folder, before=before)
    return folder.launch_id == launch_id


def stop_detached(folder: LaunchFolder, *, grace_seconds: float) -> bool:
    """Ask the command to end with SIGTERM, and kill its whole process group after `grace_seconds`.

    Returns whether it was running.
    """
    if not folder.is_running:
        return False
    pid = _wait_for_command(folder)
    if pid is None:
        return True
    _signal(pid, signal.SIGTERM)
    if not _wait_for_end(folder, grace_seconds):
        _signal(-pid, signal.SIGKILL)
        _wait_for_end(folder, _START_SECONDS)
    return True


def _run_locked(folder: LaunchFolder, command: Sequence[str], *, lock: int) -> int:
    process: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        asked.append(number)
        if process is not None:
            _signal(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    with folder.log.open("ab") as log:
        # The command holds the lock too, so that it counts as running when only its supervisor is
        # killed; a session of its own gives it a process group that can be killed as a whole.
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,)
        )
    write_durably(folder.path / "command.pid", f"{process.pid}\n".encode())
    if asked:
        _signal(process.pid, asked[-1])
    return process.wait()


def _launcher(name: str) -> list[str]:
    """Return the command that runs what follows it apart from this session, and returns at once."""
    is_root = os.geteuid() == 0
    manager = Path("/run/systemd/system") if is_root else Path(f"/run/user/{os.geteuid()}/bus")
    if not manager.exists() or shutil.which("systemd-run") is None:
        return ["setsid", "--fork"]
    passed_on = [key for key in os.environ if key in _PASSED_ON or key.startswith(_PASSED_ON_PREFIXES)]
    return [
        *["systemd-run", *([] if is_root else ["--user"]), "--quiet", "--collect", f"--unit={name}"],
        *["--property=KillMode=mixed", f"--property=TimeoutStopSec={_STOP_SECONDS}"],
        f"--working-directory={Path.cwd()}",
        *[f"--setenv={key}" for key in sorted(passed_on)],
    ]


def _spawn(command: list[str], *, folder: LaunchFolder) -> None:
    environment = dict(os.environ)
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    with (folder.path / "launch.log").open("wb") as log:
        # A unit that has just ended keeps its name for a moment after it let go of the lock.
        for _ in range(_LAUNCH_TRIES):
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False
            )
            if done.returncode == 0:
                return
            time.sleep(_LAUNCH_PAUSE_SECONDS)


def _wait_until_up(folder: LaunchFolder, *, before: str | None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while folder.launch_id == before:
        if time.monotonic() >= deadline:
            said = (folder.path / "launch.log").read_text(errors="replace").strip()
            raise TrainingError(
                f"The training did not come up within {_START_SECONDS:.0f} s in {folder.path}. "
                f"The launcher said: {said or 'nothing'}. Put that right and start it again."
            )
        time.sleep(_POLL_SECONDS)


def _wait_for_command(folder: LaunchFolder) -> int | None:
    """Return the command's process id, which a supervisor that has just come up writes in a moment."""
    deadline = time.monotonic() + _START_SECONDS
    while folder.command_pid is None and folder.is_running and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return folder.command_pid


def _wait_for_end(folder: LaunchFolder, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while folder.is_running:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _lock_patiently(descriptor: int) -> bool:
    # Somebody who only looks whether it is running holds the lock for an instant.
    for _ in range(20):
        if _try_lock(descriptor):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
