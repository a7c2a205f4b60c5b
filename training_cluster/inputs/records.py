"""Finds pixels and labels in the bytes of a block, many records at once.

Its place in the flow: windows are filled from what this finds. Blocks are believed by their digests,
so the checksums of single records are not looked at; what is no record of ours is refused all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from artifact_sync.errors import IntegrityError
from artifact_sync.records import InputContract
from training_cluster.datasets.tfrecord import example

_HEAD_BYTES = 12
_FRAME_BYTES = 16
_FOLD_FROM_BYTES = 16 * 1024


@dataclass(frozen=True, eq=False)
class ParsedBlock:
    """A block's examples.

    Attributes:
        data: the block's bytes; uint8 [bytes].
        labels: int64 [n].
        starts: where each example's pixels begin in `data`; int64 [n].
    """

    data: NDArray[np.uint8]
    labels: NDArray[np.int64]
    starts: NDArray[np.int64]

    def copy_into(self, pixels: NDArray[np.uint8], *, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Copy the pixels of examples `rows` to `pixels[slots]`; `pixels` is [n, bytes of a picture]."""
        size = pixels.shape[1]
        starts = self.starts[rows]
        if size < _FOLD_FROM_BYTES:
            pixels[slots] = sliding_window_view(self.data, size)[starts]
            return
        # Of large pictures a copy each is quicker than the detour over one array of all of them.
        for slot, start in zip(slots.tolist(), starts.tolist(), strict=True):
            pixels[slot] = self.data[start : start + size]


class RecordLayout:
    """Where things stand in the records of one dataset.

    All that comes before and behind the pixels is the same in all records but for the label, whose
    length depends on its size alone.
    """

    def __init__(self, contract: InputContract) -> None:
        self.pixel_bytes = contract.height * contract.width * contract.channels
        self._forms = {form.frame_bytes: form for form in (_Form.of(self.pixel_bytes, width) for width in (1, 2, 3))}

    def parse(self, data: bytes | memoryview) -> ParsedBlock:
        """Return the examples of whole records that lie one after the other.

        Raises:
            IntegrityError: they are not records of such pictures.
        """
        array = np.frombuffer(data, np.uint8)
        frames, sizes = self._frames(array)
        labels = np.empty(len(frames), np.int64)
        starts = np.empty(len(frames), np.int64)
        for size in np.unique(sizes).tolist():
            chosen = sizes == size
            form = self._forms[size]
            labels[chosen] = form.labels(array, frames[chosen])
            starts[chosen] = frames[chosen] + form.pixels_at
        return ParsedBlock(array, labels, starts)

    def _frames(self, array: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each record begins and how long it is, its frame included."""
        size = self._forms_size(array, 0)
        count, rest = divmod(len(array), size)
        if not rest:
            frames = np.arange(count, dtype=np.int64) * size
            if (_lengths(array, frames) == size - _FRAME_BYTES).all():
                return frames, np.full(count, size, np.int64)
        at, begins, sizes = 0, [], []
        while at < len(array):
            size = self._forms_size(array, at)
            begins.append(at)
            sizes.append(size)
            at += size
        if at != len(array):
            raise _not_ours("the last record is cut")
        return np.array(begins, np.int64), np.array(sizes, np.int64)

    def _forms_size(self, array: NDArray[np.uint8], at: int) -> int:
        if at + _FRAME_BYTES > len(array):
            raise _not_ours("the last record is cut")
        size = int(_lengths(array, np.array([at]))[0]) + _FRAME_BYTES
        if size not in self._forms:
            raise _not_ours(f"a record has {size} bytes, which a picture of {self.pixel_bytes} bytes cannot have")
        return size


@dataclass(frozen=True, eq=False)
class _Form:
    """The form of all records whose label takes `label_bytes` bytes."""

    frame_bytes: int
    label_at: int
    label_bytes: int
    pixels_at: int
    head: NDArray[np.uint8]

    @classmethod
    def of(cls, pixel_bytes: int, label_bytes: int) -> _Form:
        least = 1 << 7 * (label_bytes - 1) if label_bytes > 1 else 0
        plain, labelled, painted = (
            np.frombuffer(example(pixels=bytes([value]) * pixel_bytes, label=label, source=bytes(32)), np.uint8)
            for value, label in ((0, least), (0, least + 1), (1, least))
        )
        pixels_at = int(np.flatnonzero(plain != painted)[0])
        return cls(
            frame_bytes=len(plain) + _FRAME_BYTES,
            label_at=int(np.flatnonzero(plain != labelled)[0]),
            label_bytes=label_bytes,
            pixels_at=_HEAD_BYTES + pixels_at,
            head=plain[:pixels_at],
        )

    def labels(self, array: NDArray[np.uint8], frames: NDArray[np.int64]) -> NDArray[np.int64]:
        heads = sliding_window_view(array, len(self.head))[frames + _HEAD_BYTES]
        wrong = heads != self.head
        wrong[:, self.label_at : self.label_at + self.label_bytes] = False
        if wrong.any():
            raise _not_ours("a record does not begin as `liftgate dataset build` writes it")
        digits = heads[:, self.label_at : self.label_at + self.label_bytes].astype(np.int64) & 0x7F
        answer: NDArray[np.int64] = (digits << (7 * np.arange(self.label_bytes))).sum(axis=1)
        return answer


def _lengths(array: NDArray[np.uint8], frames: NDArray[np.int64]) -> NDArray[np.uint64]:
    heads = np.ascontiguousarray(sliding_window_view(array, 8)[frames])
    answer: NDArray[np.uint64] = heads.view("<u8")[:, 0]
    return answer


def _not_ours(fault: str) -> IntegrityError:
    return IntegrityError(f"Records refused: {fault}. Build the dataset again.")
