"""Pictures of how a model errs: the confusion matrix, and the photos it takes for something else.

Its place in the flow: evaluation_events puts them into TensorBoard. Drawn with Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]

_CELL = 44
_MOST_PIXELS = 2000
_CELL_WITH_NUMBER = 24
_MARGIN = 110
_TILE = 96
_CAPTION = 30
_COLUMNS = 6


def confusion_matrix(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, class_count: int
) -> npt.NDArray[np.int64]:
    """Return counts [class_count, class_count]: row = what it is, column = what it was taken for."""
    flat = np.bincount(truth * class_count + predicted, minlength=class_count * class_count)
    return flat.reshape(class_count, class_count)


def draw_confusion_matrix(matrix: npt.NDArray[np.int64], labels: Sequence[str]) -> Picture:
    """Return uint8 [height, width, 3]: rows are true classes, the darker a cell the larger its share of the row."""
    cell = max(1, min(_CELL, _MOST_PIXELS // len(labels)))
    size = _MARGIN + cell * len(labels)
    image = Image.new("RGB", (size + 10, size + 10), "white")
    draw = ImageDraw.Draw(image)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shaded = _shaded(shares)
    if cell < _CELL_WITH_NUMBER:
        # Neither names nor numbers can be read at that size; the pattern can.
        cells = Image.fromarray(shaded).resize((cell * len(labels), cell * len(labels)), Image.Resampling.NEAREST)
        image.paste(cells, (_MARGIN, _MARGIN))
        return np.asarray(image)
    for row, label in enumerate(labels):
        top = _MARGIN + row * cell
        _text(draw, (4, top + cell // 3), label[:16])
        _text(draw, (_MARGIN + row * cell + 2, _MARGIN - 18 - 14 * (row % 2)), label[:7])
        for column in range(len(labels)):
            left = _MARGIN + column * cell
            share = float(shares[row, column])
            colour = tuple(int(value) for value in shaded[row, column])
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=colour, outline="lightgrey")
            _text(draw, (left + 5, top + cell // 3), str(matrix[row, column]), "white" if share > 0.6 else "black")
    return np.asarray(image)


def draw_mistakes(
    pixels: npt.NDArray[np.uint8], truth: Sequence[str], predicted: Sequence[str], confidences: Sequence[float]
) -> Picture:
    """Return one sheet uint8 [height, width, 3] of the photos [n, h, w, c], each with what it is and was taken for."""
    rows = max(1, -(-len(pixels) // _COLUMNS))
    sheet = Image.new("RGB", (_COLUMNS * _TILE, rows * (_TILE + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pixels):
        left, top = index % _COLUMNS * _TILE, index // _COLUMNS * (_TILE + _CAPTION)
        tile = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        sheet.paste(tile.resize((_TILE - 4, _TILE - 4), Image.Resampling.NEAREST), (left + 2, top + 2))
        _text(draw, (left + 2, top + _TILE - 1), f"is {truth[index]}"[:16])
        _text(draw, (left + 2, top + _TILE + 12), f"as {predicted[index]} {confidences[index]:.0%}"[:18], "firebrick")
    return np.asarray(sheet)


def _shaded(shares: npt.NDArray[np.float64]) -> Picture:
    """Return the colour of each cell uint8 [n, n, 3]: blue on the diagonal, red beside it."""
    shade = np.round(255 * (1 - shares)).astype(np.uint8)
    colours = np.stack([np.full_like(shade, 255), shade, shade], axis=-1)
    diagonal = np.arange(len(shares))
    colours[diagonal, diagonal] = colours[diagonal, diagonal][:, ::-1]
    return colours


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: str = "black") -> None:
    # The built-in bitmap font knows Latin-1 only.
    plain = text.encode("latin-1", errors="replace").decode("latin-1")
    draw.text(place, plain, fill=colour, font=ImageFont.load_default_imagefont())
