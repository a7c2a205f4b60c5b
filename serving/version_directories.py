"""The version directories of one model on this host: verified, mended, removed; never half there.

Its place in the flow: the agent asks it which versions may be named to the model server. TensorFlow
Serving sees integer names only, so everything else here begins with a dot.

A directory counts as verified once every digest of its signed manifest was checked by this very
process; the result holds as long as no file's inode, size, mode, mtime and ctime change. That is
safe against copies that broke, tools that wrote, and users who may not become root: unlike mtime, a
ctime cannot be set. It is not safe against root, against a clock that is turned back, nor against a
disk that returns other bytes than were written; for the last, each start of the agent reads
everything again, and nothing of this is kept in a file that could be written along with the rest.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from artifact_sync.canonical import MAX_RECORD_BYTES
from artifact_sync.durable import TEMPORARY_PREFIX, fsync_directory, fsync_tree, write_durably
from artifact_sync.errors import IntegrityError, RecordError
from artifact_sync.manifest import verify_manifest
from artifact_sync.records import VersionRecord

_RECORDS = ".records"
_REMOVED = ".removed-"
_INCOMING = ".incoming-"
_MENDING = ".mending"

_Fingerprint = tuple[tuple[str, int, int, int, int, int], ...]


class VersionDirectories:
    """What lies under `<models>/<model>`; nothing is touched before a method is called."""

    def __init__(self, path: Path, *, model: str) -> None:
        self.path = path
        self._model = model
        self._judged: dict[int, tuple[str, _Fingerprint, IntegrityError | None]] = {}

    def directory(self, version: int) -> Path:
        """Return where a version lies, or would."""
        return self.path / str(version)

    @property
    def mending(self) -> Path:
        """Where a version is pulled to when its own directory is there but damaged."""
        return self.path / _MENDING

    def numbers(self) -> frozenset[int]:
        """Return the versions that have a directory."""
        names = [entry.name for entry in _entries(self.path) if entry.is_dir(follow_symlinks=False)]
        return frozenset(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    def record(self, version: int) -> VersionRecord | None:
        """Return the signed record that this version was pulled by, as far as this host remembers it."""
        try:
            data = self._record_path(version).read_bytes()
        except FileNotFoundError:
            return None
        try:
            record = VersionRecord.from_json(data[:MAX_RECORD_BYTES])
        except RecordError:
            return None
        return record if (record.model, record.version) == (self._model, version) else None

    def remember(self, record: VersionRecord) -> None:
        """Keep a signed record, so that the version can be verified while the bucket is away."""
        if self.record(record.version) != record:
            write_durably(self._record_path(record.version), record.to_json())

    def verify(self, record: VersionRecord) -> None:
        """Check a version's directory against its record, from memory where nothing changed.

        Raises:
            IntegrityError: it differs; the message names each file.
        """
        directory = self.directory(record.version)
        key = (record.manifest.sha256, _fingerprint(directory))
        judged = self._judged.get(record.version)
        if judged is None or judged[:2] != key:
            judged = (*key, _difference(directory, record))
            if _fingerprint(directory) != key[1]:
                raise IntegrityError(f"{directory} changed while it was verified. Find out what writes there.")
            self._judged[record.version] = judged
        if judged[2] is not None:
            raise judged[2]

    def is_verified(self, version: int) -> bool:
        """Return whether a version with a remembered record is what its record says."""
        record = self.record(version)
        if record is None or version not in self.numbers():
            return False
        try:
            self.verify(record)
        except IntegrityError:
            return False
        return True

    def mend(self, record: VersionRecord) -> None:
        """Make a damaged directory whole from the verified copy in `mending`, without ever taking it away.

        The server drops a version whose directory is missing when it looks, so files are replaced one
        by one by renames. A kill in between leaves a directory that is still damaged, and known to be.
        """
        source, target = self.mending / str(record.version), self.directory(record.version)
        wanted = {entry.path for entry in record.manifest.files}
        for found in sorted(target.rglob("*"), reverse=True):
            relative = found.relative_to(target).as_posix()
            if found.is_dir() and not found.is_symlink():
                if not any(path.startswith(f"{relative}/") for path in wanted):
                    found.rmdir()
            elif relative not in wanted:
                found.unlink()
        for path in sorted(wanted):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).replace(target / path)
        fsync_tree(target)
        shutil.rmtree(self.mending)
        self.verify(record)

    def remove(self, version: int) -> None:
        """Take a version away: one rename hides it whole, then its files go."""
        self._judged.pop(version, None)
        hidden = self.path / f"{_REMOVED}{version}-{secrets.token_hex(4)}"
        self.directory(version).rename(hidden)
        fsync_directory(self.path)
        shutil.rmtree(hidden)
        self._record_path(version).unlink(missing_ok=True)

    def leftovers(self, *, wanted: frozenset[int]) -> tuple[Path, ...]:
        """Return what interrupted steps left behind, except what a pull of `wanted` versions goes on with."""
        going_on = {f"{_INCOMING}{version}" for version in wanted}
        found = [
            Path(entry.path)
            for entry in _entries(self.path)
            if entry.name.startswith((_REMOVED, _MENDING))
            or (entry.name.startswith(_INCOMING) and entry.name not in going_on)
        ]
        for directory in (self.path, self.path / _RECORDS, self.path.parent):
            found += [Path(entry.path) for entry in _entries(directory) if entry.name.startswith(TEMPORARY_PREFIX)]
        return tuple(found)

    def clear(self, leftovers: tuple[Path, ...]) -> None:
        """Remove what `leftovers` returned."""
        for path in leftovers:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _record_path(self, version: int) -> Path:
        return self.path / _RECORDS / f"{version:06d}.json"


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _difference(directory: Path, record: VersionRecord) -> IntegrityError | None:
    try:
        verify_manifest(directory, record.manifest)
    except IntegrityError as error:
        return error
    return None


def _fingerprint(directory: Path) -> _Fingerprint:
    """Return what changes whenever a file does: relative path, inode, mode, size, mtime, ctime (ns)."""
    found = []
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(folder, name)
            info = path.lstat()
            found.append(
                (
                    path.relative_to(directory).as_posix(),
                    info.st_ino,
                    info.st_mode,
                    info.st_size,
                    info.st_mtime_ns,
                    info.st_ctime_ns,
                )
            )
    return tuple(sorted(found))
