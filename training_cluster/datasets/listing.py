"""Every entry of the lists of photos goes into the index, before a photo is read.

Its place in the flow: the first stage of dataset build. It is done anew by each build, since lists
change; what was read of photos that are as they were is kept.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from artifact_sync.canonical import canonical_json
from artifact_sync.errors import InputError
from artifact_sync.labelled_photo import LabelledPhoto
from training_cluster.datasets.build_progress import Meter
from training_cluster.datasets.photo_index import clear
from training_cluster.datasets.readers import Photo

PhotoLists = Mapping[str, Iterable[Photo]]
"""Lists of photos by the names that people gave them under."""

_INSERT = (
    "INSERT INTO listed (list, source, place, version, label, slices, origin, annotator, fault) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_MOST_LABELS = 65_535


def list_photos(index: sqlite3.Connection, lists: PhotoLists, *, labels: Sequence[str] | None, meter: Meter) -> None:
    """Put every photo into the table `listed`, and forget digests of files that have changed since they were taken.

    Raises:
        InputError: a list is wrong, or all photos have the same label.
    """
    clear(index, "listed", "unreadable", "undecodable")
    allowed = None if labels is None else frozenset(labels)
    for name, photos in lists.items():
        for photo in photos:
            index.execute(_INSERT, _row(name, photo, fault=_label_fault(photo.label, allowed, labels)))
            meter.add()
    index.execute(
        "DELETE FROM file WHERE NOT EXISTS "
        "(SELECT 1 FROM listed WHERE listed.place = file.place AND listed.version = file.version)"
    )
    index.commit()
    meter.finish()
    if labels is None:
        _check_labels(index)


def _row(name: str, photo: Photo, *, fault: str | None) -> tuple[str | None, ...]:
    place, version = _identity(photo)
    slices = canonical_json(dict(photo.slices)).decode()
    return name, photo.source, place, version, photo.label, slices, photo.origin, photo.annotator, fault


def _identity(photo: Photo) -> tuple[str, str]:
    """Return where a photo is, and what changes when the file does."""
    if not isinstance(photo, LabelledPhoto):
        return photo.url, ""
    # Absolute, so that a build that goes on from another working directory finds its files.
    place = os.path.abspath(photo.path)  # noqa: PTH100
    try:
        status = os.stat(place)  # noqa: PTH116
    except OSError:
        return place, "none"
    return place, f"{status.st_size} bytes of {status.st_mtime_ns}"


def _label_fault(label: str, allowed: frozenset[str] | None, labels: Sequence[str] | None) -> str | None:
    if not label.strip():
        return "it has no label"
    if allowed is not None and label not in allowed:
        return f"label {label!r} is none of {', '.join(labels or ())}"
    return None


def _check_labels(index: sqlite3.Connection) -> None:
    (count,) = index.execute("SELECT COUNT(DISTINCT label) FROM listed WHERE fault IS NULL").fetchone()
    (faults,) = index.execute("SELECT COUNT(*) FROM listed WHERE fault IS NOT NULL").fetchone()
    if count > _MOST_LABELS:
        raise InputError(f"Dataset refused: found {count} classes, and it can have {_MOST_LABELS}. Correct the labels.")
    if count < 2 and not faults:
        raise InputError(f"Dataset refused: found {count} classes, a classifier needs at least 2.")
