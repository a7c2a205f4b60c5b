"""The hashes beside the shards: an entry an example, named by digest, and older datasets go without."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from artifact_sync.errors import IntegrityError, RecordError
from artifact_sync.records import InputContract
from training_cluster.datasets.data_manifest import DataManifest, HashedDataManifest, HashFile, load_data_manifest
from training_cluster.datasets.hash_file import HashWriter, read_hash_file
from training_cluster.datasets.shard_writer import ShardWriter
from training_cluster.datasets.sources import picture_hashes, source_sha256s

_CONTRACT = InputContract(height=2, width=2, channels=1)
_SOURCES = tuple(hashlib.sha256(bytes([index])).digest() for index in range(30))
_HASHES = tuple(bytes([index] * 16) for index in range(30))


def _dataset(directory: Path, **changes: object) -> DataManifest:
    """Write a dataset of thirty examples; with `hashes=None` as it was before there were hashes."""
    writer = ShardWriter(directory, expected_count=30, contract=_CONTRACT)
    with HashWriter(directory) as hash_writer:
        for index in range(30):
            writer.add(bytes([index] * 4), label=index % 2, source=_SOURCES[index])
            hash_writer.add(_HASHES[index], source=_SOURCES[index])
        hashes = hash_writer.finish()
    document = {
        "contract": _CONTRACT,
        "labels": ("a", "b"),
        "shards": writer.close(),
        "example_counts": {"a": 15, "b": 15},
        "slice_counts": {},
        "rejects": (),
        "excluded": (),
        "duplicates": (),
        "feedback_count": 0,
        "sources_sha256": "0" * 64,
        "guard_sha256": "0" * 64,
        "hashes": hashes,
        **changes,
    }
    kind: type[DataManifest] = HashedDataManifest
    if document["hashes"] is None:
        kind = DataManifest
        del document["hashes"]
    manifest = kind.model_validate(document)
    (directory / "data_manifest.json").write_bytes(manifest.to_json())
    return manifest


def test_the_file_is_named_by_its_digest_and_reads_back_in_order(tmp_path: Path) -> None:
    manifest = _dataset(tmp_path)
    assert isinstance(manifest, HashedDataManifest)
    assert load_data_manifest(tmp_path) == manifest
    (path,) = tmp_path.glob("*.hashes")
    assert path.name == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.hashes" == manifest.hashes.path
    found = picture_hashes(tmp_path, manifest)
    assert found is not None
    assert len(found) == 30
    assert [source.tobytes() for source in found.sources] == list(_SOURCES)
    assert [picture.tobytes() for picture in found.hashes] == list(_HASHES)


def test_the_sources_are_the_same_whether_read_from_hashes_or_from_shards(tmp_path: Path) -> None:
    manifest = _dataset(tmp_path)
    unhashed = DataManifest.model_validate(manifest.model_dump(exclude={"hashes"}))
    assert source_sha256s(tmp_path, manifest) == frozenset(source.hex() for source in _SOURCES)
    assert source_sha256s(tmp_path, unhashed) == source_sha256s(tmp_path, manifest)


def test_a_dataset_from_before_there_were_hashes_loads_under_the_digest_it_had(tmp_path: Path) -> None:
    manifest = _dataset(tmp_path, hashes=None)
    loaded = load_data_manifest(tmp_path)
    assert type(loaded) is DataManifest
    assert (
        loaded.sha256 == manifest.sha256 == hashlib.sha256((tmp_path / "data_manifest.json").read_bytes()).hexdigest()
    )
    assert picture_hashes(tmp_path, loaded) is None


def test_hashes_of_another_kind_are_not_compared(tmp_path: Path) -> None:
    manifest = _dataset(tmp_path)
    assert isinstance(manifest, HashedDataManifest)
    other = manifest.model_copy(update={"hashes": manifest.hashes.model_copy(update={"hash_name": "other/1"})})
    assert picture_hashes(tmp_path, other) is None


def test_a_missing_cut_or_changed_file_is_refused(tmp_path: Path) -> None:
    manifest = _dataset(tmp_path)
    assert isinstance(manifest, HashedDataManifest)
    path = tmp_path / manifest.hashes.path
    data = path.read_bytes()
    for changed in (data[:-1], data[:-1] + b"\x00", b""):
        path.write_bytes(changed)
        with pytest.raises(IntegrityError, match="are changed"):
            read_hash_file(tmp_path, manifest.hashes)
    path.unlink()
    with pytest.raises(IntegrityError, match="are missing"):
        picture_hashes(tmp_path, manifest)


def test_a_manifest_whose_hashes_are_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="29 hashes for 30 examples"):
        _dataset(tmp_path, hashes=HashFile(path="x.hashes", sha256="0" * 64, count=29, hash_name="x"))


def test_a_manifest_of_the_future_is_refused_with_what_to_do(tmp_path: Path) -> None:
    text = _dataset(tmp_path).to_json().replace(b"liftgate.data-manifest/2", b"liftgate.data-manifest/4")
    (tmp_path / "data_manifest.json").write_bytes(text)
    with pytest.raises(RecordError, match="Upgrade Liftgate"):
        load_data_manifest(tmp_path)
