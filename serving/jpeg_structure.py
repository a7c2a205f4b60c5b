"""The segments of a JPEG file (ITU-T T.81 annex B), read without decoding a pixel.

Its place in the flow: photo.py learns size, scans and orientation here; the parts that decide
pixels are split from those that do not, so that the decoder and the archive see no others.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from serving.exif_orientation import EXIF_PREFIX, orientation_block, read_orientation
from serving.photo_structure import MAX_PARTS, Part, PhotoStructure, Purpose, malformed, too_many_parts, truncated

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In compressed data 0xFF is followed by 0 (stuffing), D0–D7 (restart) or FF (fill); all else is a marker."""


def read_jpeg(data: bytes) -> PhotoStructure:
    """Return the structure of a JPEG or of the first picture of an MPO.

    Raises:
        PhotoError: truncated, decode-failed or decode-limit.
    """
    parts: list[Part] = [Part("essential", data[:2])]
    size: tuple[int, int] | None = None
    orientation: int | None = None
    scans = 0
    for marker, body, segment in _segments(data):
        if marker in _FRAME_HEADERS:
            if size is not None:
                raise malformed("JPEG", "it has two frame headers")
            size = _frame_size(body)
        elif marker == _SOS:
            scans += 1
        elif marker == _APP1 and body.startswith(EXIF_PREFIX) and orientation is None:
            orientation = read_orientation(body)
        parts.append(_part(marker, body, segment))
        if len(parts) > MAX_PARTS:
            raise too_many_parts("JPEG")
    if size is None or scans == 0:
        raise malformed("JPEG", "it has no picture in it")
    return PhotoStructure(
        format="JPEG",
        width=size[0],
        height=size[1],
        orientation=orientation or 1,
        scans=scans,
        frames=1,
        parts=tuple(parts),
        assemble=_assemble,
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (marker, body, whole segment with the compressed data after it) up to and including the end."""
    position = 2
    while True:
        start = position
        if data[position : position + 1] != b"\xff":
            raise truncated("JPEG") if position >= len(data) else malformed("JPEG", "a marker is missing")
        while data[position : position + 1] == b"\xff":
            position += 1
        if position >= len(data):
            raise truncated("JPEG")
        marker = data[position]
        position += 1
        if marker == _EOI:
            yield marker, b"", b"\xff\xd9"
            return
        if position + 2 > len(data):
            raise truncated("JPEG")
        (length,) = struct.unpack_from(">H", data, position)
        body_end = position + length
        if length < 2:
            raise malformed("JPEG", "a segment has no length")
        if body_end > len(data):
            raise truncated("JPEG")
        end = _scan_end(data, body_end) if marker == _SOS else body_end
        yield marker, data[position + 2 : body_end], data[start:end]
        position = end


def _scan_end(data: bytes, position: int) -> int:
    found = _END_OF_SCAN.search(data, position)
    if found is None:
        raise truncated("JPEG")
    return found.start()


def _frame_size(body: bytes) -> tuple[int, int]:
    if len(body) < 6:
        raise malformed("JPEG", "its frame header is too short")
    height, width = struct.unpack_from(">HH", body, 1)
    if width == 0 or height == 0:
        raise malformed("JPEG", f"it says {width}×{height} pixels")
    return width, height


def _part(marker: int, body: bytes, segment: bytes) -> Part:
    if marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        # The marker decides the colour space; the thumbnail that may follow it does not.
        return Part("essential", b"\xff\xe0\x00\x10" + body[:12] + b"\0\0")
    if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        return Part("essential", b"\xff\xee\x00\x0e" + body[:12])
    purpose: Purpose = "essential"
    if marker == _APP2 and body.startswith(b"ICC_PROFILE\0"):
        purpose = "colour"
    elif _APP0 <= marker <= _APP15 or marker == _COM:
        purpose = "metadata"
    return Part(purpose, segment)


def _assemble(parts: tuple[Part, ...], orientation: int) -> bytes:
    pieces = [part.data for part in parts]
    if orientation != 1:
        block = EXIF_PREFIX + orientation_block(orientation)
        pieces.insert(1, b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    return b"".join(pieces)
