"""Takes out of a photo what its maker may not want to give: place, time, device, names, comments.

Its place in the flow: the front end calls it before a photo is kept for training. Nothing is
decoded or encoded again, so the picture is untouched and `decode_photo` gives equal pixels.
"""

from __future__ import annotations

from artifact_sync.errors import PhotoError
from serving.photo_format import read_structure
from serving.photo_limits import PhotoLimits


def without_metadata(data: bytes, limits: PhotoLimits = PhotoLimits()) -> bytes:  # noqa: B008 (frozen)
    """Return the photo with its pixels, its colour profile and its orientation, and nothing else.

    EXIF (location, time, maker notes, thumbnail), XMP, IPTC, comments, text chunks, further
    pictures and whatever follows the end of the picture are gone.

    Raises:
        PhotoError: as `decode_photo` for a photo that is refused before decoding; or
            metadata-not-removable for HEIC, whose metadata cannot be taken out without encoding anew.
    """
    structure = read_structure(data, limits)
    if structure.format == "HEIF":
        raise PhotoError(
            "Photo not kept: metadata cannot be taken out of a HEIC file without loss. Send it as JPEG.",
            reason="metadata-not-removable",
        )
    return structure.keep("essential", "colour", orientation=structure.orientation)
