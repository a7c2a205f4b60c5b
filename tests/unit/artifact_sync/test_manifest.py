from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact_sync.errors import InputError, IntegrityError
from artifact_sync.manifest import MAX_NAMED, build_manifest, find_differences, verify_manifest

names = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    directory = tmp_path / "export"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    (directory / "variables" / "index").write_bytes(b"")
    return directory


def test_a_manifest_has_path_size_and_digest_of_every_file(export: Path) -> None:
    manifest = build_manifest(export)
    assert [(entry.path, entry.size_bytes, entry.sha256) for entry in manifest.files] == [
        ("saved_model.pb", 5, hashlib.sha256(b"graph").hexdigest()),
        ("variables/index", 0, hashlib.sha256(b"").hexdigest()),
    ]
    assert manifest.size_bytes == 5
    verify_manifest(export, manifest)


@settings(max_examples=50, deadline=None)
@given(tree=st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), st.binary(max_size=50), min_size=1))
def test_what_was_built_is_verified_whatever_the_names(tmp_path_factory, tree) -> None:
    directory = tmp_path_factory.mktemp("tree")
    for parts, data in tree.items():
        path = directory.joinpath(*parts)
        # A name cannot be a file and a folder at once.
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    manifest = build_manifest(directory)
    assert [entry.path for entry in manifest.files] == sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )
    assert not find_differences(directory, manifest)


def test_every_missing_extra_and_changed_file_is_named(export: Path) -> None:
    (export / "same-size").write_bytes(b"before")
    manifest = build_manifest(export)
    (export / "saved_model.pb").write_bytes(b"longer than before")
    (export / "same-size").write_bytes(b"behind")
    (export / "variables" / "index").unlink()
    (export / "variables" / "new").write_bytes(b"")
    differences = find_differences(export, manifest)
    assert differences.missing == ("variables/index",)
    assert differences.extra == ("variables/new",)
    assert differences.changed == ("same-size", "saved_model.pb")
    with pytest.raises(
        IntegrityError,
        match="missing variables/index; extra variables/new; changed same-size; changed saved_model.pb",  # noqa: RUF043
    ):
        verify_manifest(export, manifest)


def test_many_differences_are_named_up_to_a_number_and_counted(export: Path) -> None:
    manifest = build_manifest(export)
    for number in range(MAX_NAMED + 7):
        (export / f"extra-{number:03d}").write_bytes(b"")
    with pytest.raises(IntegrityError, match=f"extra extra-000.*extra extra-{MAX_NAMED - 1:03d}; and 7 more"):
        verify_manifest(export, manifest)
    assert len(find_differences(export, manifest).extra) == MAX_NAMED + 7


@pytest.mark.parametrize("kind", ["link", "dangling", "folder-link", "pipe", "socket", "newline", "backslash", "bytes"])
def test_what_cannot_cross_is_refused_by_name(export: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = build_manifest(export)
    monkeypatch.chdir(export)
    if kind == "link":
        Path("odd").symlink_to("saved_model.pb")
    elif kind == "dangling":
        Path("odd").symlink_to("nothing")
    elif kind == "folder-link":
        Path("odd").symlink_to("variables")
    elif kind == "pipe":
        os.mkfifo("odd")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("odd")
    elif kind == "newline":
        Path("odd\nname").write_bytes(b"")
    elif kind == "backslash":
        Path("odd\\name").write_bytes(b"")
    else:
        Path(os.fsdecode(b"odd\xff")).write_bytes(b"")
    with pytest.raises(InputError, match=r"No manifest of .*odd.*remove or replace these") as caught:
        build_manifest(export)
    assert str(caught.value).isprintable()
    with pytest.raises(IntegrityError, match="refused odd"):
        verify_manifest(export, manifest)


def test_a_link_in_place_of_a_file_is_told_once(export: Path) -> None:
    manifest = build_manifest(export)
    (export / "saved_model.pb").rename(export.parent / "elsewhere")
    (export / "saved_model.pb").symlink_to(export.parent / "elsewhere")
    differences = find_differences(export, manifest)
    assert differences.unfit == ("saved_model.pb: a link",)
    assert differences.missing == differences.extra == differences.changed == ()


def test_an_empty_directory_has_no_manifest_and_differs_in_everything(export: Path, tmp_path: Path) -> None:
    for nothing in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(InputError, match="there is no file in it"):
            build_manifest(nothing)
        assert find_differences(nothing, build_manifest(export)).missing == ("saved_model.pb", "variables/index")
        (tmp_path / "empty").mkdir(exist_ok=True)


def test_empty_directories_do_not_count(export: Path) -> None:
    manifest = build_manifest(export)
    (export / "assets" / "deeper").mkdir(parents=True)
    verify_manifest(export, manifest)
    assert build_manifest(export) == manifest
