from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifact_sync.durable import (
    create_durably,
    fsync_tree,
    link_durably,
    make_directory,
    temporary_file,
    write_durably,
)
from artifact_sync.errors import AlreadyExistsError


class Calls:
    """Records the operating system's calls that durability rests on, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        fsync, link = os.fsync, os.link

        def record_fsync(descriptor: int) -> None:
            self.made.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
            fsync(descriptor)

        def record_link(source: Path, target: Path) -> None:
            self.made.append(f"link {Path(target).name}")
            link(source, target)

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(os, "link", record_link)


def test_a_file_is_written_and_overwritten_whole(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.json"
    write_durably(path, b"old")
    write_durably(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    create_durably(path, b"first")
    with pytest.raises(AlreadyExistsError, match=r"verdict\.json exists already"):
        create_durably(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["verdict.json"]


def test_of_many_creators_exactly_one_wins(tmp_path: Path) -> None:
    def create(number: int) -> bool:
        try:
            create_durably(tmp_path / "one", b"%d" % number)
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(64)))
    assert won.count(True) == 1
    assert (tmp_path / "one").read_bytes() == b"%d" % won.index(True)


def test_the_bytes_are_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    create_durably(tmp_path / "new" / "file", b"x")
    temporary = calls.made[1]
    assert temporary.startswith("fsync .tmp-")
    assert calls.made == [f"fsync {tmp_path.name}", temporary, "link file", "fsync new"]


def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_durably(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_linked_temporary_keeps_its_bytes(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as (temporary, stream):
        stream.write(b"body")
        stream.flush()
        link_durably(temporary, tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"body"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_every_new_directory_is_made_durable_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    make_directory(tmp_path / "a" / "b")
    assert calls.made == ["fsync a", f"fsync {tmp_path.name}"]
    make_directory(tmp_path / "a" / "b")
    assert len(calls.made) == 2


def test_a_tree_is_synced_from_its_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"")
    calls = Calls(monkeypatch)
    fsync_tree(tmp_path / "a")
    assert calls.made == ["fsync file", "fsync b", "fsync a"]
