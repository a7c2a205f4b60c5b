"""Which photos a dataset was made of, by digest.

Its place in the flow: `liftgate validate` looks whether any of them is in the holdout.
"""

from __future__ import annotations

from pathlib import Path

from training_cluster.data_manifest import DataManifest
from training_cluster.tfrecord import example_source, read_frames


def source_sha256s(data_dir: Path, manifest: DataManifest) -> frozenset[str]:
    """Return the SHA-256 of every photo whose pixels are in the shards.

    Raises:
        IntegrityError: a shard is cut or changed.
    """
    digests: set[str] = set()
    for shard in manifest.shards:
        with (data_dir / shard.path).open("rb") as stream:
            digests.update(example_source(record).hex() for record in read_frames(stream))
    return frozenset(digests)
