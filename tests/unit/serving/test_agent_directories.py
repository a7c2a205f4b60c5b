"""Version directories on the disk: verified, mended, removed, and what interrupted steps left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync.errors import IntegrityError
from artifact_sync.manifest import build_manifest
from serving import version_directories
from serving.version_directories import VersionDirectories


@pytest.fixture
def place(agent_lab: ModuleType, tmp_path: Path) -> Any:
    """Directories with version 1 and its record."""
    directories = VersionDirectories(tmp_path / "models" / "shapes", model="shapes")
    agent_lab.write_export(directories.directory(1), weight=1.0)
    directories.remember(agent_lab.version_record(1, build_manifest(directories.directory(1))))
    return directories


def test_only_plain_integer_directories_are_versions(place: VersionDirectories) -> None:
    for name in ("0x2", "02", "v3", ".incoming-4", ".removed-5-ab", "6.old"):
        (place.path / name).mkdir()
    (place.path / "7").write_text("a file")
    (place.path / "8").symlink_to(place.directory(1))
    assert place.numbers() == {1}


def test_a_directory_is_verified_by_its_remembered_record(place: VersionDirectories) -> None:
    assert place.is_verified(1)
    assert not place.is_verified(2)
    (place.path / ".records" / "000001.json").unlink()
    assert not place.is_verified(1)


def test_bytes_are_read_once_until_something_changes(
    place: VersionDirectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = version_directories.verify_manifest
    monkeypatch.setattr(version_directories, "verify_manifest", lambda *arguments: reads.append(1) or real(*arguments))
    assert all(place.is_verified(1) for _ in range(5))
    assert len(reads) == 1
    file = place.directory(1) / "saved_model.pb"
    info = file.stat()
    file.write_bytes(b"b graph")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert not any(place.is_verified(1) for _ in range(5))
    assert len(reads) == 2, "a damaged directory is not read again at every look either"
    VersionDirectories(place.path, model="shapes").is_verified(1)
    assert len(reads) == 3, "a new process believes nothing"


def test_an_extra_file_is_seen_although_no_other_file_changed(place: VersionDirectories) -> None:
    assert place.is_verified(1)
    (place.directory(1) / "variables" / "extra").write_text("")
    assert not place.is_verified(1)


def test_mending_replaces_what_differs_and_never_takes_the_directory_away(
    place: VersionDirectories, agent_lab: ModuleType
) -> None:
    record = place.record(1)
    assert record is not None
    shutil.copytree(place.directory(1), place.mending / "1")
    target = place.directory(1)
    before = target.stat().st_ino
    (target / "saved_model.pb").unlink()
    (target / "saved_model.pb").mkdir()
    (target / "variables" / "variables.index").write_bytes(b"other")
    (target / "stray" / "deep").mkdir(parents=True)
    (target / "stray" / "deep" / "file").write_text("")
    (target / "link").symlink_to("/etc")
    with pytest.raises(IntegrityError):
        place.verify(record)
    place.mend(record)
    assert place.is_verified(1)
    assert target.stat().st_ino == before
    assert not place.mending.exists()
    assert sorted(path.name for path in target.iterdir()) == ["assets.extra", "saved_model.pb", "variables"]


def test_a_removed_version_leaves_nothing(place: VersionDirectories) -> None:
    place.remove(1)
    assert [path.name for path in place.path.iterdir()] == [".records"]
    assert not list((place.path / ".records").iterdir())


def test_leftovers_of_interrupted_steps_are_found_and_cleared_but_a_wanted_pull_goes_on(
    place: VersionDirectories,
) -> None:
    for name in (".incoming-2", ".incoming-3", ".removed-9-ab", ".mending"):
        (place.path / name).mkdir()
        (place.path / name / "file").write_text("")
    for path in (place.path / ".tmp-1", place.path.parent / ".tmp-2", place.path / ".records" / ".tmp-3"):
        path.write_text("")
    found = place.leftovers(wanted=frozenset({2}))
    assert {path.name for path in found} == {".incoming-3", ".removed-9-ab", ".mending", ".tmp-1", ".tmp-2", ".tmp-3"}
    place.clear(found)
    assert sorted(path.name for path in place.path.iterdir()) == [".incoming-2", ".records", "1"]


def test_a_record_of_another_model_or_version_is_not_believed(place: VersionDirectories, agent_lab: ModuleType) -> None:
    record = place.record(1)
    assert record is not None
    (place.path / ".records" / "000002.json").write_bytes(record.to_json())
    assert place.record(2) is None
    assert VersionDirectories(place.path, model="flowers").record(1) is None
    (place.path / ".records" / "000001.json").write_bytes(b"{}")
    assert place.record(1) is None
