"""A directory's manifest: made once at the training site, and every difference from it named.

Its place in the flow: the trainer builds the manifest of its export; push checks the export against
it, pull and the agent check what lies on the serving host. Only plain files count: links, devices
and names that cannot travel are refused. Empty directories carry nothing and are not looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from artifact_sync.errors import InputError, IntegrityError
from artifact_sync.records import FileEntry, Manifest, RelativePath

MAX_NAMED = 50
_PLAIN_PATH: TypeAdapter[str] = TypeAdapter(RelativePath)
_HASHING_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Differences:
    """How a directory differs from a manifest; each part is sorted, paths are relative.

    `unfit` are entries that no manifest can hold, each with its reason: "a/b: a link".
    """

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.changed or self.unfit)

    def __str__(self) -> str:
        named = [
            *(f"missing {path}" for path in self.missing),
            *(f"extra {path}" for path in self.extra),
            *(f"changed {path}" for path in self.changed),
            *(f"refused {path}" for path in self.unfit),
        ]
        return _capped(named)


def build_manifest(directory: Path) -> Manifest:
    """Return the manifest of every file under `directory`.

    Raises:
        InputError: there is no file, or an entry is a link, a device, unreadable, or has a name
            that cannot travel; each is named.
    """
    found, unfit = _scan(directory)
    entries: list[FileEntry] = []
    for path, entry in zip(found, _hash_all(directory, found), strict=True):
        if isinstance(entry, FileEntry):
            entries.append(entry)
        else:
            unfit.append(f"{path}: {entry}")
    if unfit:
        raise InputError(
            f"No manifest of {directory}: {_capped(sorted(unfit))}. "
            "Only plain readable files with plain names can cross; remove or replace these."
        )
    if not entries:
        raise InputError(f"No manifest of {directory}: there is no file in it.")
    return Manifest(files=tuple(entries))


def find_differences(directory: Path, manifest: Manifest) -> Differences:
    """Return every way in which `directory` is not what `manifest` says; all bytes are read."""
    found, unfit = _scan(directory)
    expected = {entry.path: entry for entry in manifest.files}
    common = sorted(expected.keys() & set(found))
    changed: list[str] = []
    for path, entry in zip(common, _hash_all(directory, common, expected=expected), strict=True):
        if not isinstance(entry, FileEntry):
            unfit.append(f"{path}: {entry}")
        elif entry != expected[path]:
            changed.append(path)
    # An entry that is there in an unfit form is told once, not also as missing.
    unfit_paths = {line.rpartition(": ")[0] for line in unfit}
    return Differences(
        missing=tuple(sorted(expected.keys() - set(found) - unfit_paths)),
        extra=tuple(sorted(set(found) - expected.keys())),
        changed=tuple(changed),
        unfit=tuple(sorted(unfit)),
    )


def verify_manifest(directory: Path, manifest: Manifest) -> None:
    """Read every byte under `directory` and compare it with `manifest`.

    Raises:
        IntegrityError: they differ; the message names each missing, extra, changed and unfit file
            (the first 50, and how many more).
    """
    differences = find_differences(directory, manifest)
    if differences:
        raise IntegrityError(f"{directory} is not what its manifest says: {differences}.")


def _capped(lines: list[str]) -> str:
    more = f"; and {len(lines) - MAX_NAMED} more" if len(lines) > MAX_NAMED else ""
    return "; ".join(_printable(line) for line in lines[:MAX_NAMED]) + more


def _printable(line: str) -> str:
    # A file's name must not be able to break the line or to move the cursor of who reads the message.
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _scan(directory: Path) -> tuple[list[str], list[str]]:
    """Return the sorted relative paths of plain files, and what is unfit with its reason."""
    found: list[str] = []
    unfit: list[str] = []
    for path, reason in _walk(directory, directory):
        if reason is None:
            found.append(path)
        else:
            unfit.append(f"{path}: {reason}")
    return sorted(found), unfit


def _walk(directory: Path, root: Path) -> Iterator[tuple[str, str | None]]:
    try:
        with os.scandir(directory) as entries:
            listed = list(entries)
    except OSError as error:
        if directory != root or not isinstance(error, FileNotFoundError):
            yield directory.relative_to(root).as_posix(), f"cannot be listed ({error.strerror})"
        return
    for entry in listed:
        path = Path(entry.path).relative_to(root).as_posix()
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), root)
        else:
            yield path, _refusal(entry, path)


def _refusal(entry: os.DirEntry[str], path: str) -> str | None:
    """Return why this entry cannot be in a manifest, or None."""
    if entry.is_symlink():
        return "a link"
    if not entry.is_file(follow_symlinks=False):
        return "a device, socket or pipe"
    try:
        # Bytes that are not UTF-8 come as lone surrogates, which encode to nothing.
        _PLAIN_PATH.validate_python(path).encode()
    except (ValidationError, UnicodeEncodeError):
        return "a name that cannot travel"
    return None


def _hash_all(
    directory: Path, paths: Iterable[str], *, expected: dict[str, FileEntry] | None = None
) -> list[FileEntry | str]:
    """Return for each path its entry, or why it cannot be read."""

    def measure(path: str) -> FileEntry | str:
        return _measure(directory / path, path, expected=(expected or {}).get(path))

    with ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="hash") as pool:
        return list(pool.map(measure, paths))


def _measure(file: Path, path: str, *, expected: FileEntry | None) -> FileEntry | str:
    try:
        # O_NOFOLLOW: the entry may have become a link since it was listed.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            size_bytes = os.fstat(descriptor).st_size
            if expected is not None and size_bytes != expected.size_bytes:
                return FileEntry(path=path, size_bytes=size_bytes, sha256="0" * 64)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return FileEntry(path=path, size_bytes=stream.tell(), sha256=digest)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
