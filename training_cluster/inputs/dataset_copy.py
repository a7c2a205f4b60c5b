"""Copies a dataset from a folder to a bucket, or back: verified, resumable, the manifest last.

Its place in the flow: a dataset that was built on one machine gets to where hosts stream it from. Until
the manifest is there, nothing at the target is a dataset; what an interrupted copy left is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.durable import fsync_directory, make_directory, temporary_file, write_durably
from artifact_sync.errors import (
    AlreadyExistsError,
    CapacityError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    SettingsError,
)
from artifact_sync.s3_ranges import bucket_settings
from artifact_sync.settings import open_store
from artifact_sync.store import ObjectStore, read_bytes
from training_cluster.datasets.data_manifest import (
    FILE_NAME,
    DataManifest,
    HashedDataManifest,
    IndexedDataManifest,
    load_data_manifest,
    parse_data_manifest,
)

_MOST_MANIFEST_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20
_RESERVE_BYTES = 256 << 20
_FILES_AT_ONCE = 4

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and all bytes, whenever a file is done."""


@dataclass(frozen=True)
class CopyReport:
    """What a copy did: files brought, files that were there already, all bytes, the manifest's digest."""

    copied: int
    kept: int
    size_bytes: int
    manifest_sha256: str


@dataclass(frozen=True)
class _File:
    name: str
    sha256: str


def copy_dataset(
    source: str,
    target: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy a dataset; one of both is a folder, the other s3://bucket/prefix.

    Args:
        source: the dataset.
        target: where it shall be; what is there already of it is kept.
        endpoint_url: a server other than AWS; by default AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
        region: by default the AWS chain's.
        progress: told how far it is.

    Raises:
        NotFoundError: the source is no dataset.
        IntegrityError: a file is not what the manifest says.
        RefusedError: another dataset is at the target.
        CapacityError: the disk or the store is full.
        SettingsError, StoreError: an address is malformed, or the store cannot be reached.
    """
    if source.startswith("s3://") == target.startswith("s3://"):
        raise SettingsError(
            f"Copying from {source} to {target} is refused: one of both must be a folder, the other s3://bucket/prefix."
        )
    address = target if target.startswith("s3://") else source
    store = open_store(bucket_settings(address, endpoint_url=endpoint_url, region=region))
    if address == target:
        return _Upload(Path(source), store, where=target).run(progress or _untold)
    return _Download(store, Path(target), where=source).run(progress or _untold)


class _Upload:
    def __init__(self, directory: Path, store: ObjectStore, *, where: str) -> None:
        self._directory = directory
        self._store = store
        self._where = where

    def run(self, progress: Progress) -> CopyReport:
        manifest = load_data_manifest(self._directory)
        there = {info.key: info.size_bytes for info in self._store.list("")}
        self._refuse_another(manifest, is_there=FILE_NAME in there)
        files = list(_files(manifest))
        sizes = {file.name: self._size(file) for file in files}
        copied = _each(
            [file for file in files if there.get(file.name) != sizes[file.name]], self._send, sizes, progress
        )
        if FILE_NAME not in there:
            try:
                self._store.create(FILE_NAME, manifest.to_json())
            except AlreadyExistsError:
                self._refuse_another(manifest, is_there=True)
        return CopyReport(copied, len(files) - copied, sum(sizes.values()), manifest.sha256)

    def _size(self, file: _File) -> int:
        try:
            return (self._directory / file.name).stat().st_size
        except FileNotFoundError:
            raise IntegrityError(
                f"Copying refused: {file.name} is missing in {self._directory}. Build the dataset again."
            ) from None

    def _send(self, file: _File) -> None:
        try:
            self._store.create(file.name, self._directory / file.name, sha256=file.sha256)
        except AlreadyExistsError:
            # What a killed copy had sent may have come to its end after we looked what is there.
            if self._digest_there(file) != file.sha256:
                raise IntegrityError(
                    f"Copying refused: {self._where} has another {file.name}. Remove it there and copy again."
                ) from None

    def _digest_there(self, file: _File) -> str:
        digest = hashlib.sha256()
        with self._store.open(file.name) as stream:
            while data := stream.read(_CHUNK_BYTES):
                digest.update(data)
        return digest.hexdigest()

    def _refuse_another(self, manifest: DataManifest, *, is_there: bool) -> None:
        if is_there and _manifest(self._store, where=self._where).sha256 != manifest.sha256:
            raise RefusedError(f"Copying refused: {self._where} holds another dataset. Choose a prefix of its own.")


class _Download:
    def __init__(self, store: ObjectStore, directory: Path, *, where: str) -> None:
        self._store = store
        self._directory = directory
        self._where = where

    def run(self, progress: Progress) -> CopyReport:
        manifest = _manifest(self._store, where=self._where)
        path = self._directory / FILE_NAME
        if path.exists() and load_data_manifest(self._directory).sha256 != manifest.sha256:
            raise RefusedError(f"Copying refused: {self._directory} holds another dataset. Choose a folder of its own.")
        make_directory(self._directory)
        files = list(_files(manifest))
        there = {info.key: info.size_bytes for info in self._store.list("")}
        sizes = {file.name: there.get(file.name, 0) for file in files}
        missing = [file for file in files if not self._has(file)]
        self._need_room(sum(sizes[file.name] for file in missing))
        copied = _each(missing, self._fetch, sizes, progress)
        fsync_directory(self._directory)
        if not path.exists():
            write_durably(path, manifest.to_json())
        return CopyReport(copied, len(files) - copied, sum(sizes.values()), manifest.sha256)

    def _has(self, file: _File) -> bool:
        path = self._directory / file.name
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256

    def _need_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self._directory).free
        if size_bytes + _RESERVE_BYTES > free:
            raise CapacityError(
                f"Copying refused: {size_bytes / 1e9:.1f} GB are missing in {self._directory}, and its disk has "
                f"{free / 1e9:.1f} GB. Make room or stream the dataset instead."
            )

    def _fetch(self, file: _File) -> None:
        digest = hashlib.sha256()
        with self._store.open(file.name) as stream, temporary_file(self._directory) as (temporary, out):
            while data := stream.read(_CHUNK_BYTES):
                digest.update(data)
                out.write(data)
            if digest.hexdigest() != file.sha256:
                raise IntegrityError(
                    f"Copying refused: {file.name} in {self._where} is not what the manifest says. Copy it there anew."
                )
            out.flush()
            os.fsync(out.fileno())
            temporary.replace(self._directory / file.name)


def _files(manifest: DataManifest) -> Iterator[_File]:
    """Yield all files of a dataset but the manifest, the small ones first."""
    if isinstance(manifest, IndexedDataManifest):
        yield from (_File(entry.path, entry.sha256) for entry in (manifest.blocks, manifest.examples))
    if isinstance(manifest, HashedDataManifest):
        yield _File(manifest.hashes.path, manifest.hashes.sha256)
    yield from (_File(shard.path, shard.sha256) for shard in manifest.shards)


def _each(files: list[_File], act: Callable[[_File], None], sizes: dict[str, int], progress: Progress) -> int:
    """Do it for each file, a few at once; the first failure ends it."""
    total = sum(sizes.values())
    done = total - sum(sizes[file.name] for file in files)
    progress(done, total)
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="copy") as pool:
        waiting = {pool.submit(act, file): file for file in files}
        try:
            for task in as_completed(waiting):
                task.result()
                done += sizes[waiting[task].name]
                progress(done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(files)


def _manifest(store: ObjectStore, *, where: str) -> DataManifest:
    try:
        return parse_data_manifest(read_bytes(store, FILE_NAME, max_bytes=_MOST_MANIFEST_BYTES))
    except NotFoundError:
        raise NotFoundError(f"There is no dataset in {where}: it has no {FILE_NAME}.") from None


def _untold(done: int, total: int) -> None:
    """Tell nobody."""
