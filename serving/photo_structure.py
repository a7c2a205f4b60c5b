"""What a photo's container says, found without decoding a pixel, and its parts by purpose.

Its place in the flow: jpeg_structure, png_structure and webp_structure fill it; photo.py decides
by it whether to decode and hands the decoder only the essential parts; photo_privacy.py keeps the
essential and the colour parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from artifact_sync.errors import PhotoError

Purpose = Literal["essential", "colour", "metadata"]
MAX_PARTS = 50_000
"""Segments or chunks that a photo may have; real photos have tens, large PNG files a few thousand."""


@dataclass(frozen=True)
class Part:
    """A run of bytes of the file and what it is for.

    `essential` decides the decoded pixels, `colour` says how to show them (ICC profile, gamma),
    `metadata` is all else: EXIF, XMP, comments, thumbnails, text, what lies after the end.
    """

    purpose: Purpose
    data: bytes


@dataclass(frozen=True)
class PhotoStructure:
    """A photo's container.

    Attributes:
        format: the decoder's name of the format: "JPEG", "PNG", "WEBP" or "HEIF".
        width: pixels of a row as stored, before the orientation is applied.
        height: rows as stored.
        orientation: EXIF orientation, 1 to 8; 1 is upright, from 5 on width and height change places.
        scans: scans of a JPEG, 1 for the rest.
        frames: pictures in an animation, 1 for a photo.
        parts: the file in pieces, in order.
        assemble: joins parts of these purposes to a file, with an orientation when it is not 1.
    """

    format: str
    width: int
    height: int
    orientation: int
    scans: int
    frames: int
    parts: tuple[Part, ...]
    assemble: Callable[[tuple[Part, ...], int], bytes]

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    def keep(self, *purposes: Purpose, orientation: int = 1) -> bytes:
        """Return a file of only the parts with these purposes, saying this orientation."""
        return self.assemble(tuple(part for part in self.parts if part.purpose in purposes), orientation)


def truncated(format_name: str) -> PhotoError:
    """Return the error for a file that ends before its picture does."""
    return PhotoError(
        f"Photo refused: the {format_name} file ends before the picture does, so part of it is missing. "
        "Send the whole file again.",
        reason="truncated",
    )


def malformed(format_name: str, found: str) -> PhotoError:
    """Return the error for a file whose structure cannot be followed."""
    return PhotoError(
        f"Photo refused: it is not a valid {format_name} file ({found}). Save it again with a photo program.",
        reason="decode-failed",
    )


def too_many_parts(format_name: str) -> PhotoError:
    """Return the error for a file that is cut into absurdly many pieces."""
    return PhotoError(
        f"Photo refused: the {format_name} file has more than {MAX_PARTS} parts. Save it again with a photo program.",
        reason="decode-limit",
    )
