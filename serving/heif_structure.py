"""HEIC photos, for those who install pillow-heif (its wheels are GPLv2 as binaries, so it is an extra).

Its place in the flow: photo_format.py asks here when a file is HEIF by its first bytes. The
container's own rotation is applied by the decoder, once; the EXIF orientation beside it repeats
the same turn and is therefore ignored.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
from typing import Any

from serving.photo_structure import Part, PhotoStructure, malformed, truncated

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1"})


def is_heif(data: bytes) -> bool:
    """Return whether the file says that it is a HEIF still picture."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def is_heif_available() -> bool:
    """Return whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def read_heif(data: bytes) -> PhotoStructure:
    """Return the size of the first picture of a HEIF file; its items are not told apart by purpose.

    Raises:
        PhotoError: truncated or decode-failed.
    """
    _check_boxes(data)
    size = open_heif(data).size
    return PhotoStructure(
        format="HEIF",
        width=size[0],
        height=size[1],
        orientation=1,
        scans=1,
        frames=1,
        parts=(Part("essential", data),),
        assemble=lambda parts, _orientation: b"".join(part.data for part in parts),
    )


def _check_boxes(data: bytes) -> None:
    """Follow the boxes of the file (ISO/IEC 14496-12): one that ends after the file does was cut."""
    position = 0
    while position < len(data):
        if position + 16 > len(data):
            raise truncated("HEIC")
        (length,) = struct.unpack_from(">L", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length == 0:
            return
        if length < 8:
            raise malformed("HEIC", "a box has no length")
        position += length
    if position > len(data):
        raise truncated("HEIC")


def open_heif(data: bytes) -> Any:
    """Return pillow-heif's lazy file object; pixels are decoded when it is made a Pillow image."""
    pillow_heif = importlib.import_module("pillow_heif")
    try:
        return pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    except (ValueError, OSError, EOFError, RuntimeError, SyntaxError) as error:
        raise malformed("HEIC", str(error)) from None
