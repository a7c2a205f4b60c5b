"""A bound for a mean that holds with few photos too, because it counts on one photo that was not drawn.

Its place in the flow: metric_comparison.py takes the more cautious of this bound and the bootstrap's,
which cannot imagine what no photo showed: with seven photos fixed and none broken, no resample breaks
any, though a model that is only as good does that once in 128 times. Of models that differ on 3 % of
300 photos, BCa alone is wrong at 0.05 in 8 % to 60 % of samples (benchmarks/metric_bounds.py).

The photos get random weights (gamma, which is the Bayesian bootstrap), and beside them stands one
photo more with the worst value possible; the bound is the quantile of the mean so weighted. For
values 0 and 1 it is the exact binomial bound (Clopper and Pearson), for differences -1, 0 and 1
its test of 0 is exactly McNemar's. That it covers in all cases is proved for those and, by all
simulations known, true for others (Gaffke, 2005; Learned-Miller and Thomas, arXiv 1905.06208).

The quantile is computed without drawing, by the saddlepoint approximation for a sum of gamma
variables (Lugannani and Rice, 1980; Barndorff-Nielsen, 1990), so it serves any level.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

_LEAST_TILT = 1e-4
"""Nearer to the middle than this many standard deviations, the series takes the place of the quotient."""


def lower_bound(values: NDArray[np.float64], weights: NDArray[np.float64], *, worst: float, level: float) -> float:
    """Return the value that the true mean exceeds with confidence 1 - `level`.

    Args:
        values: what was seen.
        weights: how often each was seen, above 0; need not be whole.
        worst: the least value possible.
        level: the accepted probability that the true mean is less than what is returned.
    """
    floor = min(worst, float(values.min()))
    top = float(values.max())
    if top <= floor:
        return floor
    points, shapes = np.append((values - floor) / (top - floor), 0.0), np.append(weights, 1.0)
    quantile = float(stats.norm.ppf(level))

    def excess(share: float) -> float:
        return _normal_score(points - share, shapes) - quantile

    low, high = 1e-12, 1 - 1e-12
    if excess(low) >= 0:
        return floor
    if excess(high) <= 0:
        return top
    share = float(optimize.brentq(excess, low, high, xtol=1e-12))
    return floor + share * (top - floor)


def _normal_score(steps: NDArray[np.float64], shapes: NDArray[np.float64]) -> float:
    """Return z with P(sum of gamma(shapes) * steps <= 0) = Phi(z); steps of both signs."""
    tilt = _saddlepoint(steps, shapes)
    shrunk = steps / (1 - tilt * steps)
    curvature = float((shapes * shrunk**2).sum())
    distance = tilt * math.sqrt(curvature)
    if abs(distance) < _LEAST_TILT:
        skew = 2 * float((shapes * shrunk**3).sum()) / math.sqrt(curvature) ** 3
        return distance + skew / 6
    exponent = float((shapes * np.log1p(-tilt * steps)).sum())
    root = math.copysign(math.sqrt(max(2 * exponent, 0.0)), tilt)
    if root == 0:
        return distance
    return root + math.log(distance / root) / root


def _saddlepoint(steps: NDArray[np.float64], shapes: NDArray[np.float64]) -> float:
    """Return the tilt under which the sum's mean is 0: between the poles 1/min and 1/max."""
    low, high = 1 / float(steps.min()), 1 / float(steps.max())

    def mean(tilt: float) -> float:
        return float((shapes * steps / (1 - tilt * steps)).sum())

    inside = 1 - 1e-12
    return float(optimize.brentq(mean, low * inside, high * inside, xtol=1e-14, rtol=1e-14, maxiter=500))
