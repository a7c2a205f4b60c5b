"""Decoded pixels on disk between decoding and writing: parts by the digest's first byte, freed one by one.

Its place in the flow: photos are decoded in the order in which they are found, and written in the
order of their digests. A part holds the photos of one range of digests, so the shards use up one part
after the other, and a build needs little more disk than the finished dataset does.

Parts only grow. What counts of them is the number of slots that the index has, which is noted after an
fsync; what a killed build wrote behind is overwritten.
"""

from __future__ import annotations

import os
from pathlib import Path

from artifact_sync.durable import fsync_directory

_MOST_PARTS = 64
_PART_BYTES = 64 * 1024 * 1024


def part_count(photos: int, record_bytes: int) -> int:
    """Return into how many parts the pixels of so many photos are divided."""
    return max(1, min(_MOST_PARTS, photos * record_bytes // _PART_BYTES))


class PixelParts:
    """The parts of one build; use it as a context manager.

    Args:
        directory: where they lie; made when missing.
        record_bytes: the size of one photo's pixels.
        slots: for each part how many slots it has.
    """

    def __init__(self, directory: Path, *, record_bytes: int, slots: list[int]) -> None:
        self._directory = directory
        self._record_bytes = record_bytes
        self.slots = slots
        self._descriptors: dict[int, int] = {}
        self._unsynced: set[int] = set()

    def __enter__(self) -> PixelParts:
        self._directory.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def part_of(self, sha256: bytes) -> int:
        """Return the part that the photo with this digest belongs to; later parts have larger digests only."""
        return sha256[0] * len(self.slots) // 256

    def missing(self) -> list[int]:
        """Return the parts that are shorter than they should be, or freed."""
        sizes = [path.stat().st_size if (path := self._path(part)).exists() else 0 for part in range(len(self.slots))]
        return [part for part, size in enumerate(sizes) if size < self.slots[part] * self._record_bytes]

    def append(self, pixels: bytes, *, sha256: bytes) -> tuple[int, int]:
        """Write one photo's pixels and return part and slot; they last after the next `sync`."""
        part = self.part_of(sha256)
        slot = self.slots[part]
        view = memoryview(pixels)
        while view:
            written = os.pwrite(self._descriptor(part), view, (slot + 1) * self._record_bytes - len(view))
            view = view[written:]
        self.slots[part] += 1
        self._unsynced.add(part)
        return part, slot

    def sync(self) -> None:
        """Make what was appended durable."""
        for part in self._unsynced:
            os.fsync(self._descriptor(part))
        if self._unsynced:
            fsync_directory(self._directory)
        self._unsynced.clear()

    def read(self, part: int, slot: int) -> bytes:
        """Return one photo's pixels, or fewer bytes when the part is cut."""
        return os.pread(self._descriptor(part), self._record_bytes, slot * self._record_bytes)

    def free(self, part: int) -> None:
        """Remove one part's file."""
        if (descriptor := self._descriptors.pop(part, None)) is not None:
            os.close(descriptor)
        self._path(part).unlink(missing_ok=True)

    def _path(self, part: int) -> Path:
        return self._directory / f"{part:02d}.pixels"

    def _descriptor(self, part: int) -> int:
        if part not in self._descriptors:
            self._descriptors[part] = os.open(self._path(part), os.O_RDWR | os.O_CREAT, 0o644)
        return self._descriptors[part]
