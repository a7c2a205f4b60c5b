"""Bring a directory home over SFTP: resumable, and no file gets its name before its digest is right.

Its place in the flow: `SshTransport.fetch_directory` opens the connection and hands it here. The
network may be cut and this process killed anywhere: fetching again goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import paramiko

from artifact_sync.durable import fsync_directory
from artifact_sync.errors import CapacityError, IntegrityError
from artifact_sync.records import FileEntry, Manifest

_CHUNK_BYTES = 1 << 20
_PARTIAL_DIRECTORY = ".partial"
_CONCURRENT_READS = 64


class SftpFetch:
    """One remote directory and the local one that is to become equal to it.

    Args:
        sftp: an open SFTP session.
        remote: the directory on the host.
        local: the directory here; it is made when missing.
        host: the host's name, for messages.
    """

    def __init__(self, sftp: paramiko.SFTPClient, remote: PurePosixPath, local: Path, *, host: str) -> None:
        self._sftp = sftp
        self._remote = remote
        self._local = local
        self._host = host

    def run(self, manifest: Manifest, *, last: str | None, progress: Callable[[int, int], None] | None) -> int:
        """Fetch the files of `manifest` that are not there yet, `last` as the last; return the bytes moved.

        Raises:
            CapacityError: the disk has no room for what is missing.
            IntegrityError: a file is not what the manifest says.
        """
        missing = [entry for entry in manifest.files if not _is_there(self._local / entry.path, entry)]
        missing.sort(key=lambda entry: entry.path == last)
        missing_bytes = sum(entry.size_bytes for entry in missing)
        require_space(self._local, missing_bytes)
        partials = self._local / _PARTIAL_DIRECTORY
        partials.mkdir(exist_ok=True)
        moved, done = 0, manifest.size_bytes - missing_bytes
        for entry in missing:
            source = self._remote / entry.path
            moved += append_rest(self._sftp, source, partials / entry.sha256, size_bytes=entry.size_bytes)
            self._check_digest(partials / entry.sha256, entry)
            _settle(partials / entry.sha256, self._local / entry.path)
            done += entry.size_bytes
            if progress is not None:
                progress(done, manifest.size_bytes)
        shutil.rmtree(partials)
        return moved

    def _check_digest(self, partial: Path, entry: FileEntry) -> None:
        found = _sha256(partial)
        if found == entry.sha256:
            return
        size_bytes = partial.stat().st_size
        # A wrong start would be gone on with for ever.
        partial.unlink()
        raise IntegrityError(
            f"{entry.path} from host {self._host} refused: it has {size_bytes} bytes with digest {found[:12]}…, the "
            f"run says {entry.size_bytes} bytes with {entry.sha256[:12]}…. It changed while it was fetched, or the "
            "disk is failing. Collect again; if that repeats, look at the host's disk."
        )


def append_rest(sftp: paramiko.SFTPClient, remote: PurePosixPath, partial: Path, *, size_bytes: int) -> int:
    """Append to `partial` what it lacks of a remote file, durably, and return how many bytes that were.

    Raises:
        FileNotFoundError: the remote file is gone.
    """
    moved = 0
    with sftp.open(str(remote), "rb") as source, partial.open("ab") as target:
        offset = target.tell()
        source.seek(offset)
        source.prefetch(size_bytes, max_concurrent_requests=_CONCURRENT_READS)
        while offset + moved < size_bytes:
            data = source.read(min(_CHUNK_BYTES, size_bytes - offset - moved))
            if not data:
                break
            target.write(data)
            moved += len(data)
        target.flush()
        os.fsync(target.fileno())
    return moved


def require_space(directory: Path, needed_bytes: int) -> None:
    """Make a directory, and see that its disk has room.

    Raises:
        CapacityError: it has not.
    """
    directory.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(directory).free
    if needed_bytes > free_bytes:
        raise CapacityError(
            f"Fetching into {directory} refused: {needed_bytes} bytes are needed and {free_bytes} are free. "
            "Make room, or set runs_dir to a larger disk."
        )


def _settle(partial: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(path)
    fsync_directory(path.parent)


def _is_there(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size_bytes and _sha256(path) == entry.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
