"""Each change does what its key says, to each picture alone, by nothing but its place in the epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import AugmentationTable
from training_cluster.inputs.augmentation import Augmentation
from training_cluster.inputs.draws import uniform_draws

_EVERYTHING = {
    "flip_horizontal": True,
    "flip_vertical": True,
    "shift_pixels": 3,
    "crop_share": 0.5,
    "rotate_degrees": 30,
    "brightness": 0.2,
    "contrast": 0.3,
    "saturation": 0.4,
    "erase_share": 0.2,
}
_SHAPE = (20, 30, 3)


def _augmentation(shape: tuple[int, int, int] = _SHAPE, *, seed: int = 1, **table: Any) -> Augmentation:
    contract = InputContract.model_validate(dict(zip(("height", "width", "channels"), shape, strict=True)))
    return Augmentation(AugmentationTable(**table), contract, seed=seed)


def _changed(picture: NDArray[np.uint8], count: int = 200, **table: Any) -> NDArray[np.uint8]:
    """Return one picture as it is changed at so many places."""
    pixels = np.repeat(picture[None], count, axis=0)
    return _augmentation(picture.shape, **table).apply(pixels, epoch=0, places=np.arange(count))


def _picture(shape: tuple[int, int, int] = _SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_depends_on_seed_epoch_and_place_alone(channels: int) -> None:
    table = {name: value for name, value in _EVERYTHING.items() if channels == 3 or name != "saturation"}
    shape = (20, 30, channels)
    pixels = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    before, places = pixels.copy(), np.array([5, 900, 2, 7, 1_000_000, 8, 9, 3])
    whole = _augmentation(shape, **table).apply(pixels, epoch=4, places=places)
    np.testing.assert_array_equal(pixels, before)
    assert whole.dtype == np.uint8
    parts = [
        _augmentation(shape, **table).apply(pixels[row : row + 1], epoch=4, places=places[row : row + 1])
        for row in range(8)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    for other in (
        _augmentation(shape, **table).apply(pixels, epoch=5, places=places),
        _augmentation(shape, **table).apply(pixels, epoch=4, places=places + 1),
        _augmentation(shape, seed=2, **table).apply(pixels, epoch=4, places=places),
    ):
        assert (whole != other).any()


def test_nothing_is_needed_when_nothing_is_asked_for() -> None:
    assert not _augmentation().is_needed
    assert all(_augmentation(**{name: value}).is_needed for name, value in _EVERYTHING.items())


def test_flips_mirror_half_of_the_pictures_each_way() -> None:
    picture = _picture()
    kinds = [picture, picture[:, ::-1], picture[::-1], picture[::-1, ::-1]]
    changed = _changed(picture, flip_horizontal=True, flip_vertical=True)
    counts = [sum(np.array_equal(kind, each) for each in changed) for kind in kinds]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_a_shift_moves_by_whole_pixels_and_mirrors_the_edge() -> None:
    picture = _picture((6, 7, 1))
    wide = np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="symmetric")
    allowed = {wide[y : y + 6, x : x + 7].tobytes() for y in range(5) for x in range(5)}
    assert {each.tobytes() for each in _changed(picture, 1000, shift_pixels=2)} == allowed


def test_a_crop_keeps_at_least_its_share_and_stays_inside() -> None:
    ramp = np.zeros((60, 80, 3), np.uint8)
    ramp[..., 0] = np.arange(80) * 3
    ramp[..., 1] = np.arange(60)[:, None] * 4
    shares = []
    for each in _changed(ramp, crop_share=0.4).astype(np.float64):
        across = (each[30, 60, 0] - each[30, 20, 0]) / (3 * 40)
        along = (each[45, 40, 1] - each[15, 40, 1]) / (4 * 30)
        shares.append(across * along)
    assert 0.36 < min(shares) < 0.5
    assert 0.9 < max(shares) < 1.05
    assert len({each[0, 0].tobytes() for each in _changed(ramp, crop_share=0.4)}) > 20


def test_a_turn_leaves_the_middle_and_brings_in_no_foreign_colour() -> None:
    picture = np.full((40, 40, 3), 200, np.uint8)
    picture[18:22, 30:34] = 0
    changed = _changed(picture, rotate_degrees=90)
    assert changed[:, 20, 20].min() == 200
    assert (changed.reshape(200, -1) == 200).mean(axis=1).min() > 0.95
    angles = [np.degrees(np.arctan2(*(np.argwhere(each[..., 0] < 100).mean(axis=0) - 19.5))) for each in changed]
    assert min(angles) < -75
    assert max(angles) > 75
    np.testing.assert_allclose(_changed(picture, 1, rotate_degrees=1e-9)[0], picture, atol=1)


def test_colours_move_within_their_reach() -> None:
    plain = np.full((8, 8, 3), 100, np.uint8)
    assert {int(each.min()) for each in _changed(plain, brightness=0.1)} <= set(range(74, 127))
    assert len(np.unique(_changed(plain, brightness=0.1))) > 30
    halves = plain.copy()
    halves[:4] = 140
    spreads = np.ptp(_changed(halves, contrast=0.5).reshape(200, -1).astype(int), axis=1)
    assert spreads.min() < 25
    assert spreads.max() > 55
    coloured = plain.copy()
    coloured[..., 0] = 160
    distances = np.ptp(_changed(coloured, saturation=0.5)[:, 0, 0].astype(int), axis=1)
    assert distances.min() < 38
    assert distances.max() > 82
    np.testing.assert_array_equal(_changed(plain, 20, saturation=0.5), np.repeat(plain[None], 20, axis=0))


def test_a_grey_rectangle_covers_up_to_its_share() -> None:
    black = np.zeros((40, 40, 1), np.uint8)
    shares = (_changed(black, erase_share=0.3) == 128).mean(axis=(1, 2, 3))
    assert 0.25 < shares.max() < 0.33
    assert shares.min() < 0.05


def test_what_pictures_cannot_have_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"augmentation\.saturation is set, and the dataset's pictures are grey"):
        _augmentation((8, 8, 1), saturation=0.1)
    with pytest.raises(SettingsError, match="shift_pixels 9 is more than pictures of 8×30 have"):
        _augmentation((8, 30, 1), shift_pixels=9)


def test_draws_are_even_and_unlike_each_other() -> None:
    draws = uniform_draws(1, 0, np.arange(20_000), count=4)
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(4), atol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws[:-1, 0], draws[1:, 0]), np.eye(2), atol=0.03)
