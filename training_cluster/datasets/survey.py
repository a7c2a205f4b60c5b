"""Looks at every labelled photo's bytes before any is decoded: what is new, double, contradictory or forbidden.

Its place in the flow: the first of dataset build's two passes. It holds a digest a photo in memory
and no photo, so the size of a dataset is not bounded by memory for pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from artifact_sync.canonical import canonical_json, sha256_hex
from artifact_sync.labelled_photo import LabelledPhoto
from training_cluster.datasets.data_manifest import LeftOut


@dataclass(frozen=True)
class Source:
    """A photo that is to become an example: its file's SHA-256 and what a person said of it."""

    sha256: str
    photo: LabelledPhoto


@dataclass
class Account:
    """What was left out so far, by reason."""

    rejects: list[LeftOut] = field(default_factory=list)
    excluded: list[LeftOut] = field(default_factory=list)
    duplicates: list[LeftOut] = field(default_factory=list)

    def reject(self, photo: LabelledPhoto, reason: str) -> None:
        """Note a photo that cannot be used."""
        self.rejects.append(LeftOut(source=photo.source, reason=reason))

    def exclude(self, photo: LabelledPhoto, what: str) -> None:
        """Note a photo of the holdout."""
        self.excluded.append(LeftOut(source=photo.source, reason=f"{what} are in the holdout"))

    def duplicate(self, photo: LabelledPhoto, of: LabelledPhoto, what: str) -> None:
        """Note a photo that is there already."""
        self.duplicates.append(LeftOut(source=photo.source, reason=f"the same {what} as {of.source}"))


def survey(
    photos: Iterable[LabelledPhoto],
    *,
    labels: Sequence[str] | None,
    excluded_sha256s: AbstractSet[str],
    account: Account,
) -> tuple[Source, ...]:
    """Return the photos worth decoding in the order of their digests; the others go to the account."""
    named: dict[str, list[LabelledPhoto]] = defaultdict(list)
    for photo in photos:
        if fault := _label_fault(photo, labels):
            account.reject(photo, fault)
            continue
        sha256 = _digest(photo, account.reject)
        if sha256 in excluded_sha256s:
            account.exclude(photo, "its bytes")
        elif sha256 is not None:
            named[sha256].append(photo)
    sources = (_agreed(sha256, named[sha256], account) for sha256 in sorted(named))
    return tuple(source for source in sources if source is not None)


def sources_sha256(sources: Iterable[Source]) -> str:
    """Return the digest over every source's own digest, label and slices."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(canonical_json([source.sha256, source.photo.label, dict(source.photo.slices)]) + b"\n")
    return digest.hexdigest()


def slice_counts(photos: Iterable[LabelledPhoto]) -> dict[str, dict[str, int]]:
    """Return how many photos each value of each slice column has."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for photo in photos:
        for column, value in photo.slices.items():
            counts[column][value] += 1
    return {column: dict(values) for column, values in counts.items()}


def _label_fault(photo: LabelledPhoto, labels: Sequence[str] | None) -> str | None:
    if not photo.label.strip():
        return "it has no label"
    if labels is not None and photo.label not in labels:
        return f"label {photo.label!r} is none of {', '.join(labels)}"
    return None


def _digest(photo: LabelledPhoto, reject: Callable[[LabelledPhoto, str], None]) -> str | None:
    try:
        return sha256_hex(photo.path.read_bytes())
    except OSError as error:
        reject(photo, f"{photo.path} cannot be read: {error.strerror}")
        return None


def _agreed(sha256: str, photos: list[LabelledPhoto], account: Account) -> Source | None:
    photos = sorted(photos, key=lambda photo: photo.source)
    first, *others = photos
    if any(photo.label != first.label for photo in others):
        said = ", ".join(f"{photo.label} by {photo.source}" for photo in photos)
        for photo in photos:
            account.reject(photo, f"the same photo has several labels: {said}")
        return None
    for photo in others:
        account.duplicate(photo, first, "file")
    return Source(sha256, first)
