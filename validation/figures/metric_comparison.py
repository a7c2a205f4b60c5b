"""Is the candidate better in a metric? Bounds of the gain, and of the candidate's own value against a floor.

Its place in the flow: report.py shows `compare_metric` of the photos it shows; the gate asks
`gain_bounds` and `value_bounds` at the level that it may spend, and `labels_for_metric` when they do
not decide. A bound is the more cautious of two: BCa's (bootstrap.py), which takes the figure as it
is, and the one that counts on a photo not drawn (bounded_mean.py), which holds where BCa has seen too little.

What that caution costs in labels, for a gain that a normal approximation finds with 2,000 photos: 3 % to
40 % more as a rule, up to twice as many where classes are rare, costs far apart or models nearly alike, and
1.6 to 8 times as many for log loss, since a single photo's can be 15.9 and few photos rule out no disaster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from validation.answers import Answers
from validation.checks.policy import MetricName
from validation.figures.bootstrap import bootstrap
from validation.figures.metric_sums import Side, SummedFigure, summed_gain, summed_value
from validation.figures.metrics import GREATEST_LOSS, LESS_IS_BETTER, Costs, cost_matrix, metric_value
from validation.figures.pseudo_photos import PseudoPhotos
from validation.reports.report import MetricComparison

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
    build = _gain(name, answers, top_k=top_k, costs=costs)
    lower, upper = _bounds(name, build, level=level, seed=_seed(name, answers))
    return (max(lower, -most), min(upper, most))


def value_bounds(
    name: MetricName, answers: Answers, *, level: float, top_k: int, costs: Costs | None = None
) -> tuple[float, float]:
    """Return what the candidate's true value exceeds, and what it is under, as `gain_bounds` in the metric's unit."""
    most = _most(name, _costs(answers, costs))
    if len(answers) < _FEWEST_PHOTOS:
        return (0.0, most)
    build = _value(name, answers, top_k=top_k, costs=costs)
    lower, upper = _bounds(name, build, level=level, seed=_seed(name, answers))
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

    For the calibration error it may take more, since its bounds allow for its being too high with few photos.

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
    pseudo = PseudoPhotos.of(_gain(name, answers, top_k=top_k, costs=costs)(None))
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
    pseudo = PseudoPhotos.of(_value(name, answers, top_k=top_k, costs=costs)(None))
    if name in LESS_IS_BETTER:
        return pseudo.mirrored().labels_to_exceed(-floor, level=level, power=power)
    return pseudo.labels_to_exceed(floor, level=level, power=power)


def _bounds(
    name: MetricName, build: Callable[[Side | None], SummedFigure], *, level: float, seed: int
) -> tuple[float, float]:
    """Return the bounds of a figure; only the calibration error is another one on each side."""
    low, high = (build("lower"), build("upper")) if name == "calibration_error" else (build(None), None)
    drawn = bootstrap(low, seed=seed)
    drawn_high = drawn if high is None else bootstrap(high, seed=seed)
    return (
        min(drawn.lower_bound(level), PseudoPhotos.of(low).lower_bound(level)),
        max(drawn_high.upper_bound(level), -PseudoPhotos.of(high or low).mirrored().lower_bound(level)),
    )


def _gain(
    name: MetricName, answers: Answers, *, top_k: int, costs: Costs | None
) -> Callable[[Side | None], SummedFigure]:
    champion = answers.champion
    assert champion is not None, "a gain is over a champion"
    return lambda side: summed_gain(
        name,
        answers.truth,
        candidate=answers.candidate,
        champion=champion,
        sign=_sign(name),
        top_k=top_k,
        costs=_costs(answers, costs),
        side=side,
    )


def _value(
    name: MetricName, answers: Answers, *, top_k: int, costs: Costs | None
) -> Callable[[Side | None], SummedFigure]:
    return lambda side: summed_value(
        name, answers.truth, answers.candidate, top_k=top_k, costs=_costs(answers, costs), side=side
    )


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
