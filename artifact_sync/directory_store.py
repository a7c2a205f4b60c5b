"""A directory that stands for the bucket: the same promises as S3, made with link(2) and fsync(2).

Its place in the flow: the demo, tests, and sites whose two halves share a file system. Keys map to
paths one to one (check_key allows plain names only, so no key leaves the root or hides). Bodies are
written under `.temporary/`, synced, and linked to their name; readers and listings see finished
objects only. A killed writer leaves a file in `.temporary/`; the next writers remove it after a day.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from artifact_sync.durable import fsync_directory, temporary_file
from artifact_sync.errors import (
    AlreadyExistsError,
    CapacityError,
    InputError,
    IntegrityError,
    LiftgateError,
    NotFoundError,
    StoreError,
)
from artifact_sync.store import ObjectInfo, check_key, check_prefix

LEFTOVER_SECONDS = 24 * 60 * 60
_TEMPORARY = ".temporary"
_CHUNK_BYTES = 1024 * 1024
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DirectoryStore:
    """An ObjectStore over a directory; several processes and hosts (over NFS) may use it at once.

    Args:
        root: the directory; it is made at the first write, and reads as empty before.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self.root)!r})"

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        """See ObjectStore.create."""
        path = self._path(key)
        with _translated(f"create {key}", root=self.root):
            if path.exists():
                raise AlreadyExistsError(_taken(key))
            with self._written(body, key=key, sha256=sha256) as temporary:
                self._place(temporary, path, key=key)

    def replace(self, key: str, body: bytes) -> None:
        """See ObjectStore.replace."""
        path = self._path(key)
        with _translated(f"replace {key}", root=self.root), self._written(body, key=key, sha256=None) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
            self._sync_parents(path)

    def open(self, key: str) -> BinaryIO:
        """See ObjectStore.open."""
        with _translated(f"open {key}", root=self.root):
            try:
                return self._path(key).open("rb")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFoundError(f"No object {key} in {self.root}.") from None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list."""
        check_prefix(prefix)
        with _translated(f"list {prefix!r}", root=self.root):
            yield from sorted(self._scan(prefix), key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """See ObjectStore.delete."""
        path = self._path(key)
        absent = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
        with _translated(f"delete {key}", root=self.root), suppress(*absent):
            path.unlink()
            # Directories stay: removing one could cut in on a writer who is about to use it.
            fsync_directory(path.parent)

    def _path(self, key: str) -> Path:
        return self.root.joinpath(*check_key(key).split("/"))

    @contextmanager
    def _written(self, body: bytes | Path, *, key: str, sha256: str | None) -> Iterator[Path]:
        """Yield a synced temporary file that holds `body`; it is removed unless it was renamed."""
        folder = self.root / _TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        with _opened_body(body) as source, temporary_file(folder) as (temporary, stream):
            digest = _copy(source, stream)
            if sha256 is not None and digest != sha256:
                raise IntegrityError(
                    f"{key} was not stored: the body's SHA-256 is {digest}, expected {sha256}. "
                    "The file changed since its manifest was made; make it anew."
                )
            stream.flush()
            os.fsync(stream.fileno())
            _remove_leftovers(folder, younger=temporary)
            yield temporary

    def _place(self, temporary: Path, path: Path, *, key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # link(2) fails with EEXIST where rename(2) would silently overwrite.
            os.link(temporary, path)
        except FileExistsError:
            raise AlreadyExistsError(_taken(key)) from None
        self._sync_parents(path)

    def _sync_parents(self, path: Path) -> None:
        # Up to the root: a directory that another writer made a moment ago may not be durable yet.
        for parent in path.parents:
            fsync_directory(parent)
            if parent == self.root:
                return

    def _scan(self, prefix: str) -> Iterator[ObjectInfo]:
        folders = [self.root.joinpath(*prefix.split("/")[:-1])]
        while folders:
            for entry in _entries(folders.pop()):
                key = Path(entry.path).relative_to(self.root).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    if key.startswith(prefix) or prefix.startswith(f"{key}/"):
                        folders.append(Path(entry.path))
                elif key.startswith(prefix):
                    # Deleted between the two calls: as if the listing had come a moment later.
                    with suppress(FileNotFoundError):
                        yield ObjectInfo(key=key, size_bytes=entry.stat().st_size)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextmanager
def _opened_body(body: bytes | Path) -> Iterator[Iterator[bytes]]:
    """Yield the chunks of `body`."""
    if isinstance(body, bytes):
        yield iter((body,))
        return
    try:
        source = body.open("rb")
    except OSError as error:
        raise InputError(f"Cannot read {body}: {error.strerror}.") from None
    with source:
        yield iter(lambda: source.read(_CHUNK_BYTES), b"")


def _copy(source: Iterator[bytes], stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    for chunk in source:
        digest.update(chunk)
        stream.write(chunk)
    return digest.hexdigest()


def _remove_leftovers(folder: Path, *, younger: Path) -> None:
    # Compared with a file written just now, so that the file system's own clock decides.
    oldest = younger.stat().st_mtime - LEFTOVER_SECONDS
    for leftover in folder.iterdir():
        with suppress(FileNotFoundError):
            if leftover.lstat().st_mtime < oldest:
                leftover.unlink()


def _taken(key: str) -> str:
    return f"Object {key} exists already and is never overwritten. Look at what it holds before deciding anew."


@contextmanager
def _translated(act: str, *, root: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours, once."""
    try:
        yield
    except LiftgateError:
        raise
    except OSError as error:
        word = error.strerror or str(error)
        if error.errno in _DISK_FULL:
            raise CapacityError(
                f"Cannot {act} in {root}: {word}. Nothing was stored; make room on that file system and try again."
            ) from None
        if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EXDEV}:
            raise StoreError(
                f"Cannot {act} in {root}: {word}. The directory must lie on one file system that has hard links."
            ) from None
        raise StoreError(
            f"Cannot {act} in {root}: {word}. Check that the directory is mounted and that this user may write there."
        ) from None
