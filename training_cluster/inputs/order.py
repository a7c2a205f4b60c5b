"""The order of an epoch: which example stands at which place, and which places one host shows when.

Its place in the flow: pure arithmetic between the split and the reader. An epoch is a row of places,
in the order in which blocks are read. Each host gets a part of the row, of equal size, and shows it in
windows, each of them shuffled. All of it follows from the seed, the epoch and what was done of it
before, so every host knows the whole plan without asking another.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training_cluster.datasets.block_index import Blocks
from training_cluster.inputs.position import EpochPosition

Places = NDArray[np.int64]

_FIRST_WINDOWS = (8, 4, 2)
"""When not all fits into one window, the first ones are this much smaller, so that the first batch comes soon."""

_BLOCKS_STREAM, _PLACES_STREAM = 1, 2


@dataclass(frozen=True)
class OrderRules:
    """What an order depends on beside the examples and the position."""

    seed: int
    batch_size: int
    window_examples: int


@dataclass(frozen=True, eq=False)
class HostPlan:
    """What one host shows from a position to the end of the epoch.

    Attributes:
        places: whole steps of places, one after the other.
        is_shown: False where a place only fills the last step up; bool [n].
        windows: begin and end in `places` of the parts that are read together.
    """

    places: Places
    is_shown: NDArray[np.bool_]
    windows: tuple[tuple[int, int], ...]


def epoch_row(
    blocks: Blocks, repetitions: NDArray[np.int64], *, seed: int, epoch: int, interleaved_shards: int
) -> Places:
    """Return the example at each place of an epoch.

    Shards come in an order of their own in each epoch; so many of them are open at once, and blocks
    are taken from them in turn. An example stands at as many places, side by side, as its repetitions say.
    """
    shown = np.add.reduceat(repetitions, blocks["first"].astype(np.int64)) > 0
    order = np.flatnonzero(shown)[
        _interleaved(blocks["shard"][shown], rng=_rng(_BLOCKS_STREAM, seed, epoch), abreast=interleaved_shards)
    ]
    first, count = blocks["first"][order].astype(np.int64), blocks["count"][order].astype(np.int64)
    ends = np.cumsum(count)
    examples = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - count), count)
    return np.repeat(examples, repetitions[examples])


def host_plan(count: int, rules: OrderRules, *, position: EpochPosition, pipelines: int, pipeline: int) -> HostPlan:
    """Return what pipeline number `pipeline` of `pipelines` shows of an epoch with `count` places.

    Every pipeline has the same number of steps, and every place that was not shown before `position`
    is shown once by one of them.
    """
    left = np.arange(count)
    skipped, done = 0, position.done
    if done and done[-1].pipelines == pipelines:
        skipped, done = done[-1].steps, done[:-1]
    for number, segment in enumerate(done):
        epoch_key = (rules.seed, position.epoch, number)
        left = _left_after(left, rules, key=epoch_key, pipelines=segment.pipelines, steps=segment.steps)
    steps = -(-len(left) // rules.batch_size)
    share = rules.batch_size // pipelines
    key = (rules.seed, position.epoch, len(done))
    edges = window_edges(steps, most=max(1, rules.window_examples // share))
    mine = _shuffled(left, rules, key=key, pipelines=pipelines, pipeline=pipeline)
    filled = _filled(mine, steps * share, count=count, spare=left)
    is_shown = np.arange(len(filled)) < len(mine)
    begin = min(skipped, steps)
    windows = tuple(
        ((max(first, begin) - begin) * share, (last - begin) * share) for first, last in pairwise(edges) if last > begin
    )
    return HostPlan(filled[begin * share :], is_shown[begin * share :], windows)


def window_edges(steps: int, *, most: int) -> list[int]:
    """Return the edges of windows of at most `most` steps each; no window is much smaller than its neighbours."""
    if steps <= most:
        return [0, steps] if steps else [0]
    ramp = [size for part in _FIRST_WINDOWS if (size := most // part)]
    rest = steps - sum(ramp)
    windows = max(1, -(-rest // most))
    edges = np.cumsum([0, *ramp]).tolist() if rest > 0 else [0]
    start = edges[-1]
    return [*edges, *(start + (steps - start) * number // windows for number in range(1, windows + 1))]


def _shuffled(left: Places, rules: OrderRules, *, key: tuple[int, ...], pipelines: int, pipeline: int) -> Places:
    """Return a pipeline's part of the places that are left, in the order in which it shows them."""
    mine = left[len(left) * pipeline // pipelines : len(left) * (pipeline + 1) // pipelines].copy()
    share = rules.batch_size // pipelines
    edges = window_edges(-(-len(left) // rules.batch_size), most=max(1, rules.window_examples // share))
    rng = _rng(_PLACES_STREAM, *key, pipelines, pipeline)
    for first, last in pairwise(edges):
        rng.shuffle(mine[first * share : last * share])
    return mine


def _left_after(left: Places, rules: OrderRules, *, key: tuple[int, ...], pipelines: int, steps: int) -> Places:
    share = rules.batch_size // pipelines
    rests = [
        _shuffled(left, rules, key=key, pipelines=pipelines, pipeline=pipeline)[steps * share :]
        for pipeline in range(pipelines)
    ]
    return np.sort(np.concatenate(rests))


def _filled(mine: Places, length: int, *, count: int, spare: Places) -> Places:
    """Return `mine` with what fills the last step up: the places before its last one, which lie in blocks at hand.

    These are real and different pictures, so that what batch normalisation sees stays usual.
    """
    missing = length - len(mine)
    if not missing:
        return mine
    last = int(mine.max()) if len(mine) else int(spare[-1])
    return np.concatenate([mine, (last - 1 - np.arange(missing)) % count])


def _interleaved(shards: NDArray[np.uint32], *, rng: np.random.Generator, abreast: int) -> NDArray[np.int64]:
    """Return the order in which blocks are read; `shards` is each block's shard, ascending."""
    names, begins = np.unique(shards, return_index=True)
    ends = [*begins[1:].tolist(), len(shards)]
    waiting = deque((int(begins[shard]), ends[shard]) for shard in rng.permutation(len(names)).tolist())
    opened = deque(waiting.popleft() for _ in range(min(abreast, len(waiting))))
    order: list[int] = []
    while opened:
        block, end = opened.popleft()
        order.append(block)
        if block + 1 < end:
            opened.append((block + 1, end))
        elif waiting:
            opened.append(waiting.popleft())
    return np.array(order, np.int64)


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
