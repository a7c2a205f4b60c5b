from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import optimize, stats

from validation.figures.exact_margin import beyond_p_value, margin_p_values
from validation.figures.power import (
    labels_for_floor,
    labels_for_non_inferiority,
    labels_for_superiority,
    superiority_power,
)
from validation.figures.proportions import floor_p_values, proportion_interval
from validation.figures.statistics import (
    PairedCounts,
    difference_interval,
    holm,
    score_statistics,
    superiority_p_value,
)


def counts(n: int, fixed: int, broken: int) -> PairedCounts:
    return PairedCounts(n=n, both_right=n - fixed - broken, candidate_only=fixed, champion_only=broken)


def test_five_fixed_and_none_broken_is_a_coin_falling_heads_five_times() -> None:
    assert superiority_p_value(counts(100, 5, 0)) == pytest.approx(1 / 32)


def test_models_that_never_disagree_show_nothing() -> None:
    assert superiority_p_value(counts(100, 0, 0)) == 1.0


@pytest.mark.parametrize(("fixed", "broken"), [(9, 3), (40, 22), (150, 101), (3, 9)])
def test_the_exact_p_value_is_the_sum_of_binomial_probabilities(fixed: int, broken: int) -> None:
    decided = fixed + broken
    by_hand = sum(math.comb(decided, heads) for heads in range(fixed, decided + 1)) / 2**decided
    assert superiority_p_value(counts(1000, fixed, broken)) == pytest.approx(by_hand)


@pytest.mark.parametrize("decided", [1, 4, 5, 17, 50, 103, 400])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_equal_models_are_never_called_better_more_often_than_alpha(decided: int, alpha: float) -> None:
    called = [
        fixed for fixed in range(decided + 1) if superiority_p_value(counts(1000, fixed, decided - fixed)) <= alpha
    ]
    assert sum(stats.binom.pmf(fixed, decided, 0.5) for fixed in called) <= alpha


def test_the_simulated_share_of_equal_candidates_let_through_is_at_most_alpha() -> None:
    random = np.random.default_rng(20261120)
    histories, n, disagreement = 4000, 1000, 0.08
    decided = random.binomial(n, disagreement, histories)
    fixed = random.binomial(decided, 0.5)
    pairs = zip(fixed, decided, strict=True)
    passed = sum(superiority_p_value(counts(n, int(f), int(d - f))) <= 0.05 for f, d in pairs)
    # "Accuracy is higher" lets through nearly half of them.
    naive = int((fixed > decided - fixed).sum())
    assert passed / histories <= 0.05
    assert naive / histories > 0.4


def likeliest_lost_rate(n: int, fixed: int, broken: int, difference: float) -> float:
    """Maximise the trinomial likelihood under "fixed rate - broken rate = difference" by brute search."""

    def unlikely(lost: float) -> float:
        gained = lost + difference
        same = 1 - gained - lost
        terms = ((fixed, gained), (broken, lost), (n - fixed - broken, same))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    return float(optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)


@pytest.mark.parametrize(
    ("n", "fixed", "broken", "margin"), [(200, 12, 20, 0.05), (1000, 60, 75, 0.02), (44, 3, 1, 0.1)]
)
def test_tangos_score_test_agrees_with_a_likelihood_maximised_by_search(
    n: int, fixed: int, broken: int, margin: float
) -> None:
    lost = likeliest_lost_rate(n, fixed, broken, -margin)
    variance = n * (2 * lost - margin * (1 + margin))
    expected = (fixed - broken + n * margin) / math.sqrt(variance)
    found = score_statistics(n, np.array([fixed]), np.array([broken]), line=-margin)
    assert found[0] == pytest.approx(expected, rel=1e-4)
    exact = margin_p_values(counts(n, fixed, broken), margin=margin)[0]
    assert exact == pytest.approx(stats.norm.sf(expected), rel=0.3)


def test_without_a_margin_the_score_test_is_mcnemars_own() -> None:
    found = score_statistics(500, np.array([30]), np.array([18]), line=0.0)
    assert found[0] == pytest.approx(12 / math.sqrt(48))
    assert beyond_p_value(counts(500, 30, 18), line=0.0) == pytest.approx(stats.norm.sf(found[0]), rel=0.1)


@pytest.mark.parametrize(("n", "margin"), [(20, 0.05), (40, 0.15)])
def test_of_candidates_at_the_margin_at_most_the_level_is_called_not_inferior(n: int, margin: float) -> None:
    pairs = [(fixed, broken) for fixed in range(n + 1) for broken in range(n + 1 - fixed)]
    p_values = np.array([beyond_p_value(counts(n, *pair), line=-margin) for pair in pairs])
    fixed, broken = np.array(pairs).T
    for level in (0.05, 0.0225, 0.0025):
        sizes = []
        for lost in np.linspace(margin, (1 + margin) / 2, 90)[:-1]:
            chances = stats.multinomial.pmf(
                np.stack([fixed, broken, n - fixed - broken], axis=1), n, [lost - margin, lost, 1 - 2 * lost + margin]
            )
            sizes.append(float(chances[p_values <= level].sum()))
        assert 0.5 * level < max(sizes) <= level


def test_the_exact_test_sees_a_loss_as_it_sees_a_gain() -> None:
    not_inferior, inferior = margin_p_values(counts(300, 10, 60), margin=0.05)
    assert not_inferior > 0.99
    assert inferior < 0.001
    assert margin_p_values(counts(0, 0, 0), margin=0.05) == (1.0, 1.0)
    assert beyond_p_value(counts(1000, 0, 0), line=-0.05) < 1e-6


def test_a_candidate_at_the_margin_is_rarely_called_not_inferior() -> None:
    random = np.random.default_rng(11)
    n, margin, lost = 400, 0.03, 0.06
    drawn = random.multinomial(n, [lost - margin, lost, 1 - 2 * lost + margin], 600)
    called = sum(beyond_p_value(counts(n, int(fixed), int(broken)), line=-margin) <= 0.05 for fixed, broken, _ in drawn)
    # 43 of 600 is the 99th percentile of a rate of exactly the level.
    assert 15 < called <= 43


def test_the_interval_of_the_difference_covers_the_truth_as_often_as_it_says() -> None:
    n, gained, lost = 60, 0.15, 0.08
    covered = 0.0
    for fixed, broken in itertools.product(range(25), range(20)):
        low, high = difference_interval(counts(n, fixed, broken))
        if low <= gained - lost <= high:
            covered += stats.multinomial.pmf([fixed, broken, n - fixed - broken], n, [gained, lost, 1 - gained - lost])
    assert 0.94 < covered < 0.97


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 100))
def test_the_interval_holds_the_observed_difference_and_turns_with_the_models(
    fixed: int, broken: int, same: int
) -> None:
    observed = counts(fixed + broken + same, fixed, broken)
    low, high = difference_interval(observed)
    assert -1 <= low <= observed.gain <= high <= 1
    assert difference_interval(observed.reversed()) == pytest.approx((-high, -low), abs=1e-6)


def test_more_photos_than_there_are_cannot_be_counted() -> None:
    with pytest.raises(ValidationError, match="more photos are counted"):
        PairedCounts(n=3, both_right=2, candidate_only=1, champion_only=1)


def test_holms_correction_gives_the_figures_of_the_r_manual() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


def test_no_right_answer_in_ten_leaves_up_to_thirty_per_cent() -> None:
    assert proportion_interval(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert proportion_interval(0, 0) == (0.0, 1.0)


def test_a_floor_is_reached_or_missed_by_the_binomial_tails() -> None:
    reached, missed = floor_p_values(9, 10, floor=0.5)
    assert reached == pytest.approx(11 / 1024)
    assert missed == pytest.approx(1 - 1 / 1024)
    assert floor_p_values(0, 0, floor=0.5) == (1.0, 1.0)


def test_the_power_is_the_share_of_simulated_candidates_that_are_found() -> None:
    random = np.random.default_rng(5)
    n, gain, disagreement = 900, 0.02, 0.06
    decided = random.binomial(n, disagreement, 4000)
    fixed = random.binomial(decided, (disagreement + gain) / (2 * disagreement))
    found = np.mean(
        [superiority_p_value(counts(n, int(f), int(d - f))) <= 0.05 for f, d in zip(fixed, decided, strict=True)]
    )
    power = superiority_power(n, gain=gain, disagreement=disagreement, alpha=0.05)
    assert power == pytest.approx(found, abs=0.025)


@pytest.mark.parametrize(("gain", "low", "high"), [(0.02, 750, 1100), (0.01, 3000, 4200), (0.005, 11_500, 16_500)])
def test_the_labels_asked_for_are_those_that_simulations_need(gain: float, low: int, high: int) -> None:
    needed = labels_for_superiority(gain=gain, disagreement=0.05, alpha=0.05, power=0.8)
    assert needed is not None
    assert low < needed < high
    assert superiority_power(needed, gain=gain, disagreement=0.05, alpha=0.05) >= 0.8


def test_what_lies_on_the_line_is_not_decided_by_any_number_of_labels() -> None:
    assert labels_for_superiority(gain=0.0, disagreement=0.05, alpha=0.05, power=0.8) is None
    assert labels_for_superiority(gain=1e-5, disagreement=0.05, alpha=0.05, power=0.8) is None
    assert labels_for_floor(proportion=0.6, floor=0.6, alpha=0.05, power=0.8) is None
    assert labels_for_non_inferiority(gain=-0.02, disagreement=0.05, margin=0.02, alpha=0.05, power=0.8) is None


def test_a_floor_further_away_needs_fewer_labels() -> None:
    near = labels_for_floor(proportion=0.83, floor=0.8, alpha=0.05, power=0.8)
    far = labels_for_floor(proportion=0.9, floor=0.8, alpha=0.05, power=0.8)
    assert near is not None
    assert far is not None
    assert far < near
    found = stats.binom.sf(stats.binom.isf(0.05, near, 0.8), near, 0.83)
    assert found == pytest.approx(0.8, abs=0.03)
