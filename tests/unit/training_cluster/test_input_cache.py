"""Blocks on a local disk: within their bound, shared by processes, never a reason to stop; and blocks from afar."""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError, StoreError, TrainingError
from training_cluster.inputs.block_cache import BlockCache
from training_cluster.inputs.folder import FolderRanges
from training_cluster.inputs.source import DataSource, open_source

_BLOCKS = {hashlib.sha256(bytes([number])).hexdigest(): bytes([number]) * 100 for number in range(12)}


def _cache(directory: Path, *, most_bytes: int = 1000, own: frozenset[str] = frozenset(_BLOCKS)) -> BlockCache:
    cache = BlockCache(directory, most_bytes=most_bytes, own=own)
    cache.open()
    return cache


def _kept(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("??/*.block"))


def test_blocks_stay_within_the_bound_and_the_first_ones_stay(tmp_path: Path) -> None:
    cache = _cache(tmp_path / "cache", most_bytes=550)
    for digest, data in _BLOCKS.items():
        cache.put(digest, data)
    found = [cache.get(digest) for digest in _BLOCKS]
    assert found == [*list(_BLOCKS.values())[:5], *[None] * 7]
    assert _kept(tmp_path / "cache") == 500


def test_a_restart_finds_what_was_kept_and_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    digest, data = next(iter(_BLOCKS.items()))
    cache.put(digest, data)
    stale, fresh = tmp_path / f".{digest}.1.1", tmp_path / f".{digest}.2.2"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    (tmp_path / "total").write_bytes(b"%-31d\n" % 10**9)
    again = _cache(tmp_path)
    assert again.get(digest) == data
    assert not stale.exists()
    assert fresh.exists()
    other = list(_BLOCKS)[1]
    again.put(other, _BLOCKS[other])
    assert again.get(other) == _BLOCKS[other]


def test_blocks_of_another_dataset_make_room(tmp_path: Path) -> None:
    old, new = list(_BLOCKS)[:6], list(_BLOCKS)[6:]
    before = _cache(tmp_path, most_bytes=600, own=frozenset(old))
    for number, digest in enumerate(old):
        before.put(digest, _BLOCKS[digest])
        os.utime(next(tmp_path.glob(f"*/{digest}.block")), (number, number))
    after = _cache(tmp_path, most_bytes=600, own=frozenset(new))
    for digest in new[:2]:
        after.put(digest, _BLOCKS[digest])
    assert [after.get(digest) is None for digest in (*old, *new)] == [True] * 2 + [False] * 6 + [True] * 4
    assert _kept(tmp_path) == 600


def test_many_at_once_keep_one_count(tmp_path: Path) -> None:
    caches = [_cache(tmp_path, most_bytes=850) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for cache in caches:
            for digest, data in _BLOCKS.items():
                pool.submit(cache.put, digest, data)
    assert _kept(tmp_path) <= 850
    assert int((tmp_path / "total").read_bytes()) <= 850


def test_a_disk_that_takes_no_more_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = _cache(tmp_path)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING):
        for digest, data in _BLOCKS.items():
            cache.put(digest, data)
    assert [record.getMessage() for record in caplog.records] == [
        f"The cache {tmp_path} cannot take more: its disk is full. Reading goes on without."
    ]
    assert cache.get(next(iter(_BLOCKS))) is None


class _FromAfar(FolderRanges):
    """A folder behind a network that spoils the first reads, or all, or fails."""

    is_near = False
    spoiled = 0
    reads = 0

    def read(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        self.reads += 1
        if self.spoiled < 0:
            raise StoreError("Cannot read it: no route.")
        data = super().read(name, offset=offset, size_bytes=size_bytes)
        return data if self.reads > self.spoiled else data[::-1]


def _afar(lab: ModuleType, directory: Path, *, spoiled: int) -> tuple[DataSource, _FromAfar]:
    pixels = np.zeros((40, 2, 2, 1), np.uint8)
    lab.write_indexed_dataset(directory / "data", pixels, np.arange(40) % 2, labels=("a", "b"))
    near = open_source(str(directory / "data"))
    ranges = _FromAfar(directory / "data")
    ranges.spoiled = spoiled
    source = DataSource("afar", ranges, manifest=near.manifest, blocks=near.blocks, examples=near.examples)
    return source, ranges


def test_what_a_network_spoils_is_read_again_and_looked_at_each_time(training_lab: ModuleType, tmp_path: Path) -> None:
    source, ranges = _afar(training_lab, tmp_path, spoiled=2)
    expected = open_source(str(tmp_path / "data")).read_block(1)
    assert source.read_block(1) == expected
    assert ranges.reads == 3
    ranges.spoiled = 4
    assert source.read_block(1) == expected
    ranges.spoiled = 1000
    with pytest.raises(IntegrityError, match=r"\.tfrecord in afar was changed"):
        source.read_block(1)


def test_a_store_that_fails_is_named_with_the_key(training_lab: ModuleType, tmp_path: Path) -> None:
    source, _ = _afar(training_lab, tmp_path, spoiled=-1)
    with pytest.raises(
        TrainingError, match=r"[0-9a-f]{64}\.tfrecord in afar cannot be read. Cannot read it: no route."
    ):
        source.read_block(0)
