"""Which photos a dataset was made of, by digest and by look.

Its place in the flow: `liftgate validate` looks whether any of them, or nearly the same, is in the holdout.
"""

from __future__ import annotations

from pathlib import Path

from serving.perceptual_hash import NAME, PictureHashes
from training_cluster.datasets.data_manifest import DataManifest, HashedDataManifest
from training_cluster.datasets.hash_file import read_hash_file
from training_cluster.datasets.tfrecord import example_source, read_frames


def source_sha256s(data_dir: Path, manifest: DataManifest) -> frozenset[str]:
    """Return the SHA-256 of every photo whose pixels are in the shards.

    Raises:
        IntegrityError: the file of hashes, or without one a shard, is cut or changed.
    """
    if isinstance(manifest, HashedDataManifest):
        return frozenset(source.tobytes().hex() for source in read_hash_file(data_dir, manifest.hashes).sources)
    digests: set[str] = set()
    for shard in manifest.shards:
        with (data_dir / shard.path).open("rb") as stream:
            digests.update(example_source(record).hex() for record in read_frames(stream))
    return frozenset(digests)


def picture_hashes(data_dir: Path, manifest: DataManifest) -> PictureHashes | None:
    """Return the looks of the dataset's examples; None where it was built before this Liftgate wrote such hashes.

    Raises:
        IntegrityError: the file of hashes is missing or changed.
    """
    if not isinstance(manifest, HashedDataManifest) or manifest.hashes.hash_name != NAME:
        return None
    return read_hash_file(data_dir, manifest.hashes)
