from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy import stats

from validation.checks.policy import MetricName
from validation.figures.bootstrap import Bootstrap, bootstrap
from validation.figures.metric_sums import SummedFigure, summed_gain, summed_value
from validation.figures.metrics import LESS_IS_BETTER, cost_matrix, metric_value

CLASSES, PHOTOS = 3, 60
COSTS = np.array([[0.0, 1.0, 5.0], [2.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def drawn(n: int = PHOTOS, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, n)

    def scores(strength: float) -> np.ndarray:
        raised = np.exp(random.normal(size=(n, CLASSES)) + strength * np.eye(CLASSES)[truth])
        return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)

    return truth, scores(1.5), scores(1.0)


def gain_of(name: MetricName, photos: np.ndarray) -> float:
    truth, candidate, champion = (each[photos] for each in drawn())
    sign = -1 if name in LESS_IS_BETTER else 1
    ours = metric_value(name, truth, candidate, top_k=2, costs=COSTS)
    theirs = metric_value(name, truth, champion, top_k=2, costs=COSTS)
    assert ours is not None
    assert theirs is not None
    return sign * (ours - theirs)


def figure_of(name: MetricName) -> SummedFigure:
    truth, candidate, champion = drawn()
    sign = -1 if name in LESS_IS_BETTER else 1
    return summed_gain(name, truth, candidate=candidate, champion=champion, sign=sign, top_k=2, costs=COSTS)


@pytest.mark.parametrize("name", get_args(MetricName))
def test_the_sums_give_the_metric_of_any_draw_of_photos(name: MetricName) -> None:
    truth, candidate, champion = drawn()
    random = np.random.default_rng(4)
    assert figure_of(name).value == pytest.approx(gain_of(name, np.arange(PHOTOS)))
    value = summed_value(name, truth, candidate, top_k=2, costs=COSTS)
    for _ in range(3):
        photos = random.integers(0, PHOTOS, PHOTOS)
        drawn_value = metric_value(name, truth[photos], candidate[photos], top_k=2, costs=COSTS)
        again = summed_value(name, truth[photos], candidate[photos], top_k=2, costs=COSTS)
        assert again.value == pytest.approx(drawn_value)
    without_first = metric_value(name, truth[1:], candidate[1:], top_k=2, costs=COSTS)
    assert value.moved(value.rows, sign=-1) == pytest.approx(without_first, abs=0.1)
    assert without_first is not None
    assert np.isclose(value.moved(value.rows, sign=-1), without_first).any()
    assert champion.shape == candidate.shape


@pytest.mark.parametrize("name", get_args(MetricName))
def test_no_possible_photo_moves_the_figure_more_than_the_extremes(name: MetricName) -> None:
    truth, candidate, champion = drawn()
    figure = figure_of(name)
    least, most = (extreme(figure.moved(figure.extremes, sign=1)) for extreme in (np.min, np.max))
    random = np.random.default_rng(6)
    sign = -1 if name in LESS_IS_BETTER else 1
    for _ in range(100):
        added = [np.vstack([scores, _pointed(random)]) for scores in (candidate, champion)]
        with_one = summed_gain(
            name,
            np.append(truth, random.integers(0, CLASSES)),
            candidate=added[0],
            champion=added[1],
            sign=sign,
            top_k=2,
            costs=COSTS,
        )
        assert least - 1e-9 <= with_one.value <= most + 1e-9


def _pointed(random: np.random.Generator) -> np.ndarray:
    return random.dirichlet(np.full(CLASSES, 0.2)).astype(np.float32)


@pytest.mark.parametrize("name", get_args(MetricName))
def test_the_bounds_are_those_of_scipy(name: MetricName) -> None:
    ours = bootstrap(figure_of(name), seed=1)
    theirs = stats.bootstrap(
        (np.arange(PHOTOS),),
        lambda photos: gain_of(name, photos),
        vectorized=False,
        n_resamples=999,
        random_state=np.random.default_rng(0),
    )
    # scipy puts quantiles between the steps of a figure that has some.
    near = 0.25 * float(theirs.standard_error) + (1 / PHOTOS if name == "top_k_accuracy" else 0)
    low, high = theirs.confidence_interval
    assert ours.lower_bound(0.025) == pytest.approx(low, abs=near)
    assert ours.upper_bound(0.025) == pytest.approx(high, abs=near)


@pytest.mark.parametrize("name", ["macro_f1", "log_loss", "mean_cost"])
@pytest.mark.parametrize("side", [1, -1])
def test_a_tail_drawn_under_a_tilt_is_the_tail_of_very_many_plain_resamples(name: MetricName, side: int) -> None:
    figure = figure_of(name)
    drawn_so: Bootstrap = bootstrap(figure, seed=1)
    random = np.random.default_rng(2)
    shares = figure.counts / figure.photos
    plain = np.sort(side * figure.at(random.multinomial(figure.photos, shares, size=40_000)))
    for tail in (0.01, 1e-3):
        quantile = drawn_so._tail_quantile(tail, side=side)
        assert (plain <= quantile).mean() == pytest.approx(tail, rel=0.3)


def test_photos_of_one_kind_are_counted_together() -> None:
    figure = figure_of("top_k_accuracy")
    assert len(figure.counts) <= 4
    assert figure.photos == PHOTOS


def test_a_figure_that_no_resample_moves_is_bounded_by_itself() -> None:
    truth, candidate, _ = drawn()
    same = summed_gain(
        "log_loss", truth, candidate=candidate, champion=candidate, sign=-1, top_k=2, costs=cost_matrix(None, "abc")
    )
    drawn_so = bootstrap(same, seed=3)
    assert drawn_so.lower_bound(1e-6) == drawn_so.upper_bound(1e-6) == 0.0
