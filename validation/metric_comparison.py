"""Is the candidate better in a metric? Bounds of the gain, and of the candidate's own value against a floor.

Its place in the flow: report.py shows `compare_metric` of the photos it shows; the gate asks
`gain_bounds` and `value_bounds` at the level that it may spend, and `labels_for_metric` when they do
not decide. A bound is the more cautious of two: BCa's (bootstrap.py), which takes the figure as it
is, and the one that counts on a photo not drawn (bounded_mean.py), which holds where BCa has seen too little.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from validation.answers import Answers
from validation.bootstrap import bootstrap, influence_of
from validation.bounded_mean import lower_bound
from validation.metric_sums import SummedFigure, summed_gain, summed_value
from validation.metrics import GREATEST_LOSS, LESS_IS_BETTER, Costs, Floats, MetricName, cost_matrix, metric_value
from validation.report import MetricComparison

MAX_LABELS = 10_000_000
_FEWEST_PHOTOS = 2
_REPORTED_LEVEL = 0.025


def compare_metric(name: MetricName, answers: Answers, *, top_k: int, costs: Costs | None = None) -> MetricComparison:
    """Return both models' metric on one photo or more, and the gain with its 95 % interval."""
    candidate = metric_value(name, answers.truth, answers.candidate, top_k=top_k, costs=costs)
    assert candidate is not None, "there are photos to compare on"
    if answers.champion is None:
        return MetricComparison(name=name, candidate=candidate, champion=None, gain=None, interval=None)
    champion = metric_value(name, answers.truth, answers.champion, top_k=top_k, costs=costs)
    assert champion is not None, "both models answered the same photos"
    lower, upper = gain_bounds(name, answers, level=_REPORTED_LEVEL, top_k=top_k, costs=costs)
    return MetricComparison(
        name=name,
        candidate=candidate,
        champion=champion,
        gain=_sign(name) * (candidate - champion),
        interval=(lower, upper),
    )


def gain_bounds(
    name: MetricName, answers: Answers, *, level: float, top_k: int, costs: Costs | None = None
) -> tuple[float, float]:
    """Return what the true gain exceeds, and what it is under, each with confidence 1 - `level`.

    The gain is positive where the candidate is better, whatever the metric's direction. The bounds
    lie within what the metric can be, and with fewer than two photos they are just that. The same
    answers always give the same bounds.

    Args:
        name: the metric.
        answers: of both models.
        level: the accepted probability that one of the bounds is wrong, 0 to 0.5; any size.
        top_k: for "top_k_accuracy", how many answers count.
        costs: for "mean_cost", of `cost_matrix`; None lets a wrong answer cost 1.
    """
    most = _most(name, _costs(answers, costs))
    if len(answers) < _FEWEST_PHOTOS:
        return (-most, most)
    lower, upper = _bounds(_gain(name, answers, top_k=top_k, costs=costs), level=level, seed=_seed(name, answers))
    return (max(lower, -most), min(upper, most))


def value_bounds(
    name: MetricName, answers: Answers, *, level: float, top_k: int, costs: Costs | None = None
) -> tuple[float, float]:
    """Return what the candidate's true value exceeds, and what it is under, as `gain_bounds` in the metric's unit."""
    most = _most(name, _costs(answers, costs))
    if len(answers) < _FEWEST_PHOTOS:
        return (0.0, most)
    lower, upper = _bounds(_value(name, answers, top_k=top_k, costs=costs), level=level, seed=_seed(name, answers))
    return (max(lower, 0.0), min(upper, most))


def labels_for_metric(
    name: MetricName,
    answers: Answers,
    *,
    margin: float,
    level: float,
    power: float,
    top_k: int,
    costs: Costs | None = None,
    gain: float | None = None,
) -> int | None:
    """Return how many photos in all would show a gain over -`margin`; None if no affordable number would.

    Args:
        name: the metric.
        answers: a sample of both models' answers, for how much the gain differs from photo to photo.
        margin: the loss still accepted, 0 for superiority.
        level: at which the gain is to be shown.
        power: the probability of showing it.
        top_k: as in `gain_bounds`.
        costs: as in `gain_bounds`.
        gain: the true gain to be found; None for the one that was seen.
    """
    if len(answers) < _FEWEST_PHOTOS:
        return None
    pseudo = _PseudoPhotos.of(_gain(name, answers, top_k=top_k, costs=costs))
    return pseudo.moved_to(gain).labels_to_exceed(-margin, level=level, power=power)


def labels_for_metric_floor(
    name: MetricName,
    answers: Answers,
    *,
    floor: float,
    level: float,
    power: float,
    top_k: int,
    costs: Costs | None = None,
) -> int | None:
    """Return how many photos in all would show that the candidate keeps `floor`, if its value is the one seen."""
    if len(answers) < _FEWEST_PHOTOS:
        return None
    pseudo = _PseudoPhotos.of(_value(name, answers, top_k=top_k, costs=costs))
    if name in LESS_IS_BETTER:
        return pseudo.mirrored().labels_to_exceed(-floor, level=level, power=power)
    return pseudo.labels_to_exceed(floor, level=level, power=power)


@dataclass(frozen=True)
class _PseudoPhotos:
    """A figure as a mean over photos: each kind's value, how many there are, and the range of values possible."""

    value: float
    values: Floats
    counts: Floats
    worst: float
    best: float

    @classmethod
    def of(cls, figure: SummedFigure) -> _PseudoPhotos:
        value, photos = figure.value, figure.photos
        unseen = value + (photos + 1) * (figure.moved(figure.extremes, sign=1) - value)
        values = value + influence_of(figure)
        return cls(
            value=value,
            values=values,
            counts=figure.counts.astype(np.float64),
            worst=float(min(unseen.min(), values.min())),
            best=float(max(unseen.max(), values.max())),
        )

    def mirrored(self) -> _PseudoPhotos:
        """Return the same figure with its sign changed."""
        return _PseudoPhotos(
            value=-self.value, values=-self.values, counts=self.counts, worst=-self.best, best=-self.worst
        )

    def moved_to(self, value: float | None) -> _PseudoPhotos:
        """Return photos as they would be if the figure were `value`; None leaves them."""
        return self if value is None else replace(self, value=value, values=self.values + value - self.value)

    def lower_bound(self, level: float, *, photos: float | None = None) -> float:
        """Return the bound at `level`, for as many photos as there are or `photos` alike."""
        times = 1.0 if photos is None else photos / self.counts.sum()
        return lower_bound(self.values, self.counts * times, worst=self.worst, level=level)

    def labels_to_exceed(self, line: float, *, level: float, power: float) -> int | None:
        """Return how many photos alike put the bound over `line` with probability `power`."""
        if self.value <= line:
            return None
        spread = math.sqrt(float(self.counts @ (self.values - self.value) ** 2 / self.counts.sum()))
        chance = float(stats.norm.ppf(power)) * spread

        def is_enough(photos: int) -> bool:
            return self.lower_bound(level, photos=photos) - chance / math.sqrt(photos) > line

        return _smallest(is_enough)


def _bounds(figure: SummedFigure, *, level: float, seed: int) -> tuple[float, float]:
    drawn, pseudo = bootstrap(figure, seed=seed), _PseudoPhotos.of(figure)
    return (
        min(drawn.lower_bound(level), pseudo.lower_bound(level)),
        max(drawn.upper_bound(level), -pseudo.mirrored().lower_bound(level)),
    )


def _gain(name: MetricName, answers: Answers, *, top_k: int, costs: Costs | None) -> SummedFigure:
    assert answers.champion is not None, "a gain is over a champion"
    return summed_gain(
        name,
        answers.truth,
        candidate=answers.candidate,
        champion=answers.champion,
        sign=_sign(name),
        top_k=top_k,
        costs=_costs(answers, costs),
    )


def _value(name: MetricName, answers: Answers, *, top_k: int, costs: Costs | None) -> SummedFigure:
    return summed_value(name, answers.truth, answers.candidate, top_k=top_k, costs=_costs(answers, costs))


def _costs(answers: Answers, costs: Costs | None) -> Costs:
    return cost_matrix(None, answers.labels) if costs is None else costs


def _most(name: MetricName, costs: Costs) -> float:
    """Return the greatest value that the metric can have; the least is 0."""
    return {"log_loss": GREATEST_LOSS, "mean_cost": float(costs.max())}.get(name, 1.0)


def _sign(name: MetricName) -> int:
    return -1 if name in LESS_IS_BETTER else 1


def _seed(name: MetricName, answers: Answers) -> int:
    digest = hashlib.sha256(name.encode())
    for part in (answers.truth, answers.candidate, answers.champion):
        digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def _smallest(is_enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of photos for which a condition holds that stays true, by doubling and halving."""
    high = 2
    while not is_enough(high):
        high *= 2
        if high > MAX_LABELS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
