from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from artifact_sync.canonical import sha256_hex
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, NotFoundError
from artifact_sync.records import Acknowledgement, FeedbackRecord
from artifact_sync.registry import Registry

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "bucket"), model="photos")


def acknowledgement(host: str, *, release: int = 57, outcome: str = "serving") -> Acknowledgement:
    return Acknowledgement(
        model="photos",
        release=release,
        release_sha256="a" * 64,
        host=host,
        outcome=outcome,
        serving_version=42,
        loaded_versions=(41, 42),
        detail="",
        took_seconds=1.5,
        at=NOON,
    )


def feedback(number: int, *, photo: bytes | None, day: int = 20) -> FeedbackRecord:
    return FeedbackRecord(
        feedback_id=f"{number:032x}",
        request_id="b" * 32,
        model="photos",
        version=42,
        predicted_label="cat",
        corrected_label="dog",
        photo_sha256=None if photo is None else sha256_hex(photo),
        given_at=NOON.replace(day=day),
    )


def test_keys_are_spelled_as_the_layout_says(registry: Registry) -> None:
    assert registry.blob_key("a" * 64) == f"photos/blobs/sha256/{'a' * 64}"
    assert registry.version_key(42) == "photos/versions/000042.json"
    assert registry.release_key(57) == "photos/releases/000057.json"
    registry.create_metadata("targets", 3, b"{}")
    registry.replace_timestamp(b"{}")
    registry.write_acknowledgement(acknowledgement("host-1"))
    registry.write_feedback(feedback(1, photo=None), photo=None)
    assert [info.key for info in registry.store.list("")] == [
        "photos/acknowledgements/000057/host-1.json",
        f"photos/feedback/2026-11-20/{1:032x}.json",
        "photos/metadata/3.targets.json",
        "photos/metadata/timestamp.json",
    ]


def test_a_blob_is_there_only_with_its_size(registry: Registry) -> None:
    digest = sha256_hex(b"weights")
    assert not registry.has_blob(digest, size_bytes=7)
    registry.put_blob(b"weights", sha256=digest)
    registry.put_blob(b"weights", sha256=digest)
    assert registry.has_blob(digest, size_bytes=7)
    assert not registry.has_blob(digest, size_bytes=8)
    with registry.open_blob(digest) as stream:
        assert stream.read() == b"weights"


def test_a_blob_under_a_wrong_digest_is_never_stored(registry: Registry) -> None:
    with pytest.raises(IntegrityError, match="was not stored"):
        registry.put_blob(b"weights", sha256="a" * 64)
    with pytest.raises(NotFoundError):
        registry.open_blob("a" * 64)


def test_a_damaged_blob_in_the_bucket_is_told_to_who_would_push_it(registry: Registry) -> None:
    digest = sha256_hex(b"weights")
    registry.store.create(registry.blob_key(digest), b"weig")
    with pytest.raises(IntegrityError, match=r"is damaged: .* Delete that object"):
        registry.put_blob(b"weights", sha256=digest)


def test_metadata_is_created_once_and_listed_by_number(registry: Registry) -> None:
    for number in (10, 9, 1):
        registry.create_metadata("targets", number, b"%d" % number)
    registry.create_metadata("releases", 4, b"")
    registry.replace_timestamp(b"1")
    registry.replace_timestamp(b"2")
    for stray in ("x.targets.json", "01.targets.json", "2.targets.json.old"):
        registry.store.create(f"photos/metadata/{stray}", b"")
    with pytest.raises(AlreadyExistsError):
        registry.create_metadata("targets", 10, b"other")
    assert registry.metadata_numbers("targets") == (1, 9, 10)
    assert registry.metadata_numbers("snapshot") == ()
    assert registry.read_metadata("10.targets.json") == b"10"
    assert registry.read_metadata("timestamp.json") == b"2"


def test_an_object_that_is_no_acknowledgement_hides_no_other(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.store.create("photos/acknowledgements/000057/a-liar.json", b"{}")
    written = acknowledgement("b")
    registry.write_acknowledgement(written)
    assert registry.acknowledgements(57) == (written,)
    assert "photos/acknowledgements/000057/a-liar.json is no acknowledgement and is left out" in caplog.text


def test_acknowledgements_are_appended_and_never_overwritten(registry: Registry) -> None:
    for host, outcome in (("b.example.com", "failed"), ("a", "serving"), ("b.example.com", "serving")):
        registry.write_acknowledgement(acknowledgement(host, outcome=outcome))
    registry.write_acknowledgement(acknowledgement("a", release=58))
    found = registry.acknowledgements(57)
    assert [(record.host, record.outcome) for record in found] == [
        ("a", "serving"),
        ("b.example.com", "failed"),
        ("b.example.com", "serving"),
    ]
    with pytest.raises(InputError, match="no letter or digit"):
        registry.write_acknowledgement(acknowledgement("…"))


def test_feedback_brings_its_photo_and_may_be_repeated(registry: Registry) -> None:
    for _ in range(2):
        registry.write_feedback(feedback(2, photo=b"jpeg", day=21), photo=b"jpeg")
        registry.write_feedback(feedback(1, photo=None), photo=None)
    assert list(registry.feedback()) == [feedback(1, photo=None), feedback(2, photo=b"jpeg", day=21)]
    with registry.open_photo(sha256_hex(b"jpeg")) as stream:
        assert stream.read() == b"jpeg"
    assert list(registry.store.list("photos/blobs/")) == [], "a front end has no right to write where models lie"


@pytest.mark.parametrize("photo", [None, b"another photo"])
def test_feedback_with_another_photo_than_it_names_is_refused(registry: Registry, photo: bytes | None) -> None:
    with pytest.raises(InputError, match="refused"):
        registry.write_feedback(feedback(1, photo=b"jpeg"), photo=photo)
    assert list(registry.store.list("")) == []
