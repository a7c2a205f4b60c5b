from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, NotFoundError, PhotoError, RecordError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from serving.photo import decode_photo
from validation.photos.holdout import Holdout, HoldoutRecord, PhotoDecoder, freeze_holdout, load_holdout

LABELS = ("cat", "dog")
CONTRACT = InputContract(height=8, width=8, channels=3)
Photos = Callable[..., list[LabelledPhoto]]


@pytest.fixture
def frozen(tmp_path: Path, photos: Photos, decoder: PhotoDecoder) -> Holdout:
    return freeze_holdout(photos(5), labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)


def test_a_frozen_holdout_is_loaded_as_it_was_frozen(frozen: Holdout) -> None:
    loaded = load_holdout(frozen.path)
    assert loaded == frozen
    assert loaded.record.labels == LABELS
    assert len(loaded.photo_sha256s) == 5
    assert sorted(loaded.truth.tolist()) == [0, 0, 0, 1, 1]
    assert HoldoutRecord.from_json((frozen.path / "holdout.json").read_bytes()) == frozen.record


def test_its_name_depends_on_photos_and_labels_and_not_on_their_order(
    tmp_path: Path, photos: Photos, decoder: PhotoDecoder, frozen: Holdout
) -> None:
    backwards = freeze_holdout(photos(5)[::-1], labels=LABELS, out_dir=tmp_path / "other", decoder=decoder)
    assert backwards.sha256 == frozen.sha256
    fewer = freeze_holdout(photos(4), labels=LABELS, out_dir=tmp_path / "fewer", decoder=decoder)
    assert fewer.sha256 != frozen.sha256


def test_it_keeps_the_original_bytes_and_gives_the_pixels_of_the_photo_contract(
    frozen: Holdout, decoder: PhotoDecoder
) -> None:
    batches = list(frozen.pixel_batches(CONTRACT, decoder=decoder, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    for item, pixels in zip(frozen.record.items, np.concatenate(batches), strict=True):
        data = frozen.read_photo(item)
        assert sha256_hex(data) == item.sha256
        assert (pixels == decode_photo(data, CONTRACT)).all()


def test_the_same_photo_twice_with_the_same_label_is_kept_once(
    tmp_path: Path, photos: Photos, decoder: PhotoDecoder
) -> None:
    given = photos(3)
    holdout = freeze_holdout([*given, given[0]], labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)
    assert len(holdout.record.items) == 3


def test_every_problem_is_listed_and_nothing_is_written(tmp_path: Path, photos: Photos, decoder: PhotoDecoder) -> None:
    given = photos(3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    problematic = [
        *given,
        replace(given[0], label="dog", source="photos.csv:17"),
        replace(given[1], label="mouse", source="photos.csv:18"),
        LabelledPhoto(path=broken, label="cat", source="photos.csv:19"),
        LabelledPhoto(path=tmp_path / "absent.png", label="cat", source="photos.csv:20"),
    ]
    with pytest.raises(InputError) as refused:
        freeze_holdout(problematic, labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)
    text = str(refused.value)
    assert "photos.csv:17 is the photo of folder:cat/photo-0-0.PNG, labelled dog and cat" in text
    assert "photos.csv:18 has the label 'mouse', which is none of cat, dog" in text
    assert "photos.csv:19 is refused" in text
    assert "photos.csv:20 cannot be read (No such file or directory)" in text
    assert [path.name for path in tmp_path.iterdir() if "photo" not in path.name] == ["broken.png"]


def test_some_photos_of_each_label_are_open_and_the_same_ones_each_time(
    tmp_path: Path, photos: Photos, decoder: PhotoDecoder
) -> None:
    holdout = freeze_holdout(photos(40), labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder, open_share=0.25)
    opened = [item.label for item in holdout.record.items if item.is_open]
    assert sorted(opened) == ["cat"] * 5 + ["dog"] * 5
    again = freeze_holdout(photos(40), labels=LABELS, out_dir=tmp_path / "again", decoder=decoder, open_share=0.25)
    other = freeze_holdout(photos(40), labels=LABELS, out_dir=tmp_path / "other", decoder=decoder, open_share=0.5)
    assert again.sha256 == holdout.sha256 != other.sha256


def test_photos_of_a_holdout_that_people_looked_at_are_open(
    tmp_path: Path, photos: Photos, decoder: PhotoDecoder
) -> None:
    old = freeze_holdout(photos(6), labels=LABELS, out_dir=tmp_path / "old", decoder=decoder)
    new = freeze_holdout(
        [*photos(6), *photos(30, seed=1)],
        labels=LABELS,
        out_dir=tmp_path / "new",
        decoder=decoder,
        open_from=[old.record],
    )
    assert {item.sha256 for item in new.record.items if item.is_open} == old.photo_sha256s
    with pytest.raises(InputError, match="every photo would be open"):
        freeze_holdout(photos(6), labels=LABELS, out_dir=tmp_path / "x", decoder=decoder, open_from=[old.record])
    assert not (tmp_path / "x").exists()


def test_a_holdout_that_could_show_nothing_is_refused(tmp_path: Path, photos: Photos, decoder: PhotoDecoder) -> None:
    with pytest.raises(InputError, match="no photo would be open"):
        freeze_holdout(photos(2), labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)
    with pytest.raises(InputError, match=r"the open share is 1\.5"):
        freeze_holdout(photos(8), labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder, open_share=1.5)


def test_no_photos_make_no_holdout(tmp_path: Path, decoder: PhotoDecoder) -> None:
    with pytest.raises(InputError, match="there are no photos"):
        freeze_holdout([], labels=LABELS, out_dir=tmp_path / "holdout", decoder=decoder)


def test_a_frozen_folder_is_never_frozen_over(frozen: Holdout, photos: Photos, decoder: PhotoDecoder) -> None:
    with pytest.raises(AlreadyExistsError, match="a holdout never changes"):
        freeze_holdout(photos(2), labels=LABELS, out_dir=frozen.path, decoder=decoder)


def test_each_difference_from_what_was_frozen_is_named(frozen: Holdout) -> None:
    missing, changed, *_ = [item.file_name for item in frozen.record.items]
    (frozen.path / "photos" / missing).unlink()
    (frozen.path / "photos" / changed).write_bytes(b"another photo")
    (frozen.path / "photos" / "added.png").write_bytes(b"one more")
    with pytest.raises(IntegrityError) as refused:
        load_holdout(frozen.path)
    text = str(refused.value)
    assert f"{missing} (" in text
    assert ") is missing" in text
    assert f"{changed} (" in text
    assert ") has changed" in text
    assert "added.png was added" in text


def test_a_folder_without_a_record_is_no_holdout(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"holdout\.json is missing"):
        load_holdout(tmp_path)


def test_a_holdout_from_before_photos_had_sides_is_refused_with_what_to_do(frozen: Holdout) -> None:
    text = frozen.record.to_json().replace(b"liftgate.holdout/2", b"liftgate.holdout/1")
    (frozen.path / "holdout.json").write_bytes(text)
    with pytest.raises(RecordError, match="with photos that no report has shown"):
        load_holdout(frozen.path)


def test_progress_is_told_for_each_photo(tmp_path: Path, photos: Photos, decoder: PhotoDecoder) -> None:
    told: list[tuple[int, int]] = []
    freeze_holdout(
        photos(6),
        labels=LABELS,
        out_dir=tmp_path / "holdout",
        decoder=decoder,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 6) for done in range(1, 7)]


def test_a_record_with_a_label_edited_by_hand_is_another_holdout(frozen: Holdout) -> None:
    record = frozen.path / "holdout.json"
    swapped = record.read_bytes().replace(b'"label":"cat"', b'"label":"dog"', 1)
    record.write_bytes(swapped)
    assert load_holdout(frozen.path).sha256 != frozen.sha256
    record.write_bytes(swapped.replace(b'"label":"dog"', b'"label":"mouse"', 1))
    with pytest.raises(RecordError, match="hold the label of every item"):
        load_holdout(frozen.path)


def test_a_photo_that_the_contract_refuses_later_stops_the_judging(frozen: Holdout) -> None:
    class Refusing:
        def decode_many(self, photos: object, contract: InputContract) -> object:
            yield PhotoError("too much", reason="decode-limit")

    with pytest.raises(PhotoError, match="too much"):
        list(frozen.pixel_batches(CONTRACT, decoder=Refusing(), batch_size=2))  # type: ignore[arg-type]
