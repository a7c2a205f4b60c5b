"""Random changes of training pictures: moved, mirrored, cropped, turned, recoloured, partly covered.

Its place in the flow: the input pipeline changes each picture just before its batch. All draws come
from the seed, the epoch and the picture's place in the epoch, and each picture is changed on its own, so
that neither the number of hosts or threads nor a restart makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import AugmentationTable

Picture = NDArray[np.uint8]
Draws = NDArray[np.float64]


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
                f"Training refused: augmentation.shift_pixels {table.shift_pixels} is more than the pictures of "
                f"{contract.height}×{contract.width} have. Use less."
            )
        self._table = table
        self._shape = (contract.height, contract.width, contract.channels)
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
        chosen: list[Callable[[Picture, Draws], Picture]] = []
        if table.flip_horizontal or table.flip_vertical:
            chosen.append(self._flipped)
        if table.shift_pixels:
            chosen.append(self._shifted)
        return chosen

    def _flipped(self, picture: Picture, draws: Draws) -> Picture:
        if self._table.flip_vertical and draws[_FLIP_V] < 0.5:
            picture = picture[::-1]
        if self._table.flip_horizontal and draws[_FLIP_H] < 0.5:
            picture = picture[:, ::-1]
        return picture

    def _shifted(self, picture: Picture, draws: Draws) -> Picture:
        reach = self._table.shift_pixels
        down, right = (int(draws[index] * (2 * reach + 1)) - reach for index in (_SHIFT_Y, _SHIFT_X))
        return _along(_along(picture, down, axis=0), right, axis=1)


_DRAWS = 16
_FLIP_H, _FLIP_V, _SHIFT_Y, _SHIFT_X = range(4)


def uniform_draws(seed: int, epoch: int, places: NDArray[np.int64], *, count: int) -> Draws:
    """Return numbers from 0 to 1 (without it), float64 [n, count], that depend on nothing but the arguments.

    The numbers are a hash (SplitMix64) of seed, epoch, place and column.
    """
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    counter = np.add.outer(places.astype(np.uint64) * np.uint64(count), np.arange(count, dtype=np.uint64))
    mixed = _mixed(_mixed(counter * np.uint64(0x9E3779B97F4A7C15)) ^ key)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    answer: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return answer


def _along(picture: Picture, distance: int, *, axis: int) -> Picture:
    """Return the picture moved along an axis; what comes in repeats the mirrored edge."""
    if not distance:
        return picture
    moved = np.moveaxis(picture, axis, 0)
    near, far = (
        (moved[:distance][::-1], moved[:-distance]) if distance > 0 else (moved[-distance:], moved[distance:][::-1])
    )
    return np.moveaxis(np.concatenate((near, far)), 0, axis)
