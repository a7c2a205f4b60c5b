"""A dataset that is read in blocks, wherever it lies.

Its place in the flow: the trainer opens one from a folder or from s3://bucket/prefix; the split decides
from its manifest and its table of examples what is shown, and the input pipeline reads blocks from it.
Nothing but the manifest and two index files is read before the first block.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from artifact_sync.errors import IntegrityError, NotFoundError
from training_cluster.datasets.block_index import Blocks, parse_blocks
from training_cluster.datasets.data_manifest import (
    FILE_NAME,
    DataManifest,
    IndexedDataManifest,
    ShardEntry,
    parse_data_manifest,
)
from training_cluster.datasets.example_table import ExampleTable, parse_examples
from training_cluster.inputs.folder import FolderRanges
from training_cluster.inputs.frame_walk import walk_shards


class ByteRanges(Protocol):
    """A place with files that can be read in parts, from several threads at once."""

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

    Attributes:
        manifest: what the dataset is made of.
        blocks: where its blocks lie.
        examples: what is known of each example without reading it.
    """

    def __init__(self, ranges: ByteRanges, *, manifest: DataManifest, blocks: Blocks, examples: ExampleTable) -> None:
        self.manifest = manifest
        self.blocks = blocks
        self.examples = examples
        self._ranges = ranges
        self._is_believed = np.zeros(len(blocks), np.bool_)
        self._lock = threading.Lock()

    def read_block(self, index: int) -> bytes:
        """Return the bytes of a block; its digest is looked at when it is read for the first time.

        Raises:
            TrainingError: it cannot be read.
            IntegrityError: it is not what the manifest says.
        """
        block = self.blocks[index]
        shard = self.manifest.shards[int(block["shard"])]
        data = self._ranges.read(shard.path, offset=int(block["offset"]), size_bytes=int(block["size_bytes"]))
        if not self._is_believed[index]:
            if hashlib.sha256(data).digest() != bytes(block["sha256"]):
                raise _changed(shard, offset=int(block["offset"]))
            self._is_believed[index] = True
        return data

    def close(self) -> None:
        """Let go of descriptors and connections."""
        self._ranges.close()


def open_source(data: str, *, cache_dir: Path | None = None) -> DataSource:
    """Return the dataset in a folder.

    Raises:
        NotFoundError: there is no dataset.
        RecordError: its manifest is malformed.
        IntegrityError: files are not what the manifest says.
    """
    directory = Path(data)
    ranges = FolderRanges(directory)
    try:
        manifest = parse_data_manifest(ranges.read_whole(FILE_NAME))
    except NotFoundError:
        raise NotFoundError(
            f"There is no dataset in {directory}: it has no {FILE_NAME}. Run `liftgate dataset build` first."
        ) from None
    if isinstance(manifest, IndexedDataManifest):
        blocks, examples = _index_files(ranges, manifest, where=data)
        ranges.check_sizes({shard.path: shard.size_bytes for shard in manifest.shards})
    else:
        blocks, examples = walk_shards(directory, manifest)
    return DataSource(ranges, manifest=manifest, blocks=blocks, examples=examples)


def _index_files(ranges: ByteRanges, manifest: IndexedDataManifest, *, where: str) -> tuple[Blocks, ExampleTable]:
    try:
        blocks = parse_blocks(ranges.read_whole(manifest.blocks.path), manifest.blocks)
        return blocks, parse_examples(ranges.read_whole(manifest.examples.path), manifest.examples)
    except NotFoundError as error:
        raise IntegrityError(
            f"The dataset in {where} is not whole: {error} Build it again, or copy it again."
        ) from None


def _changed(shard: ShardEntry, *, offset: int) -> IntegrityError:
    return IntegrityError(
        f"Training stopped: {shard.path} was changed, its block at byte {offset} is not what the manifest says. "
        "Build the dataset again or copy it anew, and start the run again; it goes on from its checkpoint."
    )
