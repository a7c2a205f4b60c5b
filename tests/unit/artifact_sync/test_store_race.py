from __future__ import annotations

import threading
from pathlib import Path

import pytest

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import AlreadyExistsError, StoreError
from artifact_sync.store_race import RaceReport, race_store


class IgnorantStore(DirectoryStore):
    """Ignores the condition: whoever comes later overwrites, as several S3 servers do."""

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        assert isinstance(body, bytes)
        self.replace(key, body)


class HastyStore(DirectoryStore):
    """Looks first and writes then: right when alone, wrong in a race."""

    def __init__(self, root: Path, *, contenders: int) -> None:
        super().__init__(root)
        self.looked = threading.Barrier(contenders)

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        assert isinstance(body, bytes)
        if any(info.key == key for info in self.list(key)):
            raise AlreadyExistsError(key)
        if not key.endswith("twice"):
            self.looked.wait()
        self.replace(key, body)


class LyingStore(DirectoryStore):
    """Says that the key exists, and overwrites it all the same."""

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        try:
            super().create(key, body)
        except AlreadyExistsError:
            assert isinstance(body, bytes)
            self.replace(key, body)
            raise


class ForgetfulStore(DirectoryStore):
    """Tells everybody but the first creator of all that the key exists."""

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        super().create(key, body)
        if not key.endswith("twice"):
            raise AlreadyExistsError(key)


def test_a_good_store_passes_and_is_left_empty(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.create("m/a", b"mine")
    assert race_store(store, rounds=20, contenders=8) == RaceReport(rounds=20, contenders=8, losses=140)
    assert [info.key for info in store.list("")] == ["m/a"]


def test_a_store_that_ignores_the_condition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"ignores conditional writes: it let one key be created twice.*AWS S3"):
        race_store(IgnorantStore(tmp_path), rounds=1, contenders=2)
    assert list(DirectoryStore(tmp_path).list("")) == []


def test_a_store_that_looks_first_and_writes_then_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="under races: 3 of 3 writers were told that they created"):
        race_store(HastyStore(tmp_path, contenders=3), rounds=1, contenders=3)


def test_a_store_that_overwrites_behind_ones_back_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="overwrote an object while saying that it exists"):
        race_store(LyingStore(tmp_path), rounds=1, contenders=2)


def test_a_store_where_nobody_wins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="0 of 2 writers"):
        race_store(ForgetfulStore(tmp_path), rounds=1, contenders=2)


@pytest.mark.parametrize(("rounds", "contenders"), [(0, 2), (1, 1)])
def test_a_race_of_one_is_no_race(tmp_path: Path, rounds: int, contenders: int) -> None:
    with pytest.raises(ValueError, match="at least one round and two contenders"):
        race_store(DirectoryStore(tmp_path), rounds=rounds, contenders=contenders)
