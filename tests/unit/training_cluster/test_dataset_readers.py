"""Where labelled photos are found: folders and CSV files, with every wrong row named."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact_sync.errors import InputError
from artifact_sync.labelled_photo import LabelledPhoto
from training_cluster.datasets.readers import photos_from_csv, photos_from_folder
from training_cluster.datasets.stored_photos import StoredPhoto


def _photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked at here")
    return path


def _csv(directory: Path, text: str) -> Path:
    path = directory / "photos.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_folder_is_the_label_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/a.png", "cat/more/c.jpg", "cat/.DS_Store", ".git/config"):
        _photo(tmp_path / name)
    photos = photos_from_folder(tmp_path)
    assert sorted((photo.label, photo.source) for photo in photos) == [
        ("cat", "folder:cat/a.png"),
        ("cat", "folder:cat/more/c.jpg"),
        ("dog", "folder:dog/b.png"),
    ]


def test_every_file_outside_of_a_class_folder_is_named(tmp_path: Path) -> None:
    for name in ("cat/a.png", "stray.png", "another.png"):
        _photo(tmp_path / name)
    with pytest.raises(InputError) as refusal:
        list(photos_from_folder(tmp_path))
    assert "2 entries" in str(refusal.value)
    assert "stray.png" in str(refusal.value)
    assert "another.png" in str(refusal.value)


def test_no_folder_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        list(photos_from_folder(tmp_path / "none"))
    with pytest.raises(InputError, match="holds none"):
        list(photos_from_folder(tmp_path))


def test_a_csv_gives_label_path_line_and_slices(tmp_path: Path) -> None:
    _photo(tmp_path / "shots" / "a,1.png")
    path = _csv(tmp_path, '\ufeffpath,label,site\n"shots/a,1.png", crack ,plant 2\n')
    (photo,) = photos_from_csv(path)
    assert (photo.path, photo.label, photo.source) == (tmp_path / "shots" / "a,1.png", "crack", "photos.csv:2")
    assert photo.slices == {"site": "plant 2"}


def test_a_csv_may_name_annotators_sources_and_photos_in_a_bucket(tmp_path: Path) -> None:
    _photo(tmp_path / "a.png")
    text = "path,label,annotator,source,site\na.png,crack,ada,patient 7,north\ns3://scans/x/b.png,sound,,,south\n"
    here, stored = photos_from_csv(_csv(tmp_path, text))
    assert isinstance(here, LabelledPhoto)
    assert (here.annotator, here.origin, here.slices) == ("ada", "patient 7", {"site": "north"})
    assert isinstance(stored, StoredPhoto)
    assert (stored.url, stored.source, stored.origin) == ("s3://scans/x/b.png", "photos.csv:3", "")


def test_every_wrong_row_is_named_by_its_line_at_once(tmp_path: Path) -> None:
    _photo(tmp_path / "a.png")
    rows = ["path,label", "a.png,ok", "a.png,", "missing.png,ok", ",ok", "a.png", "a.png,ok,extra", "a\0.png,ok"]
    with pytest.raises(InputError) as refusal:
        list(photos_from_csv(_csv(tmp_path, "\n".join(rows) + "\n")))
    text = str(refusal.value)
    assert "6 entries" in text
    for line, reason in [
        (3, "it has no label"),
        (4, "there is no file"),
        (5, "it has no path"),
        (6, "another number of columns"),
        (7, "another number of columns"),
        (8, "NUL"),
    ]:
        assert any(f"photos.csv:{line}:" in entry and reason in entry for entry in text.splitlines()), (line, text)


@pytest.mark.parametrize("header", ["", "file,label", "path,label,path", "path,label,"])
def test_columns_that_are_missing_double_or_nameless_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="the columns must be path, label"):
        list(photos_from_csv(_csv(tmp_path, f"{header}\na,b,c\n")))


def test_a_missing_binary_or_empty_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        list(photos_from_csv(tmp_path / "none.csv"))
    (tmp_path / "photos.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        list(photos_from_csv(tmp_path / "photos.csv"))
    with pytest.raises(InputError, match="has no rows"):
        list(photos_from_csv(_csv(tmp_path, "path,label\n")))


def test_a_long_list_of_faults_is_cut_with_the_number_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="and 150 more"):
        list(photos_from_csv(_csv(tmp_path, "path,label\n" + "x.png,\n" * 200)))
