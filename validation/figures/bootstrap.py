"""One-sided BCa bootstrap bounds of a figure, at any level.

Its place in the flow: metric_comparison.py asks for the bounds of a metric's gain. The bounds are those
of scipy.stats.bootstrap (the tests compare them), made here for two reasons: photos of one kind are
drawn together, as counts; and levels go down to one in a million and under, where plain resamples
never come, so tails are drawn under an exponential tilt and weighed back (importance sampling).

Sources: Efron, JASA 82 (1987) 171; DiCiccio and Efron, Statistical Science 11 (1996) 189; Johns, JASA
83 (1988) 709 for the tilt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from validation.figures.metric_sums import SummedFigure
from validation.figures.metrics import Floats

RESAMPLES = 9_999
"""As many as scipy draws; they place the middle and every quantile down to _PLAIN_TAIL."""

_MOST_DRAWS = 150_000_000
_FEWEST_RESAMPLES = 1_999
_PLAIN_TAIL = 0.02
_SEARCHING_RESAMPLES, _TAIL_RESAMPLES = 400, 2_000
_BATCH_CELLS = 4_000_000
_TIE = 1e-12


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of one figure, and what BCa needs beside them.

    Attributes:
        figure: the figure and its photos; two or more.
        value: the figure of the photos as they are.
        influence: how much each kind of photo moves the figure (jackknife), around 0.
        resampled: the figure of plain resamples, in order.
        bias, acceleration: BCa's two corrections.
        seed: of all draws.
    """

    figure: SummedFigure
    value: float
    influence: Floats
    resampled: Floats
    bias: float
    acceleration: float
    seed: int

    def lower_bound(self, level: float) -> float:
        """Return the bound that the true figure exceeds with confidence 1 - `level`; -inf where BCa gives none."""
        return self._bound(level, side=1)

    def upper_bound(self, level: float) -> float:
        """Return the bound under which the true figure lies with confidence 1 - `level`; inf where BCa gives none."""
        return self._bound(level, side=-1)

    def _bound(self, level: float, *, side: int) -> float:
        """Return the lower bound of `side` times the figure, times `side`."""
        if self.resampled[0] == self.resampled[-1]:
            return self.value
        bias, acceleration = side * self.bias, side * self.acceleration
        shifted = bias + float(stats.norm.ppf(level))
        divisor = 1 - acceleration * shifted
        if divisor <= 0:
            return side * -math.inf
        tail = float(stats.norm.cdf(bias + shifted / divisor))
        if tail >= _PLAIN_TAIL:
            ordered = self.resampled if side == 1 else -self.resampled[::-1]
            return side * float(ordered[max(0, math.ceil(tail * len(ordered)) - 1)])
        return side * self._tail_quantile(tail, side=side)

    def _tail_quantile(self, tail: float, *, side: int) -> float:
        """Return the quantile of `side` times the figure at `tail`, from resamples that are drawn around it."""
        if tail <= 0:
            return -math.inf
        random = np.random.default_rng([self.seed, 1 + (side == 1)])
        spread = math.sqrt(_mean(self.influence**2, self.figure.counts) / self.figure.photos)
        aim = float(stats.norm.ppf(tail)) * spread
        quantile = side * self.value + aim
        for resamples in (_SEARCHING_RESAMPLES, _TAIL_RESAMPLES):
            values, weights = self._tilted(side * self.influence, aim=aim, resamples=resamples, random=random)
            order = np.argsort(side * values, kind="stable")
            heaped = np.cumsum(weights[order]) / resamples
            place = min(int(np.searchsorted(heaped, tail)), resamples - 1)
            quantile = float((side * values)[order[place]])
            aim = quantile - side * self.value
        return quantile

    def _tilted(
        self, influence: Floats, *, aim: float, resamples: int, random: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Return figures of resamples whose mean influence is about `aim`, and the likelihood ratio of each."""
        shares = self.figure.counts / self.figure.photos
        tilt = _tilt(influence, shares, aim=aim)
        raised = np.log(shares) + tilt * influence
        log_total = float(np.logaddexp.reduce(raised))
        tilted = np.exp(raised - log_total)
        values, exponents = [], []
        for size in _sizes(resamples, kinds=len(shares)):
            drawn = random.multinomial(self.figure.photos, tilted / tilted.sum(), size=size)
            values.append(self.figure.at(drawn))
            exponents.append(self.figure.photos * log_total - tilt * (drawn @ influence))
        return np.concatenate(values), np.exp(np.concatenate(exponents))


def bootstrap(figure: SummedFigure, *, seed: int) -> Bootstrap:
    """Resample a figure of two photos or more; the same figure and seed give the same bounds."""
    value, photos = figure.value, figure.photos
    influence = influence_of(figure)
    second = _mean(influence**2, figure.counts)
    third = _mean(influence**3, figure.counts)
    acceleration = third / (6 * math.sqrt(photos) * second**1.5) if second > 0 else 0.0
    resampled = np.sort(_plain(figure, random=np.random.default_rng([seed, 0])))
    return Bootstrap(
        figure=figure,
        value=value,
        influence=influence,
        resampled=resampled,
        bias=_bias(resampled, value=value),
        acceleration=acceleration,
        seed=seed,
    )


def influence_of(figure: SummedFigure) -> Floats:
    """Return how much each kind of photo moves the figure, by leaving one such photo out; the mean is 0."""
    without = figure.moved(figure.rows, sign=-1)
    return (figure.photos - 1) * (_mean(without, figure.counts) - without)


def _bias(resampled: Floats, *, value: float) -> float:
    """Return how many standard deviations of the resamples' middle lie over the figure; ties count half."""
    tie = _TIE * max(1.0, abs(value))
    under = (np.count_nonzero(resampled < value - tie) + np.count_nonzero(resampled <= value + tie)) / 2
    share = min(max(under / len(resampled), 0.5 / len(resampled)), 1 - 0.5 / len(resampled))
    return float(stats.norm.ppf(share))


def _plain(figure: SummedFigure, *, random: np.random.Generator) -> Floats:
    photos, kinds = figure.photos, len(figure.counts)
    resamples = int(min(RESAMPLES, max(_FEWEST_RESAMPLES, _MOST_DRAWS // photos)))
    shares = figure.counts / photos
    kind_of = np.repeat(np.arange(kinds, dtype=np.int32), figure.counts)
    parts = []
    for size in _sizes(resamples, kinds=max(kinds, photos)):
        # A binomial draw a kind costs about ten times an even draw of a photo.
        if kinds * 10 < photos:
            drawn = random.multinomial(photos, shares, size=size)
        else:
            chosen = kind_of[random.integers(0, photos, size=(size, photos), dtype=np.int32)]
            offsets = (np.arange(size, dtype=np.int64) * kinds)[:, np.newaxis]
            drawn = np.bincount((chosen + offsets).ravel(), minlength=size * kinds).reshape(size, kinds)
        parts.append(figure.at(drawn))
    return np.concatenate(parts)


def _tilt(influence: Floats, shares: Floats, *, aim: float) -> float:
    """Return t for which shares * exp(t * influence), made a distribution, has the mean influence `aim` (under 0)."""
    # Short of the least influence: no tilt reaches that one itself.
    aim = max(aim, 0.98 * float(influence.min()))
    scale = math.sqrt(float(shares @ influence**2))

    def excess(tilt: float) -> float:
        raised = tilt / scale * influence
        weights = shares * np.exp(raised - raised.max())
        return float(weights @ influence / weights.sum()) - aim

    if excess(0.0) <= 0:
        return 0.0
    low = -1.0
    while excess(low) > 0 and low > -1e6:
        low *= 2
    return float(optimize.brentq(excess, low, 0.0)) / scale if excess(low) < 0 else low / scale


def _mean(values: Floats, counts: NDArray[np.int64]) -> float:
    return float(values @ counts / counts.sum())


def _sizes(resamples: int, *, kinds: int) -> list[int]:
    step = max(1, _BATCH_CELLS // kinds)
    return [min(step, resamples - start) for start in range(0, resamples, step)]
