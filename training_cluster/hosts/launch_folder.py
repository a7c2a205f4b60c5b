"""What is known of one detached command, as files: whether it runs, whom to signal, how it ended, what it said.

Its place in the flow: `supervision` writes these on a training host, `detached` and `host_side` read them.
`lock` is held as long as the supervisor or the command lives, `command.pid` says whom to signal, `exit_code`
how it ended, `restarts` how often it was started again, `end_requested` that it shall not be, `log` what it
said. A lock and not a process id decides, because ids are used again and a lock is let go by the kernel,
also after kill -9.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.durable import write_durably

_TAIL_BYTES = 65536


@dataclass(frozen=True)
class LaunchFolder:
    """The folder that holds what is known of one detached command."""

    path: Path

    @property
    def log(self) -> Path:
        """What the command wrote on stdout and stderr, of all its starts."""
        return self.path / "log"

    @property
    def environment_file(self) -> Path:
        """Variables for the command, as JSON that only its user may read: secrets stand on no command line."""
        return self.path / "environment.json"

    @property
    def end_requested(self) -> Path:
        """There while somebody wants the command to end: it is not started again."""
        return self.path / "end_requested"

    @property
    def exit_code(self) -> int | None:
        """How the command ended, negative for a signal; None: it runs, was killed with its supervisor, or never ran."""
        return _read_number(self.path / "exit_code")

    @property
    def restarts(self) -> int:
        """How often the supervisor has started the command again."""
        return _read_number(self.path / "restarts") or 0

    @property
    def exists(self) -> bool:
        """Whether the command was ever started."""
        return (self.path / "lock").exists()

    @property
    def is_running(self) -> bool:
        """Whether the supervisor or the command lives."""
        with self._open_lock() as descriptor:
            return descriptor is not None and not try_lock(descriptor)

    @property
    def command_pid(self) -> int | None:
        """The process id of the command, which is its process group's too; None between two starts."""
        return _read_number(self.path / "command.pid")

    @property
    def launch_id(self) -> str | None:
        """The name of the newest start that took the lock."""
        try:
            return (self.path / "launch_id").read_text().strip()
        except FileNotFoundError:
            return None

    @property
    def tf_config(self) -> str:
        """Who trains together, as TensorFlow's variable says it; empty for one alone."""
        try:
            return (self.path / "tf_config").read_text()
        except FileNotFoundError:
            return ""

    def environment(self) -> Mapping[str, str]:
        """Return the variables that the command gets beside its supervisor's."""
        together = {"TF_CONFIG": self.tf_config} if self.tf_config else {}
        try:
            given: dict[str, str] = json.loads(self.environment_file.read_bytes())
        except FileNotFoundError:
            given = {}
        return {**given, **together}

    def give_environment(self, variables: Mapping[str, str]) -> None:
        """Have the next start of the command get these variables, and nobody but its user read them."""
        write_durably(self.environment_file, json.dumps(dict(variables), sort_keys=True).encode(), mode=0o600)

    def log_tail(self, lines: int) -> tuple[str, ...]:
        """Return the last lines of the log, at most `lines`, reading at most 64 KiB."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
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


def try_lock(descriptor: int) -> bool:
    """Take the lock without waiting and return whether it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
