"""The search for near hashes finds exactly what comparing each with each finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving import hash_search
from serving.hash_search import Hashes, groups, near_pairs, nearest


def _distances(one: Hashes, other: Hashes) -> NDArray[np.int64]:
    distances: NDArray[np.int64] = np.bitwise_count(one[:, None] ^ other[None]).sum(axis=2, dtype=np.int64)
    return distances


def _flipped(hashes: Hashes, bits: int, *, seed: int) -> Hashes:
    """Return copies with exactly `bits` of each hash's 128 bits turned round."""
    random = np.random.default_rng(seed)
    pattern = np.zeros((len(hashes), 128), dtype=np.uint8)
    for row in pattern:
        row[random.choice(128, bits, replace=False)] = 1
    return hashes ^ np.packbits(pattern, axis=1)


def _random(count: int, *, ones: float = 0.5, seed: int = 0) -> Hashes:
    return np.packbits(np.random.default_rng(seed).random((count, 128)) < ones, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    ones=st.sampled_from([0.5, 0.1, 0.02, 0.0]),
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 60)),
    distance=st.integers(0, 7),
    seed=st.integers(0, 9),
)
def test_it_finds_what_comparing_each_with_each_finds(
    ones: float, sizes: tuple[int, int], distance: int, seed: int
) -> None:
    one, other = _random(sizes[0], ones=ones, seed=seed), _random(sizes[1], ones=ones, seed=seed + 100)
    shared = min(5, *sizes)
    other[:shared] = _flipped(one[:shared], min(distance, 6), seed=seed)
    expected = _distances(one, other)
    pairs = {
        (int(i), int(j)): int(d)
        for part in near_pairs(one, other, maximum_distance=distance)
        for i, j, d in zip(*part, strict=True)
    }
    assert pairs == {(i, j): expected[i, j] for i, j in zip(*np.nonzero(expected <= distance), strict=True)}
    found = nearest(one, other, maximum_distance=distance)
    hits = [] if not sizes[1] else np.flatnonzero(expected.min(axis=1, initial=129) <= distance).tolist()
    assert found.one.tolist() == hits
    assert found.other.tolist() == [int(expected[i].argmin()) for i in hits]
    assert found.distance.tolist() == [int(expected[i].min()) for i in hits]


@pytest.mark.parametrize("distance", range(8))
def test_the_limit_is_sharp(distance: int) -> None:
    hashes = _random(300)
    at, beyond = _flipped(hashes, distance, seed=1), _flipped(hashes, distance + 1, seed=2)
    assert nearest(at, hashes, maximum_distance=distance).one.tolist() == list(range(300))
    assert not len(nearest(beyond, hashes, maximum_distance=distance).one)


@pytest.mark.parametrize("distance", [-1, 8])
def test_a_distance_that_the_bands_cannot_hold_is_refused(distance: int) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 7"):
        nearest(_random(1), _random(1), maximum_distance=distance)


def test_a_hundred_thousand_equal_hashes_are_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_search, "_PAIRS_AT_ONCE", 7)
    training = np.repeat(_random(1), 100_000, axis=0)
    found = nearest(_flipped(training[:50], 3, seed=1), training, maximum_distance=4)
    assert found.one.tolist() == list(range(50))
    assert found.other.tolist() == [0] * 50
    assert found.distance.tolist() == [3] * 50
    assert len(set(groups(training, maximum_distance=4).tolist())) == 1


@pytest.mark.parametrize("pairs_at_once", [1, 7, 64])
def test_parts_of_any_size_make_the_whole(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    hashes = np.repeat(_random(6), [1, 9, 2, 30, 1, 5], axis=0)
    whole = list(near_pairs(hashes, hashes, maximum_distance=3))
    monkeypatch.setattr(hash_search, "_PAIRS_AT_ONCE", pairs_at_once)
    parts = list(near_pairs(hashes, hashes, maximum_distance=3))
    assert max(len(part.one) for part in parts) <= pairs_at_once
    for column in range(3):
        joined = np.concatenate([part[column] for part in parts])
        assert (joined == np.concatenate([part[column] for part in whole])).all()


def test_groups_are_chains_of_near_hashes() -> None:
    start = _random(1)
    chain = [start]
    for step in range(5):
        chain.append(_flipped(chain[-1], 4, seed=step))
    apart = _random(4, seed=9)
    hashes = np.concatenate([apart[:2], *chain, apart[2:], start])
    numbers = groups(hashes, maximum_distance=4).tolist()
    assert len(set(numbers[2:8])) == 1
    assert numbers[-1] == numbers[2]
    assert len(set(numbers)) == 5
