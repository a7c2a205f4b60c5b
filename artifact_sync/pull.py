"""Pull: a version's files from the bucket into `<models>/<model>/<version>/`, whole or not at all.

Its place in the flow: the serving agent pulls what a signed release names. The order is: room on the
disk → `.incoming-<version>/` → every digest checked while the bytes stream → fsync of files and
directories → one rename → fsync of the parent. The model server sees integer names only, so it never
sees a version that is not complete. A pull that was killed is finished by the next one, which keeps
the files that are already right; of concurrent pulls on one host one works and the others wait.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifact_sync.durable import fsync_directory, make_directory
from artifact_sync.errors import CapacityError, InputError, IntegrityError, NotFoundError, SettingsError
from artifact_sync.manifest import find_differences
from artifact_sync.records import FileEntry, Manifest, VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.transfer import Progress, ProgressCallback, run_all

RESERVE_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def pull_version(
    registry: Registry,
    version: VersionRecord,
    *,
    models_dir: Path,
    progress: ProgressCallback | None = None,
    reserve_bytes: int = RESERVE_BYTES,
    workers: int = 4,
) -> Path:
    """Return the directory of `version` after making sure that every byte in it is right.

    Args:
        registry: the model's part of the bucket; what comes from it is not believed.
        version: the record, from signed metadata.
        models_dir: `<models>/<model>`, made when missing.
        progress: told the bytes done and in all.
        reserve_bytes: what must stay free on the disk afterwards.
        workers: files in flight at once.

    Raises:
        CapacityError: not enough free disk; nothing was downloaded.
        IntegrityError: the bucket's bytes, or those of an existing directory, are not the signed ones.
        StoreError: the bucket cannot be used; pull again to go on.
        SettingsError: `models_dir` cannot be written.
    """
    if registry.model != version.model:
        raise InputError(f"Pull refused: the version is of model {version.model}, not of {registry.model}.")
    target = models_dir / str(version.version)
    with _translated(models_dir), _one_at_a_time(models_dir):
        if not os.path.lexists(target):
            incoming = incoming_path(models_dir, version=version.version)
            pull = _Pull(registry, version.manifest, incoming, progress=progress, workers=workers)
            pull.run(reserve_bytes=reserve_bytes)
            incoming.rename(target)
        else:
            _check_existing(target, version.manifest)
        fsync_directory(models_dir)
    return target


def incoming_path(models_dir: Path, *, version: int) -> Path:
    """Return where a version lies while it is not complete."""
    return models_dir / f".incoming-{version}"


class _Pull:
    """One download into an incoming directory."""

    def __init__(
        self,
        registry: Registry,
        manifest: Manifest,
        incoming: Path,
        *,
        progress: ProgressCallback | None,
        workers: int,
    ) -> None:
        self._registry = registry
        self._manifest = manifest
        self._incoming = incoming
        self._workers = workers
        self._progress = Progress(progress, total_bytes=manifest.size_bytes)
        self._stop = threading.Event()

    def run(self, *, reserve_bytes: int) -> None:
        """Leave the incoming directory complete, right and durable."""
        absent = self._keep_what_is_right()
        _check_room(
            self._incoming.parent, needed_bytes=sum(entry.size_bytes for entry in absent), reserve=reserve_bytes
        )
        self._progress.add(self._manifest.size_bytes - sum(entry.size_bytes for entry in absent))
        self._incoming.mkdir(exist_ok=True)
        for entry in absent:
            (self._incoming / entry.path).parent.mkdir(parents=True, exist_ok=True)
        run_all(self._fetch, absent, workers=self._workers, stop=self._stop)
        for directory, _, _ in os.walk(self._incoming, topdown=False):
            fsync_directory(Path(directory))

    def _keep_what_is_right(self) -> list[FileEntry]:
        """Remove whatever an earlier pull left unfinished; return what is still to be fetched."""
        if not os.path.lexists(self._incoming):
            return list(self._manifest.files)
        differences = find_differences(self._incoming, self._manifest)
        if differences.extra or differences.unfit or self._incoming.is_symlink():
            # Not ours: a pull leaves only its own files, some of them short.
            _remove(self._incoming)
            return list(self._manifest.files)
        for path in differences.changed:
            (self._incoming / path).unlink()
        absent = {*differences.missing, *differences.changed}
        self._sync_kept(absent)
        return [entry for entry in self._manifest.files if entry.path in absent]

    def _sync_kept(self, absent: set[str]) -> None:
        # The pull that wrote them may have been killed between its last write and its fsync.
        for entry in self._manifest.files:
            if entry.path not in absent:
                with (self._incoming / entry.path).open("rb") as stream:
                    os.fsync(stream.fileno())

    def _fetch(self, entry: FileEntry) -> None:
        path = self._incoming / entry.path
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as target:
                for chunk in self._checked_chunks(entry):
                    target.write(chunk)
                    self._progress.add(len(chunk))
                target.flush()
                os.fsync(target.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _checked_chunks(self, entry: FileEntry) -> Iterator[bytes]:
        """Yield the blob's bytes; the end comes only if all of them were right."""
        digest = hashlib.sha256()
        left_bytes = entry.size_bytes
        try:
            source = self._registry.open_blob(entry.sha256)
        except NotFoundError as error:
            raise IntegrityError(f"{_blame(entry)}: it is not in the bucket ({error}).") from None
        with source:
            # One byte more than stated tells a blob that is too long; no more is ever read of it.
            while chunk := source.read(min(_CHUNK_BYTES, left_bytes + 1)):
                if len(chunk) > left_bytes:
                    raise IntegrityError(f"{_blame(entry)}: it is longer than the {entry.size_bytes} bytes signed.")
                if self._stop.is_set():
                    raise InterruptedError(errno.EINTR, "another file failed")
                digest.update(chunk)
                left_bytes -= len(chunk)
                yield chunk
        if left_bytes:
            raise IntegrityError(f"{_blame(entry)}: it is {left_bytes} bytes short of the {entry.size_bytes} signed.")
        if digest.hexdigest() != entry.sha256:
            raise IntegrityError(f"{_blame(entry)}: its SHA-256 is {digest.hexdigest()}.")


def _blame(entry: FileEntry) -> str:
    return (
        f"File {entry.path} refused: the bucket's blob {entry.sha256} is not what was signed "
        "(delete it there and promote's push will bring it again)"
    )


def _check_existing(target: Path, manifest: Manifest) -> None:
    differences = find_differences(target, manifest)
    if target.is_symlink() or not target.is_dir():
        raise IntegrityError(f"{target} is not a directory of its own. Move it away and pull again.")
    if differences:
        raise IntegrityError(
            f"{target} is not what was signed: {differences}. "
            "When no model server uses it any more, move it away and pull again."
        )


def _check_room(models_dir: Path, *, needed_bytes: int, reserve: int) -> None:
    free_bytes = shutil.disk_usage(models_dir).free
    if free_bytes < needed_bytes + reserve:
        raise CapacityError(
            f"Pull refused: {needed_bytes:,} bytes are needed in {models_dir} and {reserve:,} must stay free, "
            f"but {free_bytes:,} are free. Remove versions that are no longer served, or give it a larger disk."
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def _one_at_a_time(models_dir: Path) -> Iterator[None]:
    """Hold the host's lock on this model's directory; it ends with the process, however that ends."""
    make_directory(models_dir)
    descriptor = os.open(models_dir / ".pull.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _translated(models_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        word = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            raise CapacityError(
                f"Pull into {models_dir} stopped: {word}. What is complete there is untouched; "
                "make room and pull again, it goes on where it stopped."
            ) from None
        raise SettingsError(
            f"Cannot pull into {models_dir}: {word} ({error.filename}). "
            "Check that models_dir exists on a healthy disk and that this user may write there."
        ) from None
