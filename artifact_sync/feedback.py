"""People's corrections as labelled photos on disk, ready for the next dataset.

Its place in the flow: the front end writes feedback into the bucket, `liftgate dataset build` reads
it through here. Feedback is not signed, so a photo is believed only as far as its digest goes, and
the label is what some person said.
"""

from __future__ import annotations

from pathlib import Path

from artifact_sync.canonical import sha256_hex
from artifact_sync.durable import write_durably
from artifact_sync.errors import InputError, IntegrityError, NotFoundError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import NONE_OF_THESE, FeedbackRecord
from artifact_sync.registry import Registry

MAX_PHOTO_BYTES = 32 * 1024 * 1024


def feedback_photos(registry: Registry, cache_dir: Path) -> list[LabelledPhoto]:
    """Return every correction that came with a photo, the photo being at `cache_dir/<sha256>`.

    Photos that are there already are not fetched again. A correction without a photo, or whose
    photo was deleted on its owner's wish, is left out; so is one that says "none of these", which
    tells that the answer was wrong but names no class to learn.

    Raises:
        IntegrityError: a photo in the bucket is not the one that its record names.
        InputError: a photo is larger than MAX_PHOTO_BYTES, or a record is of another model.
        RecordError: a feedback record is malformed.
        StoreError: the bucket cannot be reached.
    """
    photos = []
    for record in registry.feedback():
        if record.model != registry.model:
            raise InputError(
                f"Feedback {record.feedback_id} refused: it is about model {record.model!r}, not {registry.model!r}. "
                "Remove it from the bucket and find out who wrote it."
            )
        if record.corrected_label == NONE_OF_THESE:
            continue
        path = _fetched(registry, record, cache_dir)
        if path is not None:
            source = f"feedback:{record.feedback_id}"
            photos.append(LabelledPhoto(path=path, label=record.corrected_label, source=source))
    return photos


def _fetched(registry: Registry, record: FeedbackRecord, cache_dir: Path) -> Path | None:
    sha256 = record.photo_sha256
    if sha256 is None:
        return None
    path = cache_dir / sha256
    if path.is_file() and sha256_hex(path.read_bytes()) == sha256:
        return path
    try:
        with registry.open_photo(sha256) as stream:
            data = stream.read(MAX_PHOTO_BYTES + 1)
    except NotFoundError:
        return None
    if len(data) > MAX_PHOTO_BYTES:
        raise InputError(
            f"Feedback {record.feedback_id} refused: its photo is larger than {MAX_PHOTO_BYTES} bytes. Remove it from "
            "the bucket; the front end does not take such photos."
        )
    if sha256_hex(data) != sha256:
        raise IntegrityError(
            f"Feedback {record.feedback_id} refused: the photo in the bucket is not the one with SHA-256 {sha256}. "
            "It was changed; remove it and find out who can write to the bucket."
        )
    write_durably(path, data)
    return path
