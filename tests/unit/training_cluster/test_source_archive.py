"""The packed source tree: equal sources give equal names, and it says which commit it is."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from artifact_sync.errors import NotFoundError
from training_cluster.hosts.source_archive import pack_source, placed_commit


def make_tree(tree: Path) -> Path:
    for package in ("artifact_sync", "serving", "training_cluster"):
        (tree / package / "__pycache__").mkdir(parents=True)
        (tree / package / "__init__.py").write_text(f"name = {package!r}\n")
        (tree / package / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"compiled")
    (tree / "web").mkdir()
    (tree / "web" / "__init__.py").write_text("")
    return tree


def test_equal_sources_give_the_same_archive_and_others_another(tmp_path: Path) -> None:
    one, two = make_tree(tmp_path / "one"), make_tree(tmp_path / "two")

    first = pack_source(one, out_dir=tmp_path / "a")
    again = pack_source(two, out_dir=tmp_path / "b")
    (two / "serving" / "__init__.py").write_text("changed = True\n")
    other = pack_source(two, out_dir=tmp_path / "b")

    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.path.name == f"{first.sha256}.tar.gz"
    assert other.sha256 != first.sha256


def test_the_archive_holds_what_training_needs_and_its_commit_last(tmp_path: Path) -> None:
    archive = pack_source(make_tree(tmp_path / "tree"), out_dir=tmp_path)

    with tarfile.open(archive.path) as members:
        names = members.getnames()
    assert names == ["artifact_sync/__init__.py", "serving/__init__.py", "training_cluster/__init__.py", "code.json"]


def test_unpacked_code_knows_its_commit_and_a_checkout_asks_git(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tree), *arguments], check=True)

    archive = pack_source(tree, out_dir=tmp_path)
    with tarfile.open(archive.path) as members:
        members.extractall(tmp_path / "placed", filter="data")

    assert not archive.is_dirty
    assert placed_commit(tmp_path / "placed") == (archive.commit, False)
    assert placed_commit(tree) is None
    (tree / "serving" / "__init__.py").write_text("changed = True\n")
    assert pack_source(tree, out_dir=tmp_path).is_dirty


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run from a checkout of Liftgate"):
        pack_source(tmp_path, out_dir=tmp_path)


def test_the_packed_tree_is_enough_to_talk_to_a_host(repository: Path, tmp_path: Path) -> None:
    archive = pack_source(repository, out_dir=tmp_path)
    with tarfile.open(archive.path) as members:
        members.extractall(tmp_path / "placed", filter="data")

    command = [sys.executable, "-m", "training_cluster.hosts.host_side", "state", "--launch-dir", "x", "--run-dir", "y"]
    done = subprocess.run(command, cwd=tmp_path / "placed", capture_output=True, text=True, check=False)

    assert '"absent"' in done.stdout, done.stderr
