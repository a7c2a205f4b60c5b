"""Tells by its first bytes what a file is, and reads the structure of the formats that are allowed.

Its place in the flow: the only way from bytes of unknown origin to a `PhotoStructure`; the names
of files and the content types that browsers send are never believed.
"""

from __future__ import annotations

from artifact_sync.errors import PhotoError
from serving.heif_structure import is_heif, is_heif_available, read_heif
from serving.jpeg_structure import read_jpeg
from serving.photo_limits import PhotoLimits
from serving.photo_structure import PhotoStructure
from serving.png_structure import SIGNATURE, read_png
from serving.webp_structure import read_webp

_REFUSED_MAGICS = (
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"BM", "BMP"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\1\0", "icon"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG or XML"),
)


def allowed_formats() -> tuple[str, ...]:
    """Return the names of the formats that this machine decodes."""
    return ("JPEG", "PNG", "WebP", "HEIC") if is_heif_available() else ("JPEG", "PNG", "WebP")


def read_structure(data: bytes, limits: PhotoLimits) -> PhotoStructure:
    """Return what the photo's container says, when it is of an allowed format and within the limits.

    Costs milliseconds and no memory for pixels, whatever the file claims to hold.

    Raises:
        PhotoError: not-an-image, format-not-allowed, too-many-bytes, too-many-pixels, too-many-scans,
            too-many-frames, truncated, decode-limit or decode-failed.
    """
    if len(data) > limits.max_bytes:
        raise PhotoError(
            f"Photo refused: it has {len(data):,} bytes, the limit is {limits.max_bytes:,}. Send a smaller one.",
            reason="too-many-bytes",
        )
    structure = _read_allowed(data)
    _check_limits(structure, limits)
    return structure


def _read_allowed(data: bytes) -> PhotoStructure:
    if data.startswith(b"\xff\xd8\xff"):
        return read_jpeg(data)
    if data.startswith(SIGNATURE):
        return read_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return read_webp(data)
    if is_heif(data) and is_heif_available():
        return read_heif(data)
    raise _refusal(data)


def _refusal(data: bytes) -> PhotoError:
    allowed = ", ".join(allowed_formats())
    name = next((name for magic, name in _REFUSED_MAGICS if data.startswith(magic)), None)
    if is_heif(data):
        name = "HEIC"
    elif data[4:8] == b"ftyp":
        name = "AVIF or a video"
    if name is not None:
        return PhotoError(
            f"Photo refused: it is a {name} file; allowed are {allowed}. Save it as JPEG and send it again.",
            reason="format-not-allowed",
        )
    found = "it is empty" if not data else "its first bytes are those of no known image format"
    return PhotoError(f"Photo refused: {found}. Send a photo as {allowed}.", reason="not-an-image")


def _check_limits(structure: PhotoStructure, limits: PhotoLimits) -> None:
    is_jpeg = structure.format == "JPEG"
    max_pixels = limits.max_jpeg_pixels if is_jpeg else limits.max_pixels
    if structure.width * structure.height > max_pixels:
        raise PhotoError(
            f"Photo refused: {structure.width}×{structure.height} pixels are more than the {max_pixels:,} "
            f"that a {structure.format} may have. Send a smaller one.",
            reason="too-many-pixels",
        )
    if structure.scans > limits.max_scans:
        raise PhotoError(
            f"Photo refused: the JPEG has {structure.scans} scans, the limit is {limits.max_scans}. "
            "Save it again with a photo program.",
            reason="too-many-scans",
        )
    if structure.frames > limits.max_frames:
        raise PhotoError(
            "Photo refused: it is an animation, and only a single picture can be classified. Send a still photo.",
            reason="too-many-frames",
        )
