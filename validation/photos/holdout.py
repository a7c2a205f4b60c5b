"""The frozen holdout: human-labelled photos that no model is trained on, named by one digest.

Its place in the flow: people freeze it once; dataset build leaves its photos out; every candidate
and champion answers the same photos. The folder holds the original bytes, so the pixels are made
by the same photo contract as the users' photos are:

    holdout.json   photos/<sha256>.<ext>
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.canonical import sha256_hex
from artifact_sync.durable import fsync_directory, fsync_tree, write_durably
from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, NotFoundError, PhotoError, RecordError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from validation.photos.holdout_record import HoldoutItem, HoldoutRecord, PhotoDecoder
from validation.photos.holdout_staging import listed, split, stage, tell_disputes
from validation.photos.open_split import DEFAULT_SHARE

__all__ = ["Holdout", "HoldoutItem", "HoldoutRecord", "PhotoDecoder", "freeze_holdout", "load_holdout"]

RECORD_NAME = "holdout.json"


@dataclass(frozen=True)
class Holdout:
    """A frozen holdout on disk whose digests have been checked."""

    path: Path
    record: HoldoutRecord

    @property
    def sha256(self) -> str:
        """The digest that names this holdout: of its record, and so of every photo and label."""
        return self.record.sha256

    @property
    def photo_sha256s(self) -> frozenset[str]:
        """The digests of all photos: what training data must not contain."""
        return frozenset(item.sha256 for item in self.record.items)

    @property
    def truth(self) -> NDArray[np.int64]:
        """The index of each item's label, int64 [n]."""
        index = {label: position for position, label in enumerate(self.record.labels)}
        return np.array([index[item.label] for item in self.record.items], dtype=np.int64)

    def read_photo(self, item: HoldoutItem) -> bytes:
        """Return the photo's original bytes."""
        return (self.path / "photos" / item.file_name).read_bytes()

    def pixel_batches(
        self, contract: InputContract, *, decoder: PhotoDecoder, batch_size: int
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield uint8 pixels [<= batch_size, height, width, channels], in the order of the items.

        Raises:
            PhotoError: the photo contract refuses a photo.
        """
        decoded = decoder.decode_many((self.read_photo(item) for item in self.record.items), contract)
        while batch := list(islice(decoded, batch_size)):
            refused = [pixels for pixels in batch if isinstance(pixels, PhotoError)]
            if refused:
                raise refused[0]
            yield np.stack([pixels for pixels in batch if not isinstance(pixels, PhotoError)])


def freeze_holdout(
    photos: Iterable[LabelledPhoto],
    *,
    labels: Sequence[str],
    out_dir: Path,
    decoder: PhotoDecoder,
    open_share: float = DEFAULT_SHARE,
    open_from: Sequence[HoldoutRecord] = (),
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Holdout:
    """Copy the photos into a new folder that never changes again, and return it.

    The same photo given twice with the same label is kept once. The folder appears whole or not at
    all.

    Args:
        photos: what people labelled, in any order.
        labels: the classes in their order.
        out_dir: the folder that appears.
        decoder: an open DecodePool.
        open_share: of each label's photos, the part whose results reports may show.
        open_from: holdouts that people have looked at: their photos are open here.
        tell: told which photos look nearly the same and have different labels.
        progress: told how many of how many photos have been looked at.

    Raises:
        InputError: photos are unreadable, have unknown labels, or are labelled in two ways (all are
            listed), or no photo would be open, or none sealed.
        AlreadyExistsError: `out_dir` exists.
    """
    if not 0 < open_share < 1:
        raise InputError(f"Freezing refused: the open share is {open_share}; it must lie between 0 and 1, such as 0.1.")
    if out_dir.exists():
        raise AlreadyExistsError(f"Freezing refused: {out_dir} exists, and a holdout never changes. Choose another.")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=out_dir.parent))
    try:
        items, look_alikes = stage(photos, labels=labels, directory=staging, decoder=decoder, progress=progress)
        if tell is not None:
            tell_disputes(look_alikes, tell)
        items = split(items, share=open_share, look_alikes=look_alikes, open_from=open_from)
        record = HoldoutRecord(labels=tuple(labels), items=items)
        write_durably(staging / RECORD_NAME, record.to_json())
        staging.chmod(0o755)
        fsync_tree(staging)
        staging.rename(out_dir)
        fsync_directory(out_dir.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Holdout(path=out_dir, record=record)


def load_record(directory: Path) -> HoldoutRecord:
    """Return the record of the holdout in `directory`; its photos are not looked at.

    Raises:
        NotFoundError: there is none.
        RecordError: it is malformed, or from before photos were open or sealed.
    """
    try:
        data = (directory / RECORD_NAME).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no holdout in {directory}: {RECORD_NAME} is missing. Freeze one first."
        ) from None
    if b'"schema":"liftgate.holdout/1"' in data:
        raise RecordError(
            f"The holdout {directory} is from before photos were open or sealed, and reports have shown the results on "
            "all of them, so it can decide nothing more. Freeze a new one, with photos that no report has shown."
        )
    return HoldoutRecord.from_json(data)


def load_holdout(directory: Path) -> Holdout:
    """Return the holdout in `directory` after checking every photo's digest.

    Raises:
        NotFoundError, RecordError: see `load_record`.
        IntegrityError: photos are missing, added or changed; all are named.
    """
    holdout = Holdout(path=directory, record=load_record(directory))
    differences = list(_differences(holdout))
    if differences:
        raise IntegrityError(
            f"The holdout {directory} is not what was frozen: {listed(differences)}. "
            "Bring the original folder back; to use other photos, freeze a new holdout."
        )
    return holdout


def _differences(holdout: Holdout) -> Iterator[str]:
    photos = holdout.path / "photos"
    present = {entry.name for entry in photos.iterdir()} if photos.is_dir() else set()
    for item in holdout.record.items:
        if item.file_name not in present:
            yield f"{item.file_name} ({item.label}) is missing"
        elif sha256_hex(holdout.read_photo(item)) != item.sha256:
            yield f"{item.file_name} ({item.label}) has changed"
    for name in sorted(present - {item.file_name for item in holdout.record.items}):
        yield f"{name} was added"
