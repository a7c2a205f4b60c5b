"""A dataset that is read in blocks, wherever it lies.

Its place in the flow: the trainer opens one from a folder or from s3://bucket/prefix; the split decides
from its manifest and its table of examples what is shown, and the input pipeline reads blocks from it.
Nothing but the manifest and two index files is read before the first block.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np

from artifact_sync.errors import IntegrityError, NotFoundError, RefusedError, StoreError, TrainingError
from training_cluster.datasets.block_index import Blocks, parse_blocks
from training_cluster.datasets.data_manifest import (
    FILE_NAME,
    DataManifest,
    IndexedDataManifest,
    parse_data_manifest,
)
from training_cluster.datasets.example_table import ExampleTable, parse_examples
from training_cluster.inputs.block_cache import BlockCache
from training_cluster.inputs.folder import FolderRanges
from training_cluster.inputs.frame_walk import walk_shards

_ATTEMPTS = 3


class ByteRanges(Protocol):
    """A place with files that can be read in parts, from several threads at once.

    Attributes:
        connections: how many reads at once are worth while.
        is_near: whether bytes that were right once stay right: on this host's own disks.
    """

    connections: int
    is_near: bool

    def read_whole(self, name: str) -> bytes:
        """Return a file's bytes; NotFoundError when there is none."""
        ...

    def read(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        """Return a part of a file, or fewer bytes where it ends before."""
        ...

    def close(self) -> None:
        """Let go of descriptors and connections."""
        ...


class DataSource:
    """A dataset's manifest, its two tables, and its blocks; safe to use from several threads.

    Args:
        where: the folder or the address, for messages.
        ranges: what its files are read from.
        manifest: what the dataset is made of.
        blocks: where its blocks lie.
        examples: what is known of each example without reading it.
        cache: where blocks are kept that came from afar.
    """

    def __init__(
        self,
        where: str,
        ranges: ByteRanges,
        *,
        manifest: DataManifest,
        blocks: Blocks,
        examples: ExampleTable,
        cache: BlockCache | None = None,
    ) -> None:
        self.manifest = manifest
        self.blocks = blocks
        self.examples = examples
        self._where = where
        self._ranges = ranges
        self._cache = cache
        self._is_believed = np.zeros(len(blocks), np.bool_)

    @property
    def connections(self) -> int:
        """How many blocks are worth reading at once."""
        return self._ranges.connections

    def read_block(self, index: int) -> bytes:
        """Return the bytes of a block.

        Its digest is looked at when it is read for the first time, and whenever it comes from afar.

        Raises:
            TrainingError: it cannot be read.
            IntegrityError: it is not what the manifest says.
        """
        digest = bytes(self.blocks[index]["sha256"])
        kept = self._kept(index, digest)
        if kept is not None:
            return kept
        data = self._fetched(index, digest)
        if self._cache is not None:
            self._cache.put(digest.hex(), data)
        return data

    def close(self) -> None:
        """Let go of descriptors and connections; reads that go on fail."""
        self._ranges.close()

    def _kept(self, index: int, digest: bytes) -> bytes | None:
        data = self._cache.get(digest.hex()) if self._cache is not None else None
        if data is None or self._is_right(index, data, digest, is_near=True):
            return data
        assert self._cache is not None
        self._cache.drop(digest.hex())
        return None

    def _fetched(self, index: int, digest: bytes) -> bytes:
        """Return what lies in the dataset; afar a second try may bring what a first one spoiled on its way."""
        for _ in range(1 if self._ranges.is_near else _ATTEMPTS):
            data = self._read(index)
            if self._is_right(index, data, digest, is_near=self._ranges.is_near):
                return data
        block = self.blocks[index]
        name = self.manifest.shards[int(block["shard"])].path
        raise IntegrityError(
            f"Training stopped: {name} in {self._where} was changed, its block at byte {int(block['offset'])} is not "
            "what the manifest says. Build the dataset again or copy it anew, and start the run again; it goes on from "
            "its checkpoint."
        )

    def _is_right(self, index: int, data: bytes, digest: bytes, *, is_near: bool) -> bool:
        if is_near and self._is_believed[index]:
            return len(data) == int(self.blocks[index]["size_bytes"])
        is_right = hashlib.sha256(data).digest() == digest
        self._is_believed[index] |= is_right and is_near
        return is_right

    def _read(self, index: int) -> bytes:
        block = self.blocks[index]
        name = self.manifest.shards[int(block["shard"])].path
        try:
            return self._ranges.read(name, offset=int(block["offset"]), size_bytes=int(block["size_bytes"]))
        except (StoreError, NotFoundError) as error:
            raise TrainingError(
                f"Training stopped: {name} in {self._where} cannot be read. {error} "
                "Bring the store back and start the run again; it goes on from its checkpoint."
            ) from None


def open_source(
    data: str, *, cache_dir: Path | None = None, cache_gigabytes: float = 100.0, retry_seconds: float = 300.0
) -> DataSource:
    """Return the dataset in a folder or under s3://bucket/prefix.

    Args:
        data: the folder or the address.
        cache_dir: where blocks from S3 are kept on this host; a folder's blocks are not kept twice.
        cache_gigabytes: the bound on that folder's size.
        retry_seconds: how long a read from S3 is repeated before the training stops.

    Raises:
        NotFoundError: there is no dataset.
        RecordError: its manifest is malformed.
        IntegrityError: files are not what the manifest says.
        RefusedError: a dataset of before the block index is to be streamed.
        SettingsError, StoreError: the address is malformed or the store cannot be reached.
    """
    if not data.startswith("s3://"):
        return _open_folder(Path(data))
    # boto3 takes a third of a second to import, which a training from a folder need not pay.
    from artifact_sync.s3_ranges import open_ranges  # noqa: PLC0415

    ranges = open_ranges(data, retry_seconds=retry_seconds)
    manifest = _manifest(ranges, where=data)
    if not isinstance(manifest, IndexedDataManifest):
        raise RefusedError(
            f"Training refused: the dataset in {data} was built before datasets had an index of blocks, so it cannot "
            "be streamed. Build it again, or copy it to a folder with `liftgate dataset copy` and train from there."
        )
    blocks, examples = _index_files(ranges, manifest, where=data)
    cache = None
    if cache_dir is not None:
        own = frozenset(bytes(digest).hex() for digest in blocks["sha256"])
        cache = BlockCache(cache_dir, most_bytes=int(cache_gigabytes * 1e9), own=own)
        cache.open()
    return DataSource(data, ranges, manifest=manifest, blocks=blocks, examples=examples, cache=cache)


def _open_folder(directory: Path) -> DataSource:
    ranges = FolderRanges(directory)
    manifest = _manifest(ranges, where=str(directory))
    if isinstance(manifest, IndexedDataManifest):
        blocks, examples = _index_files(ranges, manifest, where=str(directory))
        ranges.check_sizes({shard.path: shard.size_bytes for shard in manifest.shards})
    else:
        blocks, examples = walk_shards(directory, manifest)
    return DataSource(str(directory), ranges, manifest=manifest, blocks=blocks, examples=examples)


def _manifest(ranges: ByteRanges, *, where: str) -> DataManifest:
    try:
        return parse_data_manifest(ranges.read_whole(FILE_NAME))
    except NotFoundError:
        raise NotFoundError(
            f"There is no dataset in {where}: it has no {FILE_NAME}. Run `liftgate dataset build` first."
        ) from None


def _index_files(ranges: ByteRanges, manifest: IndexedDataManifest, *, where: str) -> tuple[Blocks, ExampleTable]:
    try:
        blocks = parse_blocks(ranges.read_whole(manifest.blocks.path), manifest.blocks)
        return blocks, parse_examples(ranges.read_whole(manifest.examples.path), manifest.examples)
    except NotFoundError as error:
        raise IntegrityError(
            f"The dataset in {where} is not whole: {error} Build it again, or copy it again."
        ) from None
