"""The one thing of EXIF that decides pixels: the orientation; everything else is never parsed.

Its place in the flow: the structure readers find the EXIF block, photo.py turns the pixels by what
is read here, photo_privacy.py writes a block that says nothing else. The layout is TIFF 6.0:
8 bytes of header, then the first directory of 12-byte entries.
"""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_SHORT_TYPE = 3
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_MAX_ENTRIES = 4096
EXIF_PREFIX = b"Exif\0\0"
"""What stands before the TIFF structure in a JPEG segment (and, by some writers, in a WebP chunk)."""


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block with or without its "Exif" prefix.

    A block that is broken, or has no orientation or one out of range, means 1: upright. People
    cannot repair the EXIF of their photos, so it is no reason to refuse one.
    """
    tiff = exif.removeprefix(EXIF_PREFIX)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "L", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for index in range(min(count, _MAX_ENTRIES)):
            entry = offset + 2 + 12 * index
            tag, kind, _, value = struct.unpack_from(order + "HHLH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT_TYPE and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def orientation_block(orientation: int) -> bytes:
    """Return a TIFF structure (without the "Exif" prefix) that holds the orientation alone."""
    entry = struct.pack(">HHLHH", _ORIENTATION_TAG, _SHORT_TYPE, 1, orientation, 0)
    return b"MM\0*" + struct.pack(">LH", 8, 1) + entry + struct.pack(">L", 0)
