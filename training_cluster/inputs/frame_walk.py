"""Makes blocks and examples of a dataset that was built before their files were written beside the shards.

Its place in the flow: a data source of an older manifest starts with this. It reads every shard once,
which is also the check of the shards' own digests.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import IntegrityError
from training_cluster.datasets.block_index import BLOCK_BYTES, BLOCK_DTYPE, Blocks
from training_cluster.datasets.data_manifest import DataManifest, ShardEntry, verify_shards
from training_cluster.datasets.example_table import ExampleTable
from training_cluster.inputs.records import RecordLayout


def walk_shards(data_dir: Path, manifest: DataManifest) -> tuple[Blocks, ExampleTable]:
    """Return the blocks and the examples of shards that lie in a folder.

    Each example is a group of its own, and there are no slices.

    Raises:
        IntegrityError: names every shard that is missing or changed.
    """
    verify_shards(data_dir, manifest)
    layout = RecordLayout(manifest.contract)
    rows: list[tuple[int, int, int, int, int, bytes]] = []
    labels: list[NDArray[np.int64]] = []
    first = 0
    for number, shard in enumerate(manifest.shards):
        for offset, data in _blocks_of(data_dir / shard.path, shard):
            parsed = layout.parse(data)
            labels.append(parsed.labels)
            rows.append((number, first, len(parsed.labels), offset, len(data), hashlib.sha256(data).digest()))
            first += len(parsed.labels)
    if first != manifest.count:
        raise IntegrityError(
            f"The shards in {data_dir} hold {first} examples, and the manifest says {manifest.count}. Build it again."
        )
    table = ExampleTable(np.concatenate(labels).astype(np.uint16), np.ones(first, np.bool_), {})
    return np.array(rows, dtype=BLOCK_DTYPE), table


def _blocks_of(path: Path, shard: ShardEntry) -> Iterator[tuple[int, bytes]]:
    """Yield where each block of a shard begins, and its bytes."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        begin = end = 0
        while end < shard.size_bytes:
            # A frame: length as 8 bytes, checksum, data, checksum.
            end += 16 + int.from_bytes(whole[end : end + 8], "little")
            if end - begin >= BLOCK_BYTES or end >= shard.size_bytes:
                yield begin, whole[begin:end]
                begin = end
