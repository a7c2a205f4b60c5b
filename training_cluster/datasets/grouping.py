"""Which examples belong together, on which side they fall, and in which order they are written.

Its place in the flow: the end of dataset build's comparing stage. Examples that look nearly the same, or
come from the same source, are a group: whoever splits examples splits at a group's start. Finding them
takes about 150 bytes of memory a photo; little else in a build grows with their number.

The order is (smallest digest of the group, own digest), so a leading part of the shards is a random
sample of groups that hardly changes when photos are added. The holdout's side hangs on other bits of
that digest alone, so a photo keeps its side when others come.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from serving.hash_search import groups, nearest
from serving.perceptual_hash import HASH_BYTES, PictureHashes
from training_cluster.datasets.comparing import leave_out
from training_cluster.datasets.photo_index import clear, in_pages

_AT_ONCE = 10_000
_LOOKS = (
    "SELECT number, example.sha256, look FROM example JOIN decoded USING (sha256) WHERE number > ? "
    "ORDER BY number LIMIT ?"
)
_EXAMPLES = "INSERT INTO example SELECT NULL, sha256, listed FROM candidate WHERE kept = sha256 ORDER BY sha256"
# All entries of lists whose photo, or one of the same pixels, is an example.
_ORIGINS = (
    "SELECT origin, example.number FROM listed JOIN file USING (place) JOIN candidate USING (sha256) "
    "JOIN example ON example.sha256 = candidate.kept WHERE origin <> '' AND fault IS NULL ORDER BY origin"
)


@dataclass(frozen=True)
class Rules:
    """How examples are grouped and split.

    Attributes:
        near_distance: in how many bits of 128 two looks may differ to be near; at most 7.
        holdout_share: share of the groups that goes to the holdout's side; 0 for none.
        excluded_looks: of photos to which no example may be near: the holdout's.
    """

    near_distance: int
    holdout_share: float
    excluded_looks: PictureHashes | None


def group_examples(index: sqlite3.Connection, rules: Rules) -> str:
    """Fill `example`, `placed` and `held_out`; return a digest over the examples and their order."""
    clear(index, "example", "placed", "held_out")
    index.execute(_EXAMPLES)
    if rules.excluded_looks is not None and len(rules.excluded_looks):
        _exclude_near(index, rules.excluded_looks, rules.near_distance)
    digest = hashlib.sha256()
    looks, is_low = _looks(index, digest, share=rules.holdout_share)
    near = _first_of_each(groups(looks, maximum_distance=rules.near_distance))
    del looks
    _account_for_near(index, near)
    first = _joined_by_origin(index, near)
    _place(index, first, is_low[first], digest)
    index.commit()
    return digest.hexdigest()


def _exclude_near(index: sqlite3.Connection, excluded: PictureHashes, distance: int) -> None:
    looks, _ = _looks(index, hashlib.sha256(), share=0.0)
    near = (nearest(looks, excluded.hashes, maximum_distance=distance).one + 1).tolist()
    for number in near:
        query = "SELECT source FROM example JOIN listed ON listed.id = example.listed WHERE number = ?"
        (source,) = index.execute(query, (number,)).fetchone()
        leave_out(index, "excluded", [(source, "its look is nearly that of a photo of the holdout")])
        index.execute(
            "UPDATE candidate SET kept = NULL WHERE sha256 = (SELECT sha256 FROM example WHERE number = ?)", (number,)
        )
    clear(index, "example")
    index.execute(_EXAMPLES)


def _looks(
    index: sqlite3.Connection, digest: hashlib._Hash, *, share: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return each example's look, and whether a group that begins with it is held out; the digests go into `digest`."""
    (count,) = index.execute("SELECT COUNT(*) FROM example").fetchone()
    looks = np.empty((count, HASH_BYTES), dtype=np.uint8)
    is_low = np.empty(count, dtype=np.bool_)
    for place, (_, sha256, look) in enumerate(in_pages(index, _LOOKS, start=0)):
        assert isinstance(sha256, bytes) and isinstance(look, bytes)  # noqa: PT018
        looks[place] = np.frombuffer(look, dtype=np.uint8)
        # The order goes by the digest's beginning, so this is independent of it.
        is_low[place] = int.from_bytes(sha256[-8:]) < share * 2**64
        digest.update(sha256)
    return looks, is_low


def _first_of_each(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each example the first one of its group, which has the group's smallest digest."""
    if not len(numbers):
        return numbers
    first = np.full(int(numbers.max()) + 1, len(numbers), dtype=np.int64)
    np.minimum.at(first, numbers, np.arange(len(numbers)))
    return first[numbers]


def _account_for_near(index: sqlite3.Connection, first: NDArray[np.int64]) -> None:
    query = "SELECT source, label FROM example JOIN listed ON listed.id = example.listed WHERE number = ?"
    for place in np.flatnonzero(first != np.arange(len(first))):
        source, label = index.execute(query, (int(place) + 1,)).fetchone()
        other, other_label = index.execute(query, (int(first[place]) + 1,)).fetchone()
        doubt = "" if label == other_label else f", which is labelled {other_label} and not {label}"
        leave_out(index, "near", [(source, f"it looks nearly like {other} or another of its group{doubt}")])


def _joined_by_origin(index: sqlite3.Connection, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first example of each one's group when photos of the same origin are one group too."""
    edges = np.fromiter(_origin_edges(index), dtype=np.dtype((np.int64, 2)))
    if not len(edges):
        return first
    own = np.arange(len(first))
    ones, others = np.concatenate([own, edges[:, 0]]), np.concatenate([first, edges[:, 1]])
    graph = coo_array((np.ones(len(ones), dtype=np.bool_), (ones, others)), shape=(len(first), len(first)))
    return _first_of_each(connected_components(graph, directed=False)[1].astype(np.int64))


def _origin_edges(index: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Yield each example that has an origin with the one before it of the same origin."""
    before: tuple[str, int] = ("", 0)
    for origin, number in index.execute(_ORIGINS):
        if origin == before[0]:
            yield before[1], number - 1
        before = (origin, number - 1)


def _place(
    index: sqlite3.Connection, first: NDArray[np.int64], is_held_out: NDArray[np.bool_], digest: hashlib._Hash
) -> None:
    """Write down the order of those on the training's side, and who is on the other."""
    numbers = (int(place) + 1 for place in np.flatnonzero(is_held_out))
    index.executemany("INSERT INTO held_out VALUES (?)", ((number,) for number in numbers))
    order = np.argsort(first, kind="stable")
    order = order[~is_held_out[order]]
    before = -1
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        firsts = first[places]
        digest.update(places.tobytes())
        starts = firsts != np.concatenate([[before], firsts[:-1]])
        digest.update(starts.tobytes())
        before = int(firsts[-1])
        rows = zip((places + 1).tolist(), (firsts + 1).tolist(), starts.tolist(), strict=True)
        index.executemany("INSERT INTO placed VALUES (NULL, ?, ?, ?)", rows)
