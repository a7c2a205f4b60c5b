from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from validation.figures.bounded_mean import lower_bound

LEVELS = (0.3, 0.05, 1e-3, 1e-6, 1e-10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("ones", "n"), [(1, 5), (5, 10), (10, 10), (95, 100), (990, 1000), (9_000, 10_000)])
def test_of_a_share_it_is_the_exact_binomial_bound(ones: int, n: int, level: float) -> None:
    bound = lower_bound(np.array([0.0, 1.0]), np.array([n - ones, ones], dtype=float), worst=0.0, level=level)
    # The saddlepoint is an approximation, which errs to the safe side with few photos: by at most 6 % of the level.
    assert 0.94 * level <= stats.binom.sf(ones - 1, n, bound) <= 1.002 * level


@pytest.mark.parametrize(("fixed", "broken"), [(7, 0), (14, 1), (20, 6), (120, 80), (1, 0)])
def test_of_paired_answers_it_leaves_zero_where_mcnemars_exact_test_does(fixed: int, broken: int) -> None:
    p_value = stats.binomtest(fixed, fixed + broken, alternative="greater").pvalue
    values, counts = np.array([0.0, 1.0, -1.0]), np.array([500 - fixed - broken, fixed, broken], dtype=float)
    kept = counts > 0

    def bound(level: float) -> float:
        return lower_bound(values[kept], counts[kept], worst=-1.0, level=level)

    assert bound(p_value * 0.95) < 0 < bound(min(p_value * 1.05, 0.999))


def test_it_is_the_quantile_of_the_mean_under_random_weights_with_the_worst_value_beside() -> None:
    random = np.random.default_rng(1)
    values = random.exponential(size=15)
    weights = random.gamma(1.0, size=(400_000, 16))
    means = weights @ np.append(values, -2.0) / weights.sum(axis=1)
    for level in (0.3, 0.05, 0.005):
        bound = lower_bound(values, np.ones(15), worst=-2.0, level=level)
        assert (means <= bound).mean() == pytest.approx(level, rel=0.05)


def test_values_far_out_and_many_photos_do_not_upset_it() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=50_000)
    bound = lower_bound(values * 1e-6 + 5.0, np.ones(50_000), worst=4.9, level=0.025)
    assert bound < 5.0
    normal = float(values.mean() - stats.norm.isf(0.025) * values.std() / np.sqrt(50_000))
    near = lower_bound(values, np.ones(50_000), worst=float(values.min()), level=0.025)
    assert near == pytest.approx(normal, abs=3e-4)


def test_values_that_are_all_alike_are_not_taken_for_the_truth() -> None:
    all_right = lower_bound(np.array([1.0]), np.array([100.0]), worst=0.0, level=0.05)
    assert all_right == pytest.approx(0.05 ** (1 / 100), abs=1e-3)
    assert lower_bound(np.array([0.0]), np.array([100.0]), worst=0.0, level=0.05) == 0.0
