"""Where the blocks of a dataset's shards begin and what their digests are.

Its place in the flow: dataset build writes the file beside the shards; a training reads a shard in
blocks, from a disk or from S3, in an order of its own, and believes a block by its digest, so that
the first batch needs neither a whole shard nor the whole dataset to be there or to be looked at.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.durable import write_durably
from artifact_sync.errors import IntegrityError
from training_cluster.datasets.data_manifest import BlockFile

BLOCK_DTYPE = np.dtype(
    [("shard", "<u4"), ("first", "<u8"), ("count", "<u4"), ("offset", "<u8"), ("size_bytes", "<u4"), ("sha256", "V32")]
)
"""One block: the shard's number, the dataset's number of its first example, how many examples it has,
where it begins in the shard and how long it is in bytes, the SHA-256 of these bytes."""

BLOCK_BYTES = 4 * 1024 * 1024
"""A block ends with the record that reaches this size, or with its shard."""

Blocks = NDArray[np.void]
"""An array [n] of `BLOCK_DTYPE`, in the order of the examples."""


def write_blocks(directory: Path, blocks: Blocks) -> BlockFile:
    """Write the blocks into a file named by its digest and return what the manifest says of it."""
    data = np.ascontiguousarray(blocks, dtype=BLOCK_DTYPE).tobytes()
    sha256 = hashlib.sha256(data).hexdigest()
    path = directory / f"{sha256}.blocks"
    write_durably(path, data)
    return BlockFile(path=path.name, sha256=sha256, count=len(blocks))


def parse_blocks(data: bytes, entry: BlockFile) -> Blocks:
    """Return the blocks of a file's bytes.

    Raises:
        IntegrityError: the bytes are not those of the manifest.
    """
    if hashlib.sha256(data).hexdigest() != entry.sha256 or len(data) != entry.count * BLOCK_DTYPE.itemsize:
        raise IntegrityError(
            f"The blocks in {entry.path} are not what the data manifest says. Build the dataset again."
        )
    return np.frombuffer(data, dtype=BLOCK_DTYPE)
