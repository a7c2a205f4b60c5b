"""Gathers the photos of a new holdout: each read, checked, looked at, and put on its side.

Its place in the flow: freeze_holdout calls it with a folder of its own, which becomes the holdout
when nothing was wrong. What looks nearly the same goes to one side: a sealed photo whose copy is open
would be no secret.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import InputError, PhotoError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from serving.hash_search import groups
from serving.perceptual_hash import perceptual_hash
from validation.photos.holdout_record import HoldoutItem, HoldoutRecord, PhotoDecoder
from validation.photos.open_split import open_digests

LookAlikes = tuple[tuple[HoldoutItem, ...], ...]
"""Photos that look nearly the same, each with those that it belongs to; only groups of two or more."""

_LOOK = InputContract(height=64, width=64, channels=3)
_LOOK_DISTANCE = 4
_LISTED = 20


def stage(
    photos: Iterable[LabelledPhoto],
    *,
    labels: Sequence[str],
    directory: Path,
    decoder: PhotoDecoder,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[HoldoutItem, ...], LookAlikes]:
    """Copy the photos into `directory`/photos and return them in order, with those among them that look alike.

    Raises:
        InputError: photos are unreadable, have unknown labels, or are labelled in two ways; all are listed.
    """
    (directory / "photos").mkdir()
    items: dict[str, HoldoutItem] = {}
    problems: list[str] = []
    for photo in photos:
        if photo.label not in labels:
            problems.append(f"{photo.source} has the label {photo.label!r}, which is none of {', '.join(labels)}")
            continue
        try:
            data = photo.path.read_bytes()
        except OSError as error:
            problems.append(f"{photo.source} cannot be read ({error.strerror})")
            continue
        item = _item(photo, data)
        known = items.setdefault(item.sha256, item)
        if known.label != item.label:
            problems.append(f"{photo.source} is the photo of {known.source}, labelled {item.label} and {known.label}")
        elif known is item:
            (directory / "photos" / item.file_name).write_bytes(data)
    staged = tuple(items[digest] for digest in sorted(items))
    hashes, refused = _looks(staged, photos=directory / "photos", decoder=decoder, progress=progress)
    problems += refused
    if problems or not staged:
        raise InputError(f"Freezing refused, nothing was written: {listed(problems or ['there are no photos'])}.")
    return staged, _look_alikes(staged, hashes)


def split(
    items: Sequence[HoldoutItem],
    *,
    share: float,
    look_alikes: LookAlikes,
    open_from: Iterable[HoldoutRecord],
) -> tuple[HoldoutItem, ...]:
    """Return the items with their sides.

    Raises:
        InputError: no photo would be open, or none sealed.
    """
    looked_at: AbstractSet[str] = {item.sha256 for record in open_from for item in record.items}
    opened = open_digests(
        {item.sha256: item.label for item in items},
        share=share,
        groups=[[item.sha256 for item in group] for group in look_alikes],
        always_open=looked_at,
    )
    if not opened:
        raise InputError(
            "Freezing refused: no photo would be open, so reports could show nothing: no label has two photos that "
            "differ. Bring more labelled photos."
        )
    if len(opened) == len(items):
        raise InputError(
            "Freezing refused: every photo would be open, so none is left to decide: people have looked at all of "
            "them, or they are too much alike. Bring labelled photos that are new."
        )
    return tuple(item.model_copy(update={"is_open": item.sha256 in opened}) for item in items)


def tell_disputes(look_alikes: LookAlikes, tell: Callable[[str], None]) -> None:
    """Name the photos that look nearly the same and have different labels: one label is wrong, or the look deceives."""
    disputed = [group for group in look_alikes if len({item.label for item in group}) > 1]
    for group in disputed[:_LISTED]:
        tell("Look again, nearly the same with different labels: " + listed([_named(item) for item in group]))
    if len(disputed) > _LISTED:
        tell(f"Look again: {len(disputed) - _LISTED} more groups look nearly the same and have different labels")


def listed(problems: Sequence[str]) -> str:
    """Return the first problems in a line, with how many more there are."""
    hidden = len(problems) - _LISTED
    return "; ".join(problems[:_LISTED]) + (f"; and {hidden} more" if hidden > 0 else "")


def _looks(
    items: Sequence[HoldoutItem],
    *,
    photos: Path,
    decoder: PhotoDecoder,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[bytes], list[str]]:
    """Return each photo's perceptual hash, and what is said of those that cannot be decoded."""
    hashes: list[bytes] = []
    refused: list[str] = []
    decoded = decoder.decode_many(((photos / item.file_name).read_bytes() for item in items), _LOOK)
    for done, (item, pixels) in enumerate(zip(items, decoded, strict=True), start=1):
        if progress is not None:
            progress(done, len(items))
        if isinstance(pixels, PhotoError):
            refused.append(f"{item.source} is refused ({pixels})")
        else:
            hashes.append(perceptual_hash(pixels))
    return hashes, refused


def _look_alikes(items: Sequence[HoldoutItem], hashes: Sequence[bytes]) -> LookAlikes:
    looks = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
    members: dict[int, list[HoldoutItem]] = defaultdict(list)
    for item, number in zip(items, groups(looks, maximum_distance=_LOOK_DISTANCE), strict=True):
        members[int(number)].append(item)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


def _item(photo: LabelledPhoto, data: bytes) -> HoldoutItem:
    return HoldoutItem(
        sha256=sha256_hex(data),
        extension=_extension(photo.path),
        label=photo.label,
        source=photo.source,
        slices=dict(photo.slices),
    )


def _named(item: HoldoutItem) -> str:
    return f"{item.source} ({item.label})"


def _extension(path: Path) -> str:
    extension = path.suffix.lower().removeprefix(".")
    return extension if re.fullmatch(r"[a-z0-9]{1,5}", extension) else "bin"
