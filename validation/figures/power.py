"""How many labels it takes to decide, so that "cannot tell" comes with a way out.

Its place in the flow: the gate's checks ask when the counts decide nothing. All answers are numbers
of photos in total, for a level (one-sided) and a power; None means that no number up to ten
million would do, because the truth seems to lie on the very line that is tested.

Sources: Connor, Biometrics 43 (1987) 207 for paired proportions; the superiority figure is exact
(the binomial power summed over the number of photos on which the models differ).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

_MAX_LABELS = 10_000_000


def superiority_power(n: int, *, gain: float, disagreement: float, alpha: float) -> float:
    """Return the probability that the exact McNemar test finds a true `gain` on `n` photos.

    Args:
        n: photos.
        gain: the true difference of accuracy, 0 to 1.
        disagreement: the share of photos on which exactly one model is right; at least `gain`.
        alpha: the one-sided level.
    """
    mean, deviation = n * disagreement, math.sqrt(n * disagreement * (1 - disagreement))
    # Seven standard deviations hold all but 1e-11 of the mass.
    first, last = max(0, int(mean - 7 * deviation)), min(n, int(mean + 7 * deviation) + 1)
    decided = np.arange(first, last + 1)
    needed = stats.binom.isf(alpha, decided, 0.5) + 1
    candidate_share = (disagreement + gain) / (2 * disagreement)
    found = stats.binom.sf(needed - 1, decided, candidate_share)
    return float(np.sum(stats.binom.pmf(decided, n, disagreement) * found))


def labels_for_superiority(*, gain: float, disagreement: float, alpha: float, power: float) -> int | None:
    """Return the photos needed to show a true `gain` with probability `power`."""
    if gain <= 0:
        return None
    rate = min(max(disagreement, gain), 1.0)

    def is_enough(n: int) -> bool:
        return superiority_power(n, gain=gain, disagreement=rate, alpha=alpha) >= power

    return smallest_count(is_enough, more_than=8)


def labels_for_non_inferiority(
    *, gain: float, disagreement: float, margin: float, alpha: float, power: float
) -> int | None:
    """Return the photos needed to show a loss smaller than `margin` when the true difference is `gain`."""
    distance = gain + margin
    if distance <= 0:
        return None
    spread = max(disagreement - gain**2, 1e-6)
    quantiles = float(stats.norm.isf(alpha) + stats.norm.isf(1 - power))
    return _capped(spread * (quantiles / distance) ** 2)


def labels_for_floor(*, proportion: float, floor: float, alpha: float, power: float) -> int | None:
    """Return the photos needed to show that a true `proportion` lies on its side of `floor`."""
    distance = abs(proportion - floor)
    if distance == 0:
        return None
    at_floor = float(stats.norm.isf(alpha)) * math.sqrt(floor * (1 - floor))
    at_truth = float(stats.norm.isf(1 - power)) * math.sqrt(proportion * (1 - proportion))
    return _capped(((at_floor + at_truth) / distance) ** 2)


def smallest_count(is_enough: Callable[[int], bool], *, more_than: int) -> int | None:
    """Return the smallest n over `more_than` for which a (nearly) monotone condition holds, by doubling and halving."""
    high = 2 * more_than
    while not is_enough(high):
        high *= 2
        if high > _MAX_LABELS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _capped(n: float) -> int | None:
    return math.ceil(n) if n <= _MAX_LABELS else None
