"""Blocks of streamed datasets on a local disk, so that the second epoch reads no network.

Its place in the flow: a data source looks here before it asks the object store. Blocks are named by
their digests and believed by nothing else, so whatever a crash, another process or a failing disk
leaves behind costs a read from the store and no more.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOGGER = logging.getLogger(__name__)
_SUFFIX = ".block"
_STALE_SECONDS = 3600.0


class BlockCache:
    """A folder of blocks with a bound on its size; safe to use from several threads and processes.

    When it is full, the blocks in it stay: an epoch comes back to all of them, and to throw out what was
    read longest ago would throw out each just before its turn. Only blocks of other datasets make room.

    Args:
        directory: the folder; it is made when missing, and may hold blocks of several datasets.
        most_bytes: the bound.
        own: the digests of the dataset that is read.
    """

    def __init__(self, directory: Path, *, most_bytes: int, own: frozenset[str]) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._own = own
        self._is_writable = True
        self._is_full = False

    def open(self) -> None:
        """Count what is there, and remove what killed processes left unfinished."""
        with self._keeping_on("be used"):
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._locked() as total:
                total.write(self._counted())

    def get(self, digest: str) -> bytes | None:
        """Return a block's bytes as they lie there, or None; the caller compares the digest."""
        try:
            return self._path(digest).read_bytes()
        except OSError:
            return None

    def put(self, digest: str, data: bytes) -> None:
        """Keep a block if there is room for it; a full or failing disk ends the keeping, not the training."""
        if self._is_full or not self._is_writable:
            return
        with self._keeping_on("take more"):
            if not self._reserve(len(data)):
                self._is_full = True
                return
            temporary = self._directory / f".{digest}.{os.getpid()}.{time.monotonic_ns()}"
            try:
                temporary.write_bytes(data)
                path = self._path(digest)
                path.parent.mkdir(exist_ok=True)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                self._give_back(len(data))
                raise

    def drop(self, digest: str) -> None:
        """Remove a block that is not what its name says."""
        with self._keeping_on("be corrected"):
            size_bytes = self._path(digest).stat().st_size
            self._path(digest).unlink()
            self._give_back(size_bytes)
            self._is_full = False

    def _path(self, digest: str) -> Path:
        return self._directory / digest[:2] / f"{digest}{_SUFFIX}"

    def _reserve(self, size_bytes: int) -> bool:
        with self._locked() as total:
            used = total.read()
            if used + size_bytes > self._most_bytes:
                used -= self._make_room(used + size_bytes - self._most_bytes)
            fits = used + size_bytes <= self._most_bytes
            total.write(used + size_bytes if fits else used)
            return fits

    def _give_back(self, size_bytes: int) -> None:
        with self._locked() as total:
            total.write(max(0, total.read() - size_bytes))

    def _make_room(self, wanted_bytes: int) -> int:
        """Remove blocks of other datasets, the oldest first; return how many bytes that made free."""
        others = sorted((path.stat().st_mtime, path) for path in self._blocks() if path.stem not in self._own)
        freed = 0
        for _, path in others:
            if freed >= wanted_bytes:
                break
            freed += path.stat().st_size
            path.unlink()
        return freed

    def _counted(self) -> int:
        for path in self._directory.glob(".*.*.*"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        return sum(path.stat().st_size for path in self._blocks())

    def _blocks(self) -> Iterator[Path]:
        return self._directory.glob(f"??/*{_SUFFIX}")

    @contextmanager
    def _locked(self) -> Iterator[_Total]:
        """Hold the cache's count alone; the kernel lets go of it whatever ends this process."""
        descriptor = os.open(self._directory / "total", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Total(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _keeping_on(self, act: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            # Another process removed the block first.
            return
        except OSError as error:
            if self._is_writable:
                reason = "its disk is full" if error.errno == errno.ENOSPC else error.strerror
                _LOGGER.warning("The cache %s cannot %s: %s. Reading goes on without.", self._directory, act, reason)
            self._is_writable = False


class _Total:
    """The bytes in use, as the cache's file says."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> int:
        return int(os.pread(self._descriptor, 32, 0) or 0)

    def write(self, total: int) -> None:
        os.pwrite(self._descriptor, b"%-31d\n" % total, 0)
