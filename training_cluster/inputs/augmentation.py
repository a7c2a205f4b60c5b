"""Random changes of training pictures: mirrored, moved, cropped, turned, recoloured, partly covered.

Its place in the flow: the input pipeline changes each picture just before its batch. Each is changed on
its own, by draws that depend on nothing but its place in the epoch. Everything works on whole rows of
one picture, which is many times as quick as the same on whole batches with TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import AugmentationTable
from training_cluster.inputs.draws import uniform_draws

Picture = NDArray[np.uint8]
Draws = NDArray[np.float64]

_FLIP_X, _FLIP_Y, _SHIFT_X, _SHIFT_Y = range(4)
_CROP_AREA, _CROP_ASPECT, _CROP_X, _CROP_Y, _ANGLE = range(4, 9)
_BRIGHTNESS, _CONTRAST, _SATURATION = range(9, 12)
_ERASE_AREA, _ERASE_ASPECT, _ERASE_X, _ERASE_Y = range(12, 16)
_DRAWS = 16

_GREY = 128
_LUMA = (np.float32(0.299), np.float32(0.587), np.float32(0.114))
_CROP_STRETCH = 4 / 3
_ERASE_STRETCH = 3.0
_MEAN_LINES = 56


class Augmentation:
    """The changes of one table for pictures of one shape.

    Raises:
        SettingsError: the table asks for what such pictures cannot have.
    """

    def __init__(self, table: AugmentationTable, contract: InputContract, *, seed: int) -> None:
        if table.saturation and contract.channels == 1:
            raise SettingsError(
                "Training refused: augmentation.saturation is set, and the dataset's pictures are grey. Leave it out."
            )
        if table.shift_pixels > min(contract.height, contract.width):
            raise SettingsError(
                f"Training refused: augmentation.shift_pixels {table.shift_pixels} is more than pictures of "
                f"{contract.height}×{contract.width} have. Use less."
            )
        self._table = table
        self._height, self._width, self._channels = contract.height, contract.width, contract.channels
        self._seed = seed
        self._steps = tuple(self._chosen())

    @property
    def is_needed(self) -> bool:
        """Whether it changes anything."""
        return bool(self._steps)

    def apply(self, pixels: Picture, *, epoch: int, places: NDArray[np.int64]) -> Picture:
        """Return pictures [n, h, w, c] changed as their places in the epoch say."""
        draws = uniform_draws(self._seed, epoch, places, count=_DRAWS)
        answer = np.empty(pixels.shape, np.uint8)
        for number in range(len(pixels)):
            picture = pixels[number]
            for step in self._steps:
                picture = step(picture, draws[number])
            answer[number] = picture
        return answer

    def _chosen(self) -> list[Callable[[Picture, Draws], Picture]]:
        table = self._table
        steps = {
            self._flipped: table.flip_horizontal or table.flip_vertical,
            self._shifted: table.shift_pixels > 0,
            self._turned: table.rotate_degrees > 0,
            self._cropped: table.crop_share < 1 and not table.rotate_degrees,
            self._recoloured: table.brightness > 0 or table.contrast > 0 or table.saturation > 0,
            self._covered: table.erase_share > 0,
        }
        return [step for step, is_wanted in steps.items() if is_wanted]

    def _flipped(self, picture: Picture, draws: Draws) -> Picture:
        if self._table.flip_vertical and draws[_FLIP_Y] < 0.5:
            picture = picture[::-1]
        if self._table.flip_horizontal and draws[_FLIP_X] < 0.5:
            mirrored = np.empty(picture.shape, np.uint8)
            # A channel at a time, since a run of three bytes is too short for numpy's inner loop.
            for channel in range(self._channels):
                mirrored[..., channel] = picture[:, ::-1, channel]
            picture = mirrored
        return picture

    def _shifted(self, picture: Picture, draws: Draws) -> Picture:
        reach = self._table.shift_pixels
        down, right = (int(draws[draw] * (2 * reach + 1)) - reach for draw in (_SHIFT_Y, _SHIFT_X))
        return _moved(_moved(picture, down, axis=0), right, axis=1)

    def _cropped(self, picture: Picture, draws: Draws) -> Picture:
        left, top, width, height = self._crop_box(draws)
        image = self._image(picture)
        size = (self._width, self._height)
        box = (left, top, left + width, top + height)
        return self._picture(image.resize(size, Image.Resampling.BILINEAR, box=box))

    def _turned(self, picture: Picture, draws: Draws) -> Picture:
        """Return the picture turned and cropped at once; what comes in repeats the mirrored edges."""
        angle = math.radians(self._table.rotate_degrees) * (2 * draws[_ANGLE] - 1)
        cosine, sine = math.cos(angle), math.sin(angle)
        left, top, width, height = self._crop_box(draws)
        margin_x, margin_y = (
            math.ceil(max(0.0, (across * abs(cosine) + along * abs(sine) - across) / 2)) + 1
            for across, along in ((self._width, self._height), (self._height, self._width))
        )
        rows = _mirrored_indices(self._height, margin_y)
        columns = _mirrored_indices(self._width, margin_x)
        image = self._image(np.ascontiguousarray(picture[rows][:, columns]))
        scale_x, scale_y = width / self._width, height / self._height
        # From the middle of the result: to the crop's box, turned around the picture's middle.
        a, b, d, e = cosine * scale_x, -sine * scale_y, sine * scale_x, cosine * scale_y
        from_middle_x = left + width / 2 - self._width / 2
        from_middle_y = top + height / 2 - self._height / 2
        middle_x = margin_x + self._width / 2 + cosine * from_middle_x - sine * from_middle_y
        middle_y = margin_y + self._height / 2 + sine * from_middle_x + cosine * from_middle_y
        c = middle_x - a * self._width / 2 - b * self._height / 2
        f = middle_y - d * self._width / 2 - e * self._height / 2
        size = (self._width, self._height)
        turned = image.transform(size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
        return self._picture(turned)

    def _crop_box(self, draws: Draws) -> tuple[float, float, float, float]:
        """Return left, top, width and height of what is kept; the area is drawn evenly, the aspect around the own."""
        share = 1 - draws[_CROP_AREA] * (1 - self._table.crop_share)
        stretch = math.sqrt(_CROP_STRETCH ** (2 * draws[_CROP_ASPECT] - 1)) if self._table.crop_share < 1 else 1.0
        root = math.sqrt(share)
        # A side that would be longer than the picture's gives to the other one, so that the area stays.
        across = min(1.0, max(root * stretch, share))
        width, height = across * self._width, share / across * self._height
        return draws[_CROP_X] * (self._width - width), draws[_CROP_Y] * (self._height - height), width, height

    def _recoloured(self, picture: Picture, draws: Draws) -> Picture:
        brightness, contrast, saturation = (
            reach * (2 * draws[draw] - 1)
            for reach, draw in (
                (self._table.brightness, _BRIGHTNESS),
                (self._table.contrast, _CONTRAST),
                (self._table.saturation, _SATURATION),
            )
        )
        rows, columns = (max(1, size // _MEAN_LINES) for size in (self._height, self._width))
        mean = float(picture[::rows, ::columns].mean())
        offset = mean - (1 + contrast) * mean + 255 * brightness + 0.5
        values = picture.astype(np.float32)
        if saturation:
            red, green, blue = (values[..., channel] * luma for channel, luma in enumerate(_LUMA))
            grey = (red + green + blue) * np.float32(-saturation * (1 + contrast))
            values *= np.float32((1 + contrast) * (1 + saturation))
            values += grey[..., None]
        else:
            values *= np.float32(1 + contrast)
        values += np.float32(offset)
        np.clip(values, 0, 255, out=values)
        return values.astype(np.uint8)

    def _covered(self, picture: Picture, draws: Draws) -> Picture:
        share = draws[_ERASE_AREA] * self._table.erase_share
        stretch = math.sqrt(_ERASE_STRETCH ** (2 * draws[_ERASE_ASPECT] - 1))
        across = min(1.0, max(math.sqrt(share) * stretch, share))
        width, height = round(across * self._width), round(share / across * self._height) if across else 0
        left, top = int(draws[_ERASE_X] * (self._width - width + 1)), int(draws[_ERASE_Y] * (self._height - height + 1))
        covered = picture.copy()
        covered[top : top + height, left : left + width] = _GREY
        return covered

    def _image(self, picture: Picture) -> Image.Image:
        return Image.fromarray(picture[..., 0] if self._channels == 1 else picture)

    def _picture(self, image: Image.Image) -> Picture:
        return np.asarray(image).reshape(self._height, self._width, self._channels)


def _moved(picture: Picture, distance: int, *, axis: int) -> Picture:
    """Return the picture moved along an axis; what comes in repeats the mirrored edge."""
    if not distance:
        return picture
    lines = picture if axis == 0 else picture.swapaxes(0, 1)
    answer = np.empty(picture.shape, np.uint8)
    target = answer if axis == 0 else answer.swapaxes(0, 1)
    if distance > 0:
        target[:distance] = lines[:distance][::-1]
        target[distance:] = lines[:-distance]
    else:
        target[:distance] = lines[-distance:]
        target[distance:] = lines[distance:][::-1]
    return answer


def _mirrored_indices(size: int, margin: int) -> NDArray[np.int64]:
    """Return the lines of a picture with so many mirrored ones before and behind."""
    turn = np.arange(-margin, size + margin) % (2 * size)
    return np.where(turn < size, turn, 2 * size - 1 - turn)
