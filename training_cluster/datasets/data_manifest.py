"""What a dataset is made of, as a record: data_manifest.json beside the shards.

Its place in the flow: dataset build writes it last, the trainer believes only shards that it names,
and its digest goes into the lineage of every version trained from them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from artifact_sync.canonical import FrozenModel, Record, Sha256
from artifact_sync.errors import IntegrityError, NotFoundError
from artifact_sync.records import InputContract, RelativePath

FILE_NAME = "data_manifest.json"


class ShardEntry(FrozenModel):
    """One TFRecord file; its name holds its digest."""

    path: RelativePath
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    count: Annotated[int, Field(ge=1)]


class HashFile(FrozenModel):
    """The file that holds each example's perceptual hash; its name holds its digest.

    It has an entry for each example, in the order of the shards: the SHA-256 of the photo's file (32
    bytes) and the perceptual hash of its pixels (16 bytes).
    """

    path: RelativePath
    sha256: Sha256
    count: Annotated[int, Field(ge=1)]
    hash_name: str


class BlockFile(FrozenModel):
    """The file that says where each block of the shards begins; see `block_index`."""

    path: RelativePath
    sha256: Sha256
    count: Annotated[int, Field(ge=1)]


class ExampleFile(FrozenModel):
    """The file with each example's class, slices and group; see `example_table`.

    Attributes:
        count: the number of examples.
        slice_values: for each slice column the values that its codes stand for.
    """

    path: RelativePath
    sha256: Sha256
    count: Annotated[int, Field(ge=1)]
    slice_values: dict[str, tuple[str, ...]]


class LeftOut(FrozenModel):
    """A photo that is not in the shards, and why; `source` is the line, file or feedback that named it."""

    source: str
    reason: str


class DataManifest(Record):
    """`data_manifest.json`: shards and the account of every photo that was handed in.

    Attributes:
        contract: the shape of the pixels in the shards.
        labels: the classes; a record's label is an index into them.
        shards: in the order of their records.
        example_counts: examples in the shards by label.
        slice_counts: examples by slice column, then value.
        rejects: unreadable or mislabelled photos.
        excluded: photos that are in the holdout.
        duplicates: photos that are in the shards already, under another name.
        feedback_count: examples that came from people's corrections.
        sources_sha256: digest over every photo's own digest, label and slices, in order of digests.
        guard_sha256: digest over the digests that the holdout forbade.
    """

    schema_name: ClassVar[str] = "liftgate.data-manifest/1"
    contract: InputContract
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=1)]
    example_counts: dict[str, int]
    slice_counts: dict[str, dict[str, int]]
    rejects: tuple[LeftOut, ...]
    excluded: tuple[LeftOut, ...]
    duplicates: tuple[LeftOut, ...]
    feedback_count: Annotated[int, Field(ge=0)]
    sources_sha256: Sha256
    guard_sha256: Sha256

    @property
    def count(self) -> int:
        """Examples in all shards."""
        return sum(shard.count for shard in self.shards)


class HashedDataManifest(DataManifest):
    """`data_manifest.json` of a dataset whose examples' perceptual hashes lie beside the shards.

    Datasets that were built before there were hashes keep the manifest, and so the digest, that they have.

    Attributes:
        hashes: the file of the hashes.
    """

    schema_name: ClassVar[str] = "liftgate.data-manifest/2"
    hashes: HashFile

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.hashes.count != self.count:
            raise ValueError(f"{self.hashes.count} hashes for {self.count} examples")
        return self


class IndexedDataManifest(HashedDataManifest):
    """`data_manifest.json` of a dataset that can be read in blocks, from a disk or from S3, in any order.

    The shards hold examples in the order of their groups' smallest digest, then of their own.

    Attributes:
        blocks: the file of the blocks.
        examples: the file of what is known of each example.
        near_duplicates: photos that look nearly like another one of the shards; they are in the shards, in its group.
            When there are very many, only the first are named.
        near_duplicate_count: how many there are.
        near_distance: in how many bits two looks may differ to be near.
        sources: digest, by the name it was given under, of each list of photos (folder, CSV, S3 prefix) read.
        holdout_share: share of the groups that a fixed rule puts on the holdout's side.
        holdout_count: photos that it put there; they are not in the shards.
    """

    schema_name: ClassVar[str] = "liftgate.data-manifest/3"
    blocks: BlockFile
    examples: ExampleFile
    near_duplicates: tuple[LeftOut, ...]
    near_duplicate_count: Annotated[int, Field(ge=0)] = 0
    near_distance: Annotated[int, Field(ge=0)] = 4
    sources: dict[str, Sha256]
    holdout_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    holdout_count: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _all_examples(self) -> Self:
        if self.examples.count != self.count:
            raise ValueError(f"{self.examples.count} entries for {self.count} examples")
        return self


def parse_data_manifest(data: bytes) -> DataManifest:
    """Return the manifest of a data_manifest.json's bytes, of whichever age.

    Raises:
        RecordError: it is malformed.
    """
    for kind in (DataManifest, HashedDataManifest):
        # Within a string the quotes would be escaped, so this is the field itself.
        if f'"schema":"{kind.schema_name}"'.encode() in data:
            return kind.from_json(data)
    return IndexedDataManifest.from_json(data)


def load_data_manifest(data_dir: Path) -> DataManifest:
    """Return the manifest of a dataset folder.

    Raises:
        NotFoundError: the folder is no finished dataset.
        RecordError: the manifest is malformed.
    """
    try:
        data = (data_dir / FILE_NAME).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no dataset in {data_dir}: it has no {FILE_NAME}. Run `liftgate dataset build` first."
        ) from None
    return parse_data_manifest(data)


def verify_shards(data_dir: Path, manifest: DataManifest) -> None:
    """Check size and digest of every shard.

    Raises:
        IntegrityError: names every shard that is missing or changed.
    """
    wrong = [f"{shard.path}: {fault}" for shard in manifest.shards if (fault := _fault(data_dir, shard))]
    if wrong:
        raise IntegrityError(
            f"The dataset in {data_dir} is not what its manifest says:\n  " + "\n  ".join(wrong) + "\nBuild it again."
        )


def _fault(data_dir: Path, shard: ShardEntry) -> str | None:
    path = data_dir / shard.path
    if not path.is_file():
        return "missing"
    if path.stat().st_size != shard.size_bytes:
        return f"{path.stat().st_size} bytes instead of {shard.size_bytes}"
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if found == shard.sha256 else f"digest {found[:12]}… instead of {shard.sha256[:12]}…"
