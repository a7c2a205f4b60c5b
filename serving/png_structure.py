"""The chunks of a PNG file (ISO/IEC 15948), read without decoding a pixel.

Its place in the flow: photo.py learns size, frames and orientation here; text, time and EXIF
chunks are split off, so that the decoder never inflates them and the archive never keeps them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from serving.exif_orientation import orientation_block, read_orientation
from serving.photo_structure import MAX_PARTS, Part, PhotoStructure, Purpose, malformed, too_many_parts, truncated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ESSENTIAL = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_COLOUR = frozenset({b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT"})


def read_png(data: bytes) -> PhotoStructure:
    """Return the structure of a PNG.

    Raises:
        PhotoError: truncated, decode-failed or decode-limit.
    """
    parts = [Part("essential", SIGNATURE)]
    size: tuple[int, int] | None = None
    orientation, frames = 1, 1
    for kind, body, chunk in _chunks(data):
        if size is None:
            size = _size(kind, body)
        elif kind == b"eXIf":
            orientation = read_orientation(body)
        elif kind == b"acTL" and len(body) >= 4:
            frames = max(frames, struct.unpack_from(">L", body)[0])
        purpose: Purpose = "essential" if kind in _ESSENTIAL else "colour" if kind in _COLOUR else "metadata"
        parts.append(Part(purpose, chunk))
        if len(parts) > MAX_PARTS:
            raise too_many_parts("PNG")
    if size is None:
        raise truncated("PNG")
    return PhotoStructure(
        format="PNG",
        width=size[0],
        height=size[1],
        orientation=orientation,
        scans=1,
        frames=frames,
        parts=tuple(parts),
        assemble=_assemble,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (type, body, whole chunk) up to and including IEND."""
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise truncated("PNG")
        length, kind = struct.unpack_from(">L4s", data, position)
        end = position + 12 + length
        if not kind.isalpha():
            raise malformed("PNG", "a chunk has no name")
        if end > len(data):
            raise truncated("PNG")
        yield kind, data[position + 8 : end - 4], data[position:end]
        if kind == b"IEND":
            return
        position = end


def _size(kind: bytes, body: bytes) -> tuple[int, int]:
    if kind != b"IHDR" or len(body) != 13:
        raise malformed("PNG", "it does not begin with its header")
    width, height = struct.unpack_from(">LL", body)
    if width == 0 or height == 0:
        raise malformed("PNG", f"it says {width}×{height} pixels")
    return width, height


def _assemble(parts: tuple[Part, ...], orientation: int) -> bytes:
    pieces = [part.data for part in parts]
    if orientation != 1:
        body = b"eXIf" + orientation_block(orientation)
        pieces.insert(2, struct.pack(">L", len(body) - 4) + body + struct.pack(">L", zlib.crc32(body)))
    return b"".join(pieces)
