"""The first pass of dataset build: double, contradictory, forbidden and unreadable photos."""

from __future__ import annotations

from pathlib import Path

from artifact_sync.canonical import sha256_hex
from artifact_sync.labelled_photo import LabelledPhoto
from training_cluster.datasets.survey import Account, Source, slice_counts, sources_sha256, survey


def _photo(directory: Path, name: str, data: bytes, label: str, **slices: str) -> LabelledPhoto:
    (directory / name).write_bytes(data)
    return LabelledPhoto(directory / name, label=label, source=name, slices=slices)


def _survey(
    photos: list[LabelledPhoto], *, excluded: set[str] | None = None, labels: list[str] | None = None
) -> tuple[tuple[Source, ...], Account]:
    account = Account()
    return survey(photos, labels=labels, excluded_sha256s=excluded or set(), account=account), account


def test_the_order_is_that_of_the_digests_whatever_the_order_handed_in(tmp_path: Path) -> None:
    photos = [_photo(tmp_path, f"{index}.png", bytes([index]), "a") for index in range(20)]
    forward, _ = _survey(photos)
    backward, _ = _survey(photos[::-1])
    assert forward == backward
    assert [source.sha256 for source in forward] == sorted(sha256_hex(bytes([index])) for index in range(20))


def test_the_same_file_twice_is_one_example_and_a_duplicate(tmp_path: Path) -> None:
    sources, account = _survey([_photo(tmp_path, "b", b"x", "cat"), _photo(tmp_path, "a", b"x", "cat")])
    assert [source.photo.source for source in sources] == ["a"]
    assert [(entry.source, entry.reason) for entry in account.duplicates] == [("b", "the same file as a")]


def test_the_same_file_with_two_labels_is_rejected_both_times(tmp_path: Path) -> None:
    sources, account = _survey([_photo(tmp_path, "a", b"x", "cat"), _photo(tmp_path, "b", b"x", "dog")])
    assert sources == ()
    assert [entry.source for entry in account.rejects] == ["a", "b"]
    assert "cat by a, dog by b" in account.rejects[0].reason


def test_a_photo_of_the_holdout_is_excluded_by_its_bytes(tmp_path: Path) -> None:
    sources, account = _survey([_photo(tmp_path, "a", b"x", "cat")], excluded={sha256_hex(b"x")})
    assert sources == ()
    assert account.excluded[0].reason == "its bytes are in the holdout"


def test_missing_files_and_unknown_or_empty_labels_are_rejects(tmp_path: Path) -> None:
    photos = [
        LabelledPhoto(tmp_path / "none.png", label="cat", source="row 1"),
        _photo(tmp_path, "row 2", b"x", "cow"),
        _photo(tmp_path, "row 3", b"y", "  "),
    ]
    sources, account = _survey(photos, labels=["cat", "dog"])
    assert sources == ()
    reasons = {entry.source: entry.reason for entry in account.rejects}
    assert "cannot be read: No such file" in reasons["row 1"]
    assert reasons["row 2"] == "label 'cow' is none of cat, dog"
    assert reasons["row 3"] == "it has no label"


def test_the_digest_of_the_sources_follows_bytes_label_and_slices(tmp_path: Path) -> None:
    def digest(data: bytes, label: str, **slices: str) -> str:
        return sources_sha256(_survey([_photo(tmp_path, "a", data, label, **slices)])[0])

    assert digest(b"x", "cat") == digest(b"x", "cat")
    assert len({digest(b"x", "cat"), digest(b"y", "cat"), digest(b"x", "dog"), digest(b"x", "cat", site="2")}) == 4


def test_slices_are_counted_by_column_and_value(tmp_path: Path) -> None:
    photos = [_photo(tmp_path, str(index), b"", "cat", site="north" if index else "south") for index in range(3)]
    assert slice_counts(photos) == {"site": {"north": 2, "south": 1}}
