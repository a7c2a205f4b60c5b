"""Writes examples one after the other into shards of equal size, each named by its digest.

Its place in the flow: dataset build hands it pixels in their final order; what it returns goes into
the data manifest.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from artifact_sync.records import InputContract
from training_cluster.datasets.data_manifest import ShardEntry
from training_cluster.datasets.tfrecord import example, frame

_LEAST_SHARDS = 8
_SHARD_BYTES = 64 * 1024 * 1024


class ShardWriter:
    """Shards of one dataset in one folder; the last one may be smaller.

    Args:
        directory: where the shards are written.
        expected_count: how many examples will come at most; it decides the size of a shard.
        contract: the shape of the pixels.
    """

    def __init__(self, directory: Path, *, expected_count: int, contract: InputContract) -> None:
        record_bytes = contract.height * contract.width * contract.channels + 128
        affordable = max(1, _SHARD_BYTES // record_bytes)
        self._directory = directory
        self._shard_count = max(1, min(-(-expected_count // _LEAST_SHARDS), affordable))
        self._entries: list[ShardEntry] = []
        self._stream: BinaryIO | None = None
        self._written = 0
        self._digest = hashlib.sha256()

    def add(self, pixels: bytes, *, label: int, source: bytes) -> None:
        """Append one example."""
        if self._stream is None:
            self._stream = self._unfinished.open("wb")
            self._written, self._digest = 0, hashlib.sha256()
        record = frame(example(pixels=pixels, label=label, source=source))
        self._stream.write(record)
        self._digest.update(record)
        self._written += 1
        if self._written == self._shard_count:
            self._finish_shard(self._stream)

    def close(self) -> tuple[ShardEntry, ...]:
        """Finish the last shard and return all of them in order."""
        if self._stream is not None:
            self._finish_shard(self._stream)
        return tuple(self._entries)

    @property
    def _unfinished(self) -> Path:
        return self._directory / "unfinished.tfrecord"

    def _finish_shard(self, stream: BinaryIO) -> None:
        stream.flush()
        os.fsync(stream.fileno())
        size_bytes = stream.tell()
        stream.close()
        self._stream = None
        sha256 = self._digest.hexdigest()
        path = self._directory / f"{sha256}.tfrecord"
        self._unfinished.replace(path)
        self._entries.append(ShardEntry(path=path.name, size_bytes=size_bytes, sha256=sha256, count=self._written))
