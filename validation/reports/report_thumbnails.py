"""Small pictures of the holdout's photos, as data: URLs, for the report page.

Its place in the flow: report_page.py asks for those that changed, are disputed or were left out.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from validation.photos.holdout import Holdout, HoldoutItem, PhotoDecoder

_THUMBNAIL = InputContract(height=96, width=96, channels=3)


def thumbnails(sha256s: Iterable[str], *, holdout: Holdout, decoder: PhotoDecoder) -> dict[str, str]:
    """Return a data: URL for each of these photos of the holdout that can be shown.

    Each is decoded and encoded anew: no original byte, and so no camera's place, gets into the page.
    """
    items = {item.sha256: item for item in holdout.record.items}
    shown = [items[sha256] for sha256 in dict.fromkeys(sha256s) if sha256 in items]
    decoded = decoder.decode_many(_read(holdout, shown), _THUMBNAIL)
    return {
        item.sha256: _data_url(pixels)
        for item, pixels in zip(shown, decoded, strict=True)
        if not isinstance(pixels, PhotoError)
    }


def _read(holdout: Holdout, items: Sequence[HoldoutItem]) -> Iterator[bytes]:
    for item in items:
        yield holdout.read_photo(item)


def _data_url(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
