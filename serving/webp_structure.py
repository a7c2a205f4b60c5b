"""The chunks of a WebP file (RFC 9649), read without decoding a pixel.

Its place in the flow: photo.py learns size, frames and orientation here. It must come from here:
Pillow's WebP plug-in allocates the whole canvas when a file is merely opened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from serving.exif_orientation import orientation_block, read_orientation
from serving.photo_structure import MAX_PARTS, Part, PhotoStructure, Purpose, malformed, too_many_parts, truncated

_PICTURES = frozenset({b"VP8 ", b"VP8L"})
_ESSENTIAL = frozenset({b"VP8X", b"ALPH"}) | _PICTURES
_HAS_ICC, _HAS_EXIF, _HAS_XMP, _HAS_ALPHA, _IS_ANIMATED = 0x20, 0x08, 0x04, 0x10, 0x02


def read_webp(data: bytes) -> PhotoStructure:
    """Return the structure of a WebP.

    Raises:
        PhotoError: truncated, decode-failed or decode-limit.
    """
    parts: list[Part] = []
    sizes: list[tuple[int, int]] = []
    orientation, frames = 1, 1
    for kind, body in _chunks(data):
        if kind == b"VP8X":
            sizes.append(_canvas_size(body))
        elif kind in _PICTURES:
            sizes.append(_picture_size(kind, body))
        elif kind == b"EXIF":
            orientation = read_orientation(body)
        if kind in {b"ANIM", b"ANMF"} or (kind == b"VP8X" and body[0] & _IS_ANIMATED):
            frames = 2
        purpose: Purpose = "essential" if kind in _ESSENTIAL else "colour" if kind == b"ICCP" else "metadata"
        parts.append(Part(purpose, _chunk(kind, body)))
        if len(parts) > MAX_PARTS:
            raise too_many_parts("WebP")
    if not sizes:
        raise malformed("WebP", "it has no picture in it")
    width, height = max(sizes)
    if len(set(sizes)) > 1 and frames == 1:
        raise malformed("WebP", "its picture and its canvas differ in size")
    return PhotoStructure(
        format="WEBP",
        width=width,
        height=height,
        orientation=orientation,
        scans=1,
        frames=frames,
        parts=tuple(parts),
        assemble=_assemble,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    (riff_size,) = struct.unpack_from("<L", data, 4)
    end = riff_size + 8
    if end > len(data):
        raise truncated("WebP")
    position = 12
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sL", data, position)
        if position + 8 + length > end:
            raise truncated("WebP")
        yield kind, data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<L", len(body)) + body + b"\0" * (len(body) % 2)


def _canvas_size(body: bytes) -> tuple[int, int]:
    if len(body) < 10:
        raise malformed("WebP", "its header is too short")
    return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1


def _picture_size(kind: bytes, body: bytes) -> tuple[int, int]:
    if len(body) < 10:
        raise truncated("WebP")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<L", body, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 6)
    if not width & 0x3FFF or not height & 0x3FFF:
        raise malformed("WebP", "it says that it has no pixels")
    return width & 0x3FFF, height & 0x3FFF


def _assemble(parts: tuple[Part, ...], orientation: int) -> bytes:
    """Join parts; the extended header (VP8X) is written anew, since its flags name the other chunks."""
    chunks = [part.data for part in parts if not part.data.startswith(b"VP8X")]
    canvas = next((part.data for part in parts if part.data.startswith(b"VP8X")), None)
    flags = _HAS_ICC if any(chunk.startswith(b"ICCP") for chunk in chunks) else 0
    if orientation != 1:
        chunks.append(_chunk(b"EXIF", orientation_block(orientation)))
        flags |= _HAS_EXIF
    if canvas is not None:
        flags |= canvas[8] & _HAS_ALPHA
        chunks.insert(0, _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas[12:18]))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<L", len(body)) + body
