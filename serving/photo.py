"""The one function that turns a photo's bytes into model input: canonical uint8 pixels.

Its place in the flow: dataset build, the holdout and the web front end all call it (through
decode_pool.py where the bytes come from people), so that a model sees in service what it saw in
training. It needs numpy and Pillow and nothing else.

    bytes → format and limits → only the parts that decide pixels → decode (JPEG at a fraction of its
    size) → RGB or grey, alpha over white → largest centred crop of the contract's aspect → one
    bicubic resize → orientation → uint8 [height, width, channels]

Colour profiles are not applied: the numbers in the file are the numbers in the array. A file that
ends early is refused, never padded.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from serving.heif_structure import open_heif
from serving.photo_format import read_structure
from serving.photo_limits import PhotoLimits
from serving.photo_structure import PhotoStructure

__all__ = ["PhotoLimits", "decode_photo"]

_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow and its plug-ins raise on broken files, by its own bug reports: nearly everything."""

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: what brings the stored pixels upright."""

_DRAFT_FACTOR = 2
"""A JPEG is decoded at least this many times larger than needed, so that the resize has detail to average."""


def decode_photo(
    data: bytes,
    contract: InputContract,
    limits: PhotoLimits = PhotoLimits(),  # noqa: B008 (frozen)
) -> NDArray[np.uint8]:
    """Return a photo as the model takes it.

    The result depends on `data` and `contract` only. Processor time and memory are not limited
    here (decode_pool.py does); sizes are, before anything is allocated. Warnings are turned into
    refusals for the whole process while it runs, so call it from one thread at a time.

    Returns:
        uint8 [contract.height, contract.width, contract.channels], RGB or grey, upright.

    Raises:
        PhotoError: the photo is refused; its `reason` says why in a word.
    """
    structure = read_structure(data, limits)
    size = (contract.width, contract.height)
    turned_size = size[::-1] if structure.orientation >= 5 else size
    with _refusing_decoder_errors():
        image = _open(structure)
        image = _load_with_alpha_or_rgb(image, structure, contract, turned_size)
        image = image.resize(turned_size, Image.Resampling.BICUBIC, box=_centre_box(image.size, turned_size))
        image = _flatten(image, "L" if contract.channels == 1 else "RGB")
        if structure.orientation in _TRANSPOSES:
            image = image.transpose(_TRANSPOSES[structure.orientation])
        pixels = np.array(image, dtype=np.uint8)
    return pixels.reshape(contract.height, contract.width, contract.channels)


def _open(structure: PhotoStructure) -> Image.Image:
    essential = structure.keep("essential")
    if structure.format == "HEIF":
        heif_image: Image.Image = open_heif(essential).to_pillow()
        return heif_image
    return Image.open(io.BytesIO(essential), formats=[structure.format])


def _load_with_alpha_or_rgb(
    image: Image.Image, structure: PhotoStructure, contract: InputContract, turned_size: tuple[int, int]
) -> Image.Image:
    """Decode and bring any mode to L, RGB or RGBA; only then are pixels allocated."""
    if structure.format == "JPEG":
        left, top, right, bottom = _centre_box(image.size, turned_size)
        factor = _DRAFT_FACTOR * max(turned_size[0] / (right - left), turned_size[1] / (bottom - top))
        wanted = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
        image.draft("L" if contract.channels == 1 else None, wanted)
    image.load()
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode in {"LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in {"L", "RGB", "RGBA"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte, as the decoder does for colour of 16 bits; `convert` would clip instead."""
    values = np.asarray(image).astype(np.int64)
    grey = np.clip(values >> 8, 0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey, alpha], axis=-1))


def _centre_box(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest centred box (left, top, right, bottom) with the aspect of `wanted`."""
    width, height = size
    crop_width = min(width, height * wanted[0] / wanted[1])
    crop_height = min(height, width * wanted[1] / wanted[0])
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Put what is transparent over white, then convert to the contract's mode."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


@contextmanager
def _refusing_decoder_errors() -> Iterator[None]:
    """Turn whatever the decoder raises or warns of into a PhotoError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Our own limits were held before the file was opened, and they are not Pillow's global one.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            yield
        except MemoryError:
            raise PhotoError(
                "Photo refused: decoding it needs more memory than one photo may use. Send a smaller one.",
                reason="decode-limit",
            ) from None
        except _DECODER_ERRORS as error:
            raise _translate(error) from None


def _translate(error: Exception) -> PhotoError:
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        return PhotoError(
            "Photo refused: its picture data ends early, so part of it is missing. Send the whole file again.",
            reason="truncated",
        )
    return PhotoError(
        f"Photo refused: it cannot be decoded ({text[:200]}). Save it again with a photo program.",
        reason="decode-failed",
    )
