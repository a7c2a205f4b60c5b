"""What a count of right answers says about the true share of right answers.

Its place in the flow: comparison.py gives every recall its interval, the gate's checks hold it
against its floor. All figures are exact (binomial).

Source: Clopper and Pearson, Biometrika 26 (1934) 404.
"""

from __future__ import annotations

from scipy import stats


def proportion_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Clopper–Pearson two-sided interval of a proportion; (0, 1) for no photos."""
    if n == 0:
        return (0.0, 1.0)
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="exact")
    return float(interval.low), float(interval.high)


def floor_p_values(successes: int, n: int, *, floor: float) -> tuple[float, float]:
    """Return two exact one-sided p-values about a floor.

    The first is of "the true share is at most `floor`": when it is small, the floor is reached. The
    second is of "the true share is at least `floor`": when that is small, the floor is missed.
    """
    if n == 0:
        return (1.0, 1.0)
    return float(stats.binom.sf(successes - 1, n, floor)), float(stats.binom.cdf(successes, n, floor))
