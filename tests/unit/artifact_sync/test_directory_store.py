"""What is special about the directory store; what every store must do is in tests/contract."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifact_sync.directory_store import LEFTOVER_SECONDS, DirectoryStore
from artifact_sync.errors import AlreadyExistsError, CapacityError, StoreError
from artifact_sync.store import ObjectInfo


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def test_building_and_reading_make_nothing(store: DirectoryStore) -> None:
    assert list(store.list("")) == []
    store.delete("a/b")
    assert not store.root.exists()


def test_keys_are_paths(store: DirectoryStore) -> None:
    store.create("m/versions/000001.json", b"{}")
    assert (store.root / "m" / "versions" / "000001.json").read_bytes() == b"{}"


def test_what_a_killed_writer_left_is_neither_listed_nor_readable(store: DirectoryStore) -> None:
    store.create("m/a", b"1")
    (store.root / ".temporary" / ".tmp-half").write_bytes(b"half")
    (store.root / "m" / ".tmp-half").write_bytes(b"half")
    assert list(store.list("")) == [ObjectInfo(key="m/a", size_bytes=1)]


def test_what_a_killed_writer_left_goes_when_it_is_old(store: DirectoryStore) -> None:
    store.create("m/a", b"1")
    old, young = store.root / ".temporary" / ".tmp-old", store.root / ".temporary" / ".tmp-young"
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    long_ago = young.stat().st_mtime - LEFTOVER_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    store.create("m/b", b"2")
    assert [path.name for path in (store.root / ".temporary").iterdir()] == [".tmp-young"]


def test_bytes_and_directories_are_synced_before_create_returns(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    store.create("m/versions/1", b"x")
    assert synced[0].startswith(".tmp-")
    assert synced[1:] == ["versions", "m", "store"]


def test_creating_and_deleting_neighbours_at_once_loses_nothing(store: DirectoryStore) -> None:
    def come_and_go(name: str) -> None:
        for _ in range(100):
            store.create(f"m/same/{name}", b"x")
            assert [info.size_bytes for info in store.list(f"m/same/{name}")] == [1]
            store.delete(f"m/same/{name}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(come_and_go, ["a", "b", "c"]))
    assert list(store.list("")) == []


def test_a_key_that_is_the_folder_of_another_is_told(store: DirectoryStore) -> None:
    store.create("m/a", b"1")
    with pytest.raises(StoreError, match="Cannot create m/a/b"):
        store.create("m/a/b", b"2")
    store.create("n/a/b", b"1")
    with pytest.raises(AlreadyExistsError):
        store.create("n/a", b"2")


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (28, CapacityError, "Nothing was stored; make room"),
        (122, CapacityError, "Nothing was stored; make room"),
        (1, StoreError, "hard links"),
        (13, StoreError, "may write there"),
        (5, StoreError, "is mounted"),
    ],
)
def test_what_the_operating_system_refuses_is_told_and_leaves_nothing(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(error, match=words):
        store.create("m/a", b"body")
    monkeypatch.undo()
    assert list(store.list("")) == []
    assert list((store.root / ".temporary").iterdir()) == []


def test_a_root_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="Cannot create m/a"):
        DirectoryStore(tmp_path / "file").create("m/a", b"")
