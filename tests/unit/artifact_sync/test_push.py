from __future__ import annotations

import random
from pathlib import Path

import pytest

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import IntegrityError, StoreError
from artifact_sync.manifest import build_manifest
from artifact_sync.push import PushReport, push_export
from artifact_sync.records import Manifest
from artifact_sync.registry import Registry


class WatchedStore(DirectoryStore):
    """A directory store that tells a test which objects are created, before they are."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before_create = lambda key: None

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        self.before_create(key)
        super().create(key, body, sha256=sha256)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "bucket")


@pytest.fixture
def registry(store: WatchedStore) -> Registry:
    return Registry(store, model="m")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    directory = tmp_path / "export"
    directory.mkdir()
    for number in range(5):
        (directory / f"file-{number}").write_bytes(random.Random(number).randbytes(1000 + number))
    (directory / "same-as-0").write_bytes((directory / "file-0").read_bytes())
    return directory


@pytest.fixture
def files(export: Path) -> Manifest:
    return build_manifest(export)


def test_each_content_goes_up_once_and_then_never_again(registry: Registry, export: Path, files: Manifest) -> None:
    assert push_export(registry, export, files) == PushReport(
        uploaded_files=5, uploaded_bytes=5010, present_files=0, present_bytes=0
    )
    for entry in files.files:
        with registry.open_blob(entry.sha256) as stream:
            assert stream.read() == (export / entry.path).read_bytes()
    assert push_export(registry, export, files) == PushReport(
        uploaded_files=0, uploaded_bytes=0, present_files=5, present_bytes=5010
    )


def test_progress_goes_from_the_first_file_to_all_bytes(registry: Registry, export: Path, files: Manifest) -> None:
    seen: list[tuple[int, int]] = []
    push_export(registry, export, files, progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [5010] * 5
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (5010, 5010)


def test_an_export_that_changed_is_refused_before_anything_is_sent(
    registry: Registry, export: Path, files: Manifest
) -> None:
    (export / "file-3").write_bytes(b"changed")
    (export / "new").write_bytes(b"")
    with pytest.raises(IntegrityError, match="extra new; changed file-3"):
        push_export(registry, export, files)
    assert list(registry.store.list("")) == []


def test_a_file_that_changes_during_the_push_never_becomes_a_blob(
    registry: Registry, store: WatchedStore, export: Path, files: Manifest
) -> None:
    store.before_create = lambda key: (export / "file-4").write_bytes(b"changed at the last moment")
    with pytest.raises(IntegrityError, match="was not stored"):
        push_export(registry, export, files)
    by_digest = {entry.sha256: (export / entry.path) for entry in files.files}
    for info in registry.store.list(""):
        with registry.store.open(info.key) as stream:
            assert stream.read() == by_digest[info.key.rpartition("/")[2]].read_bytes()


def test_a_push_that_failed_goes_on_where_it_stopped(
    registry: Registry, store: WatchedStore, export: Path, files: Manifest
) -> None:
    created: list[str] = []

    def fail_at_the_third(key: str) -> None:
        if len(created) == 2:
            raise StoreError("the network is gone")
        created.append(key)

    store.before_create = fail_at_the_third
    with pytest.raises(StoreError, match="the network is gone"):
        push_export(registry, export, files, workers=1)
    store.before_create = lambda key: None
    report = push_export(registry, export, files)
    assert (report.present_files, report.uploaded_files) == (2, 3)
