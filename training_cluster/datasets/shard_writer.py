"""Writes examples one after the other into shards of equal size, each named by its digest, in blocks.

Its place in the flow: dataset build hands it pixels in their final order; what it returns goes into
the data manifest and into the file of the blocks.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from artifact_sync.durable import fsync_directory
from artifact_sync.records import InputContract
from training_cluster.datasets.block_index import BLOCK_BYTES, BLOCK_DTYPE, Blocks
from training_cluster.datasets.data_manifest import ShardEntry
from training_cluster.datasets.tfrecord import example, frame

_LEAST_SHARDS = 8
_SHARD_BYTES = 64 * 1024 * 1024


class ShardWriter:
    """Shards of one dataset in one folder, whose sizes differ by one example at most; may be a context manager.

    Args:
        directory: where the shards are written.
        expected_count: how many examples will come; it decides how many go into each shard.
        contract: the shape of the pixels.
        finished: shards that an earlier writer finished; this one begins behind them.
    """

    def __init__(
        self, directory: Path, *, expected_count: int, contract: InputContract, finished: tuple[ShardEntry, ...] = ()
    ) -> None:
        self._directory = directory
        self._sizes = _shard_sizes(expected_count, contract)
        self._entries = list(finished)
        self._stream: BinaryIO | None = None
        self._written = 0
        self._digest = hashlib.sha256()
        self._first = sum(entry.count for entry in finished)
        self._blocks: list[tuple[int, int, int, int, int, bytes]] = []
        self._block = _OpenBlock(first=self._first, offset=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        """The shards finished so far, in order."""
        return tuple(self._entries)

    @property
    def blocks(self) -> Blocks:
        """The blocks of the shards that this writer finished, in order."""
        return np.array(self._blocks, dtype=BLOCK_DTYPE)

    def add(self, pixels: bytes, *, label: int, source: bytes) -> None:
        """Append one example."""
        if self._stream is None:
            self._stream = self._unfinished.open("wb")
            self._written, self._digest = 0, hashlib.sha256()
        record = frame(example(pixels=pixels, label=label, source=source))
        self._stream.write(record)
        self._digest.update(record)
        self._block.add(record)
        self._written += 1
        is_full = self._written >= self._sizes[min(len(self._entries), len(self._sizes) - 1)]
        if is_full or self._block.size_bytes >= BLOCK_BYTES:
            self._end_block()
        if is_full:
            self._finish_shard(self._stream)

    def close(self) -> tuple[ShardEntry, ...]:
        """Finish the last shard and return all of them in order."""
        if self._stream is not None:
            if self._block.count:
                self._end_block()
            self._finish_shard(self._stream)
        return self.entries

    @property
    def _unfinished(self) -> Path:
        return self._directory / "unfinished.tfrecord"

    def _end_block(self) -> None:
        self._blocks.append((len(self._entries), *self._block.row()))
        self._block = self._block.next()

    def _finish_shard(self, stream: BinaryIO) -> None:
        stream.flush()
        os.fsync(stream.fileno())
        size_bytes = stream.tell()
        stream.close()
        self._stream = None
        sha256 = self._digest.hexdigest()
        path = self._directory / f"{sha256}.tfrecord"
        self._unfinished.replace(path)
        fsync_directory(self._directory)
        self._entries.append(ShardEntry(path=path.name, size_bytes=size_bytes, sha256=sha256, count=self._written))
        self._block = _OpenBlock(first=self._block.first, offset=0)


class _OpenBlock:
    """The block that records are being added to."""

    def __init__(self, *, first: int, offset: int) -> None:
        self.first, self.offset = first, offset
        self.count = self.size_bytes = 0
        self._digest = hashlib.sha256()

    def add(self, record: bytes) -> None:
        self._digest.update(record)
        self.count += 1
        self.size_bytes += len(record)

    def row(self) -> tuple[int, int, int, int, bytes]:
        """Return the block's fields of `BLOCK_DTYPE` behind its shard's number."""
        return self.first, self.count, self.offset, self.size_bytes, self._digest.digest()

    def next(self) -> _OpenBlock:
        return _OpenBlock(first=self.first + self.count, offset=self.offset + self.size_bytes)


def _shard_sizes(count: int, contract: InputContract) -> tuple[int, ...]:
    """Return how many examples each shard gets: at least eight shards, none above 64 MiB but for a single example."""
    record_bytes = contract.height * contract.width * contract.channels + 128
    affordable = max(1, _SHARD_BYTES // record_bytes)
    shards = max(1, min(count, max(_LEAST_SHARDS, -(-count // affordable))))
    least, more = divmod(max(1, count), shards)
    return tuple(least + (number < more) for number in range(shards))
