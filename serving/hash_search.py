"""Finds which of many perceptual hashes differ in a few bits only, without comparing each with each.

Its place in the flow: dataset build and freeze_holdout keep near duplicates together with it, the gate looks
with it for the holdout's photos among the training photos. It is exact: the 128 bits are cut into one
band more than bits may differ, so two near hashes are equal in at least one band (pigeonhole), and
only what shares a band is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Hashes = NDArray[np.uint8]
"""Perceptual hashes, uint8 [n, 16]."""

MAX_DISTANCE = 7
_ROWS_AT_ONCE = 1 << 16
_PAIRS_AT_ONCE = 1 << 17
_EDGES_AT_ONCE = 1 << 20


class NearPairs(NamedTuple):
    """Positions in the one and the other array of hashes, and in how many bits each pair differs; int64 [n]."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    distance: NDArray[np.int64]


def nearest(hashes: Hashes, among: Hashes, *, maximum_distance: int) -> NearPairs:
    """Return for each of `hashes` that has a near one `among` the others the nearest, of equals the first."""
    distinct, first = _distinct(among)
    best = np.full(len(hashes), (MAX_DISTANCE + 1) * len(among), dtype=np.int64)
    for pairs in near_pairs(hashes, distinct, maximum_distance=maximum_distance):
        np.minimum.at(best, pairs.one, pairs.distance * len(among) + first[pairs.other])
    found = np.flatnonzero(best < (MAX_DISTANCE + 1) * len(among))
    return NearPairs(found, best[found] % max(1, len(among)), best[found] // max(1, len(among)))


def groups(hashes: Hashes, *, maximum_distance: int) -> NDArray[np.int64]:
    """Return a number for each hash, the same for those that a chain of near ones connects; int64 [n]."""
    distinct, inverse = np.unique(_words(hashes), axis=0, return_inverse=True)
    unique = distinct.view(np.uint8).reshape(len(distinct), -1)
    numbers = np.arange(len(unique))
    for one, other in _edges(near_pairs(unique, unique, maximum_distance=maximum_distance)):
        edges = (np.ones(len(one), dtype=np.bool_), (numbers[one], numbers[other]))
        numbers = connected_components(coo_array(edges, shape=(len(unique), len(unique))), directed=False)[1][numbers]
    result: NDArray[np.int64] = numbers[inverse.reshape(-1)].astype(np.int64)
    return result


def near_pairs(hashes: Hashes, among: Hashes, *, maximum_distance: int) -> Iterator[NearPairs]:
    """Yield the pairs that differ in at most `maximum_distance` bits, some more than once, a part at a time.

    Raises:
        ValueError: the distance is not between 0 and 7.
    """
    if not 0 <= maximum_distance <= MAX_DISTANCE:
        raise ValueError(f"a distance of {maximum_distance} bits is not between 0 and {MAX_DISTANCE}")
    bands = max(2, maximum_distance + 1)
    words, other_words = _words(hashes), _words(among)
    for band in range(bands):
        keys = _keys(hashes, band, bands)
        other_keys = keys if among is hashes else _keys(among, band, bands)
        order = np.argsort(other_keys, kind="stable").astype(np.uint32)
        other_keys, sorted_words = other_keys[order], other_words[order]
        start = np.searchsorted(other_keys, keys, side="left")
        counts = np.searchsorted(other_keys, keys, side="right")
        counts -= start
        del keys, other_keys
        for one, place in _candidates(start, counts):
            distance = _distances(words[one], sorted_words[place])
            near = np.flatnonzero(distance <= maximum_distance)
            if len(near):
                yield NearPairs(one[near], order[place[near]].astype(np.int64), distance[near].astype(np.int64))


def _edges(parts: Iterator[NearPairs]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of two different ones, each once, many at a time: what is done with them costs by the time."""
    ones: list[NDArray[np.int64]] = []
    others: list[NDArray[np.int64]] = []
    for pairs in parts:
        is_edge = pairs.one < pairs.other
        ones.append(pairs.one[is_edge])
        others.append(pairs.other[is_edge])
        if sum(map(len, ones)) >= _EDGES_AT_ONCE:
            yield np.concatenate(ones), np.concatenate(others)
            ones, others = [], []
    if ones:
        yield np.concatenate(ones), np.concatenate(others)


def _candidates(
    start: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (i, start[i] + k) for each i and k < counts[i], at most so many pairs at a time."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for low in range(0, total, _PAIRS_AT_ONCE):
        high = min(low + _PAIRS_AT_ONCE, total)
        rows = np.arange(np.searchsorted(ends, low, side="right"), np.searchsorted(ends, high, side="left") + 1)
        begins = ends[rows] - counts[rows]
        one = np.repeat(rows, np.minimum(ends[rows], high) - np.maximum(begins, low))
        yield one, np.arange(low, high) + (start[rows] - begins)[one - rows[0]]


def _distances(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    counts: NDArray[np.uint8] = np.bitwise_count(one[:, 0] ^ other[:, 0]) + np.bitwise_count(one[:, 1] ^ other[:, 1])
    return counts


def _keys(hashes: Hashes, band: int, bands: int) -> NDArray[np.uint64]:
    """Return the bits of one band as a number each. A band takes every so-manieth bit.

    Neighbouring bits lie in one part of the picture and are often all equal (an even ground), and a
    band of these would be shared by too many.
    """
    keys = np.empty(len(hashes), dtype=np.uint64)
    for low in range(0, len(hashes), _ROWS_AT_ONCE):
        bits = np.unpackbits(hashes[low : low + _ROWS_AT_ONCE], axis=1)[:, band::bands]
        packed = np.packbits(bits, axis=1)
        eight = np.zeros((len(packed), 8), dtype=np.uint8)
        eight[:, : packed.shape[1]] = packed
        keys[low : low + _ROWS_AT_ONCE] = eight.view(np.uint64)[:, 0]
    return keys


def _words(hashes: Hashes) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 2)


def _distinct(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64]]:
    """Return each hash once and where it comes first: many equal ones would make too many pairs."""
    if not len(hashes):
        return hashes, np.empty(0, dtype=np.int64)
    words = _words(hashes)
    order = np.lexsort((words[:, 1], words[:, 0]))
    is_new = np.concatenate([[True], (words[order][1:] != words[order][:-1]).any(axis=1)])
    first = np.sort(order[is_new])
    return hashes[first], first
