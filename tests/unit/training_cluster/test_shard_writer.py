"""Shards: equal sizes, names that are digests, contents in order."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError, NotFoundError
from artifact_sync.records import InputContract
from training_cluster.datasets.block_index import parse_blocks, write_blocks
from training_cluster.datasets.data_manifest import DataManifest, ShardEntry, load_data_manifest, verify_shards
from training_cluster.datasets.shard_writer import ShardWriter
from training_cluster.datasets.tfrecord import read_frames

_CONTRACT = InputContract(height=2, width=2, channels=1)


def _written(directory: Path, count: int, *, contract: InputContract = _CONTRACT) -> tuple[ShardEntry, ...]:
    writer = ShardWriter(directory, expected_count=count, contract=contract)
    for index in range(count):
        writer.add(bytes([index % 256] * 4), label=index % 3, source=hashlib.sha256(bytes([index % 256])).digest())
    return writer.close()


def _manifest(shards: tuple[ShardEntry, ...]) -> DataManifest:
    return DataManifest(
        contract=_CONTRACT,
        labels=("a", "b", "c"),
        shards=shards,
        example_counts={"a": 1, "b": 1, "c": 1},
        slice_counts={},
        rejects=(),
        excluded=(),
        duplicates=(),
        feedback_count=0,
        sources_sha256="0" * 64,
        guard_sha256="0" * 64,
    )


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (7, [1] * 7), (16, [2] * 8), (100, [13] * 4 + [12] * 4)])
def test_shards_differ_in_size_by_one_example_at_most(tmp_path: Path, count: int, sizes: list[int]) -> None:
    assert [shard.count for shard in _written(tmp_path, count)] == sizes


def test_large_pictures_make_more_shards(tmp_path: Path) -> None:
    contract = InputContract(height=4096, width=4096, channels=3)
    assert [shard.count for shard in _written(tmp_path, 20, contract=contract)] == [1] * 20


def test_a_shard_is_named_by_its_digest_and_nothing_else_is_left(tmp_path: Path) -> None:
    shards = _written(tmp_path, 20)
    assert {path.name for path in tmp_path.iterdir()} == {shard.path for shard in shards}
    for shard in shards:
        data = (tmp_path / shard.path).read_bytes()
        assert shard.path == f"{hashlib.sha256(data).hexdigest()}.tfrecord"
        assert (shard.sha256, shard.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_examples_of_all_shards_are_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    found = []
    for shard in _written(tmp_path, 30):
        with (tmp_path / shard.path).open("rb") as stream:
            found.extend(read_frames(stream))
    assert [bytes([index] * 4) in record for index, record in enumerate(found)] == [True] * 30


def test_blocks_cover_every_shard_and_are_named_by_the_digests_of_their_bytes(tmp_path: Path) -> None:
    contract = InputContract(height=1000, width=1000, channels=1)
    writer = ShardWriter(tmp_path, expected_count=50, contract=contract)
    for index in range(50):
        writer.add(bytes([index]) * 1_000_000, label=0, source=bytes(32))
    shards = writer.close()
    blocks = parse_blocks((tmp_path / (entry := write_blocks(tmp_path, writer.blocks)).path).read_bytes(), entry)
    # Seven records of a megabyte: a block ends with the one that reaches 4 MiB, or with its shard.
    assert blocks["count"].tolist()[:4] == [5, 2, 5, 2]
    for number, shard in enumerate(shards):
        mine = blocks[blocks["shard"] == number]
        data = (tmp_path / shard.path).read_bytes()
        cuts = [data[row["offset"] : row["offset"] + row["size_bytes"]] for row in mine]
        assert b"".join(cuts) == data
        assert [hashlib.sha256(cut).digest() for cut in cuts] == [row["sha256"].tobytes() for row in mine]
        assert [len(list(read_frames(io.BytesIO(cut)))) for cut in cuts] == mine["count"].tolist()
    assert blocks["first"].tolist() == [0, *np.cumsum(blocks["count"])[:-1].tolist()]


def test_every_missing_cut_or_changed_shard_is_named(tmp_path: Path) -> None:
    shards = _written(tmp_path, 8)
    manifest = _manifest(shards)
    verify_shards(tmp_path, manifest)
    (tmp_path / shards[0].path).unlink()
    cut = tmp_path / shards[1].path
    cut.write_bytes(cut.read_bytes()[:-1])
    changed = tmp_path / shards[2].path
    changed.write_bytes(bytes([changed.read_bytes()[0] ^ 1]) + changed.read_bytes()[1:])
    with pytest.raises(IntegrityError) as refusal:
        verify_shards(tmp_path, manifest)
    text = str(refusal.value)
    assert f"{shards[0].path}: missing" in text
    assert f"{shards[1].path}: {shards[1].size_bytes - 1} bytes instead of {shards[1].size_bytes}" in text
    assert f"{shards[2].path}: digest" in text
    assert shards[3].path not in text


def test_the_manifest_reads_back_and_a_folder_without_one_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no dataset"):
        load_data_manifest(tmp_path)
    manifest = _manifest(_written(tmp_path, 8))
    (tmp_path / "data_manifest.json").write_bytes(manifest.to_json())
    assert load_data_manifest(tmp_path) == manifest
    assert manifest.count == 8
