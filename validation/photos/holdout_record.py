"""`holdout.json` as a record, and the seam that turns its photos into pixels.

Its place in the flow: freezing writes the record, its digest names the holdout, and everything that
is said of a photo (label, slices, side) is read from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator

from artifact_sync.canonical import FrozenModel, Record, Sha256
from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract


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
