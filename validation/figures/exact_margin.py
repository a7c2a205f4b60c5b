"""Exact tests of a difference between two models against a line other than zero.

Its place in the flow: the checks of accuracy, classes and slices ask here whether a loss stays
under the policy's margin, and how many photos would show it. Tango's score statistic orders the
outcomes; its p-value is not taken from the normal curve, which lets through up to half as many
again as the level says in classes of twenty photos and 2 to 20 % more at low levels, but computed:
the greatest probability, over all rates at which the champion alone could be right, of an outcome
at least as extreme.

Sources: Tango, Statistics in Medicine 17 (1998) 891; Hsueh, Liu and Chen, Biometrics 57 (2001) 478
(the unconditional test); Berger and Boos, JASA 89 (1994) 1012 (the search over the nuisance rate is
confined to an interval that holds it but for a chance of 1e-7, which is added to the p-value).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from validation.figures.power import labels_for_non_inferiority
from validation.figures.statistics import PairedCounts, score_statistics

_GAMMA = 1e-7
_RATES = 64
_DEVIATIONS = 7.0
_TAIL = 3e-12
"""The mass of a binomial beyond seven standard deviations on either side, rounded up."""


def margin_p_values(counts: PairedCounts, *, margin: float) -> tuple[float, float]:
    """Return two exact one-sided p-values about a loss of `margin`, 0 to 1.

    The first is of "the candidate is worse by `margin` or more": when it is small, the candidate is
    not inferior. The second is of "it is not worse by more than `margin`": when that is small, the
    candidate is inferior.
    """
    return beyond_p_value(counts, line=-margin), beyond_p_value(counts.reversed(), line=margin)


def labels_for_margin(counts: PairedCounts, *, margin: float, alpha: float, power: float) -> int | None:
    """Return the photos alike that show a loss smaller than `margin` with probability `power`; None for no number."""
    # One imagined disagreement more, so that perfect agreement does not ask for next to no labels.
    disagreement = max(counts.disagreement, 1 / (counts.n + 1))
    return labels_for_non_inferiority(
        gain=counts.gain, disagreement=disagreement, margin=margin, alpha=alpha, power=power
    )


def beyond_p_value(counts: PairedCounts, *, line: float) -> float:
    """Return the exact p-value of "candidate's accuracy minus champion's is at most `line`", -1 to 1."""
    if counts.n == 0 or counts.gain <= line:
        # What lies on the wrong side shows nothing, so the search for how little can be spared.
        return 1.0
    rates = _plausible_rates(counts, line)
    if len(rates) == 0:
        return _GAMMA
    lost = _plausible_losses(counts.n, rates)
    needed = _least_gained(counts, lost, line)
    gained_share = np.clip((rates + line) / np.maximum(1 - rates, 1e-300), 0.0, 1.0)[:, np.newaxis]
    # P(gained >= needed), gained being binomial among the photos that are not lost.
    reached = np.where(
        needed <= counts.n - lost,
        special.bdtrc(np.maximum(needed - 1, 0), counts.n - lost, gained_share),
        0.0,
    )
    reached = np.where(needed <= 0, 1.0, reached)
    mass = stats.binom.pmf(lost, counts.n, rates[:, np.newaxis])
    return float(min(1.0, (mass * reached).sum(axis=1).max() + _GAMMA + _TAIL))


def _plausible_rates(counts: PairedCounts, line: float) -> NDArray[np.float64]:
    """Return rates of "champion only" that fit the line, within the interval that the count leaves plausible."""
    n, lost = counts.n, counts.champion_only
    # Clopper and Pearson's interval.
    lowest = special.betaincinv(lost, n - lost + 1, _GAMMA / 2) if lost else 0.0
    highest = special.betaincinv(lost + 1, n - lost, 1 - _GAMMA / 2) if lost < n else 1.0
    low, high = max(0.0, -line, float(lowest)), min((1 - line) / 2, float(highest))
    if low > high:
        return np.zeros(0)
    # Evenly spaced in the arcsine of the root, where a binomial rate has the same spread everywhere.
    angles = np.linspace(np.arcsin(np.sqrt(low)), np.arcsin(np.sqrt(high)), _RATES)
    return np.asarray(np.clip(np.sin(angles) ** 2, low, high), dtype=np.float64)


def _plausible_losses(n: int, rates: NDArray[np.float64]) -> NDArray[np.int64]:
    spread = _DEVIATIONS * np.sqrt(n * rates * (1 - rates)) + _DEVIATIONS**2
    first = max(0, int((n * rates - spread).min()))
    last = min(n, int((n * rates + spread).max()) + 1)
    return np.arange(first, last + 1, dtype=np.int64)


def _least_gained(counts: PairedCounts, lost: NDArray[np.int64], line: float) -> NDArray[np.int64]:
    """Return for each number of losses the fewest gains that are as extreme as what was seen; n + 1 for none.

    The statistic rises with the gains, so halving finds the place.
    """
    n = counts.n
    seen = score_statistics(n, np.array([counts.candidate_only]), np.array([counts.champion_only]), line=line)[0]
    # A hair lower, so that rounding never leaves out the outcome that was seen.
    bar = seen - 1e-9 * max(1.0, abs(float(seen))) if np.isfinite(seen) else seen
    low, high = np.full(len(lost), -1), n - lost + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        is_open = high - low > 1
        tried = np.clip(middle, 0, n - lost)
        is_extreme = score_statistics(n, tried, lost, line=line) >= bar
        high = np.where(is_open & is_extreme, middle, high)
        low = np.where(is_open & ~is_extreme, middle, low)
    return np.where(high > n - lost, n + 1, high).astype(np.int64)
