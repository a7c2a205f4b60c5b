"""The frozen holdout: human-labelled photos that no model is trained on, named by one digest.

Its place in the flow: people freeze it once; dataset build leaves its photos out; every candidate
and champion answers the same photos. The folder holds the original bytes, so the pixels are made
by the same photo contract as the users' photos are:

    holdout.json   photos/<sha256>.<ext>
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator

from artifact_sync.canonical import FrozenModel, Record, Sha256, sha256_hex
from artifact_sync.durable import fsync_directory, fsync_tree, write_durably
from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, NotFoundError, PhotoError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from validation.open_split import DEFAULT_SHARE, open_digests

RECORD_NAME = "holdout.json"
_PROBE = InputContract(height=32, width=32, channels=3)
_LISTED = 20


class PhotoDecoder(Protocol):
    """Turns photos' bytes into model input; serving.decode_pool.DecodePool is one."""

    def decode_many(self, photos: Iterable[bytes], contract: InputContract) -> Iterator[NDArray[np.uint8] | PhotoError]:
        """Yield uint8 pixels [height, width, channels], or why there are none, for each photo in order."""
        ...


class HoldoutItem(FrozenModel):
    """One photo: the digest of its bytes, its file's extension, and what people said of it.

    The results on an open photo are shown in every report; those on a sealed one decide, and are not
    shown as long as it is to decide again (docs/gate.md).
    """

    sha256: Sha256
    extension: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,5}$")]
    label: str
    source: str
    slices: dict[str, str] = Field(default_factory=dict)
    is_open: bool = False

    @property
    def file_name(self) -> str:
        """The photo's name in the folder `photos`."""
        return f"{self.sha256}.{self.extension}"


class HoldoutRecord(Record):
    """`holdout.json`: the labels in order and every photo, sorted by digest, each once."""

    schema_name: ClassVar[str] = "liftgate.holdout/2"
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    items: Annotated[tuple[HoldoutItem, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        digests = [item.sha256 for item in self.items]
        if digests != sorted(set(digests)):
            raise ValueError("items must be sorted by sha256, each once")
        if len(set(self.labels)) != len(self.labels) or {item.label for item in self.items} - set(self.labels):
            raise ValueError("labels must be unique and hold the label of every item")
        return self


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
        items = _stage(photos, labels=tuple(labels), staging=staging, decoder=decoder)
        seen = frozenset(item.sha256 for record in open_from for item in record.items)
        record = HoldoutRecord(labels=tuple(labels), items=_split(items, share=open_share, seen=seen))
        write_durably(staging / RECORD_NAME, record.to_json())
        staging.chmod(0o755)
        fsync_tree(staging)
        staging.rename(out_dir)
        fsync_directory(out_dir.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Holdout(path=out_dir, record=record)


def load_holdout(directory: Path) -> Holdout:
    """Return the holdout in `directory` after checking every photo's digest.

    Raises:
        NotFoundError: there is none.
        IntegrityError: photos are missing, added or changed; all are named.
    """
    try:
        record = HoldoutRecord.from_json((directory / RECORD_NAME).read_bytes())
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no holdout in {directory}: {RECORD_NAME} is missing. Freeze one first."
        ) from None
    holdout = Holdout(path=directory, record=record)
    differences = list(_differences(holdout))
    if differences:
        raise IntegrityError(
            f"The holdout {directory} is not what was frozen: {_listed(differences)}. "
            "Bring the original folder back; to use other photos, freeze a new holdout."
        )
    return holdout


def _stage(
    photos: Iterable[LabelledPhoto], *, labels: tuple[str, ...], staging: Path, decoder: PhotoDecoder
) -> tuple[HoldoutItem, ...]:
    (staging / "photos").mkdir()
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
            (staging / "photos" / item.file_name).write_bytes(data)
    problems += _undecodable(items.values(), photos=staging / "photos", decoder=decoder)
    if problems or not items:
        raise InputError(f"Freezing refused, nothing was written: {_listed(problems or ['there are no photos'])}.")
    return tuple(items[digest] for digest in sorted(items))


def _split(items: Sequence[HoldoutItem], *, share: float, seen: AbstractSet[str]) -> tuple[HoldoutItem, ...]:
    """Return the items with their sides."""
    opened = open_digests({item.sha256: item.label for item in items}, share=share, always_open=seen)
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


def _undecodable(items: Iterable[HoldoutItem], *, photos: Path, decoder: PhotoDecoder) -> list[str]:
    staged = list(items)
    decoded = decoder.decode_many(((photos / item.file_name).read_bytes() for item in staged), _PROBE)
    return [
        f"{item.source} is refused ({pixels})"
        for item, pixels in zip(staged, decoded, strict=True)
        if isinstance(pixels, PhotoError)
    ]


def _item(photo: LabelledPhoto, data: bytes) -> HoldoutItem:
    return HoldoutItem(
        sha256=sha256_hex(data),
        extension=_extension(photo.path),
        label=photo.label,
        source=photo.source,
        slices=dict(photo.slices),
    )


def _extension(path: Path) -> str:
    extension = path.suffix.lower().removeprefix(".")
    return extension if re.fullmatch(r"[a-z0-9]{1,5}", extension) else "bin"


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


def _listed(problems: Sequence[str]) -> str:
    hidden = len(problems) - _LISTED
    return "; ".join(problems[:_LISTED]) + (f"; and {hidden} more" if hidden > 0 else "")
