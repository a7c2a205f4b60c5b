"""Random numbers that depend on nothing but seed, epoch and a picture's place in the epoch.

Its place in the flow: augmentation draws by these, so that neither the number of hosts, processes or
threads nor a restart changes a picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15


def uniform_draws(seed: int, epoch: int, places: NDArray[np.int64], *, count: int) -> NDArray[np.float64]:
    """Return numbers from 0 to 1 (without it), float64 [n, count].

    They are hashes (SplitMix64) of seed, epoch, place and column.
    """
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    counter = np.add.outer(places.astype(np.uint64) * np.uint64(count), np.arange(count, dtype=np.uint64))
    mixed = _mixed(_mixed(counter * np.uint64(_GOLDEN)) ^ key)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    answer: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return answer
