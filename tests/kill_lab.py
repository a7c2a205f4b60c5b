"""kill -9 at every write: a forked child acts, and dies before or after its k-th write.

Its place in the flow: the kill sweeps run a verb in such a child, and look at what it left.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from artifact_sync.store import ObjectInfo, ObjectStore


class Killer:
    """Ends its process before or after the k-th write, counted from 1."""

    def __init__(self, *, effect: int, is_before: bool) -> None:
        self._effect, self._is_before = effect, is_before
        self._count = 0
        self._lock = threading.Lock()

    def around(self, write: Callable[[], None]) -> None:
        with self._lock:
            self._count += 1
            is_it = self._count == self._effect
            if is_it and self._is_before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                write()
            finally:
                if is_it:
                    os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, write: Callable[..., None]) -> Callable[..., None]:
        return lambda *args, **options: self.around(lambda: write(*args, **options))


class KillingStore:
    """A store each of whose writes may be the last thing that its process does."""

    def __init__(self, store: ObjectStore, killer: Killer) -> None:
        self._store, self._killer = store, killer

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        self._killer.around(lambda: self._store.create(key, body, sha256=sha256))

    def replace(self, key: str, body: bytes) -> None:
        self._killer.around(lambda: self._store.replace(key, body))

    def open(self, key: str) -> BinaryIO:
        return self._store.open(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)


def in_child(act: Callable[[], object]) -> int:
    """Run `act` in a forked child; return its pid."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return child


def was_killed(child: int) -> bool:
    """Wait for a child; return whether it was killed rather than done."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
    return False
