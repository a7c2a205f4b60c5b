"""The tests and intervals by which the gate tells a better model from a lucky one.

Its place in the flow: comparison.py counts, the gate's checks ask these functions what the counts
show. Both models answered the same photos, so everything here is paired: only photos on which
exactly one of the two is right carry information about which is better.

Sources: McNemar, Psychometrika 12 (1947) 153; Tango, Statistics in Medicine 17 (1998) 891; Holm,
Scandinavian Journal of Statistics 6 (1979) 65.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import optimize, stats

from artifact_sync.canonical import FrozenModel

Count = Annotated[int, Field(ge=0)]


class PairedCounts(FrozenModel):
    """How two models answered the same `n` photos: both right, exactly one right, neither."""

    n: Count
    both_right: Count
    candidate_only: Count
    champion_only: Count

    @model_validator(mode="after")
    def _sums(self) -> Self:
        if self.both_right + self.candidate_only + self.champion_only > self.n:
            raise ValueError("more photos are counted than there are")
        return self

    @property
    def gain(self) -> float:
        """Candidate's accuracy minus champion's, from -1 to 1."""
        return (self.candidate_only - self.champion_only) / self.n if self.n else 0.0

    @property
    def disagreement(self) -> float:
        """The share of photos on which exactly one of the two is right, 0 to 1."""
        return (self.candidate_only + self.champion_only) / self.n if self.n else 0.0

    def reversed(self) -> PairedCounts:
        """Return the same counts with the two models' places exchanged."""
        return self.model_copy(
            update={"candidate_only": self.champion_only, "champion_only": self.candidate_only},
        )


def superiority_p_value(counts: PairedCounts) -> float:
    """Return the exact one-sided McNemar p-value of "the candidate is not better".

    Given the number m of photos on which exactly one is right, the candidate's share of them is
    Binomial(m, 1/2) for equal models, so this is P(X >= candidate_only). No approximation: of equal
    candidates at most a share alpha has a p-value of alpha or less, at any size of the holdout.
    """
    decided = counts.candidate_only + counts.champion_only
    if decided == 0:
        return 1.0
    return float(stats.binomtest(counts.candidate_only, decided, 0.5, alternative="greater").pvalue)


def score_statistics(n: int, gained: NDArray[np.int64], lost: NDArray[np.int64], *, line: float) -> NDArray[np.float64]:
    """Return Tango's score statistic of "accuracy differs by `line`", [k]; it falls as `line` rises.

    Args:
        n: photos.
        gained: on how many of them the candidate alone is right, [k].
        lost: on how many the champion alone is, [k].
        line: the difference that is tested, -1 to 1.
    """
    linear = -gained - lost + (2 * n - gained + lost) * line
    constant = -lost * line * (1 - line)
    # The likeliest rate of "champion only" among those that fit `line` (Tango, appendix).
    lost_rate = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * lost_rate + line * (1 - line))
    distance = gained - lost - n * line
    is_spread = variance > 1e-12
    edge = np.where(distance == 0, 0.0, np.copysign(np.inf, distance))
    return np.where(is_spread, distance / np.sqrt(np.where(is_spread, variance, 1.0)), edge)


def difference_interval(counts: PairedCounts, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Tango's two-sided score interval for candidate's accuracy minus champion's."""
    if counts.n == 0:
        return (-1.0, 1.0)
    quantile = float(stats.norm.isf((1 - confidence) / 2))
    return _tango_bound(counts, quantile), _tango_bound(counts, -quantile)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's adjusted p-values, in the order given.

    Calling those at or under alpha significant keeps the probability of one or more false calls
    among all of them at alpha or less, whatever their dependence.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def _tango_bound(counts: PairedCounts, quantile: float) -> float:
    """Return the difference whose score statistic is `quantile`."""
    edge = 1 - 1e-9

    gained, lost = np.array([counts.candidate_only]), np.array([counts.champion_only])

    def excess(difference: float) -> float:
        return float(score_statistics(counts.n, gained, lost, line=difference)[0]) - quantile

    if excess(-edge) <= 0:
        return -1.0
    if excess(edge) >= 0:
        return 1.0
    return float(optimize.brentq(excess, -edge, edge, xtol=1e-9))
