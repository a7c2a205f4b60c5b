from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from artifact_sync import feedback
from artifact_sync.canonical import sha256_hex
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import InputError, IntegrityError
from artifact_sync.feedback import feedback_photos
from artifact_sync.records import NONE_OF_THESE, FeedbackRecord
from artifact_sync.registry import Registry

PHOTO = b"\xff\xd8 a photo"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "bucket"), model="photos")


def record(number: int, *, photo: bytes | None = PHOTO, model: str = "photos") -> FeedbackRecord:
    return FeedbackRecord(
        feedback_id=f"{number:032x}",
        request_id=f"{number:032x}",
        model=model,
        version=1,
        predicted_label="cat",
        corrected_label="dog",
        photo_sha256=None if photo is None else sha256_hex(photo),
        given_at=datetime(2026, 11, 20, 6, 0, tzinfo=UTC),
    )


def test_a_correction_becomes_a_labelled_photo(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1), photo=PHOTO)
    (photo,) = feedback_photos(registry, tmp_path / "cache")
    assert (photo.label, photo.source, photo.path.read_bytes()) == ("dog", f"feedback:{1:032x}", PHOTO)


def test_corrections_without_a_photo_are_left_out(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1, photo=None), photo=None)
    registry.write_feedback(record(2), photo=PHOTO)
    registry.store.delete(registry.photo_key(sha256_hex(PHOTO)))
    assert feedback_photos(registry, tmp_path / "cache") == []


def test_none_of_these_is_no_class_to_learn(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1).model_copy(update={"corrected_label": NONE_OF_THESE}), photo=PHOTO)
    registry.write_feedback(record(2), photo=PHOTO)
    assert [photo.label for photo in feedback_photos(registry, tmp_path / "cache")] == ["dog"]


def test_a_photo_in_the_cache_is_not_fetched_again(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1), photo=PHOTO)
    feedback_photos(registry, tmp_path / "cache")
    registry.store.delete(registry.photo_key(sha256_hex(PHOTO)))
    assert len(feedback_photos(registry, tmp_path / "cache")) == 1


def test_a_damaged_photo_in_the_cache_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1), photo=PHOTO)
    (photo,) = feedback_photos(registry, tmp_path / "cache")
    photo.path.write_bytes(b"cut")
    (again,) = feedback_photos(registry, tmp_path / "cache")
    assert again.path.read_bytes() == PHOTO


def test_a_changed_photo_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1), photo=PHOTO)
    registry.store.replace(registry.photo_key(sha256_hex(PHOTO)), b"another photo")
    with pytest.raises(IntegrityError, match=rf"Feedback {1:032x} refused: the photo in the bucket is not the one"):
        feedback_photos(registry, tmp_path / "cache")


def test_an_endless_photo_is_refused(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.write_feedback(record(1), photo=PHOTO)
    monkeypatch.setattr(feedback, "MAX_PHOTO_BYTES", 5)
    with pytest.raises(InputError, match="larger than 5 bytes"):
        feedback_photos(registry, tmp_path / "cache")


def test_feedback_about_another_model_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.write_feedback(record(1, model="other"), photo=PHOTO)
    with pytest.raises(InputError, match="about model 'other'"):
        feedback_photos(registry, tmp_path / "cache")
