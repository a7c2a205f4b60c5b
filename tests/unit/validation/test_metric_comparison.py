from __future__ import annotations

import numpy as np
import pytest
import soak
from scipy import stats

from artifact_sync.canonical import sha256_hex
from validation.answers import Answers
from validation.checks.policy import CostRule, MetricName
from validation.figures.bootstrap import bootstrap
from validation.figures.metric_comparison import (
    compare_metric,
    gain_bounds,
    labels_for_metric,
    labels_for_metric_floor,
    value_bounds,
)
from validation.figures.metric_sums import summed_gain
from validation.figures.metrics import GREATEST_LOSS, cost_matrix, metric_value
from validation.photos.holdout import HoldoutItem

METRICS: tuple[MetricName, ...] = (
    "macro_f1",
    "balanced_accuracy",
    "log_loss",
    "calibration_error",
    "top_k_accuracy",
    "mean_cost",
)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def answers_of(truth: np.ndarray, candidate: np.ndarray, champion: np.ndarray | None) -> Answers:
    labels = tuple(f"class-{index}" for index in range(candidate.shape[1]))
    item = HoldoutItem(sha256=sha256_hex(b"photo"), extension="png", label=labels[0], source="folder:x")
    return Answers(labels=labels, items=(item,) * len(truth), truth=truth, candidate=candidate, champion=champion)


def drawn(n: int = 400, *, classes: int = 4, candidate: float = 2.5, champion: float = 2.0, seed: int = 0) -> Answers:
    """Models that see the truth through noise, most of which they share; the more, the better."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    shared = random.normal(size=(n, classes))
    own = np.eye(classes)[truth]

    def scores(strength: float) -> np.ndarray:
        return softmax(1.5 * (shared + 0.5 * random.normal(size=(n, classes)) + strength * own))

    return answers_of(truth, scores(candidate), scores(champion))


@pytest.mark.parametrize("name", METRICS)
def test_the_gain_lies_between_its_bounds_and_is_positive_for_a_better_model(name: MetricName) -> None:
    answers = drawn(300, candidate=3.5)
    compared = compare_metric(name, answers, top_k=2)
    assert compared.gain is not None
    assert compared.interval is not None
    assert compared.interval[0] <= compared.gain <= compared.interval[1]
    assert (compared.interval[0] > 0) == (name != "calibration_error")


@pytest.mark.parametrize("name", METRICS)
def test_exchanging_the_models_mirrors_the_bounds(name: MetricName) -> None:
    answers = drawn(100)
    assert answers.champion is not None
    exchanged = answers_of(answers.truth, answers.champion, answers.candidate)
    lower, upper = gain_bounds(name, answers, level=0.025, top_k=2)
    mirrored = gain_bounds(name, exchanged, level=0.025, top_k=2)
    assert mirrored == pytest.approx((-upper, -lower), abs=0.1 * (upper - lower))


@pytest.mark.parametrize("name", METRICS)
def test_a_stricter_level_gives_wider_bounds(name: MetricName) -> None:
    answers = drawn(60)
    bounds = [gain_bounds(name, answers, level=level, top_k=2) for level in (0.1, 1e-3, 1e-5, 1e-8)]
    lowers, uppers = zip(*bounds, strict=True)
    assert list(lowers) == sorted(lowers, reverse=True)
    assert list(uppers) == sorted(uppers)


@pytest.mark.parametrize("name", METRICS)
def test_the_same_answers_give_the_same_bounds(name: MetricName) -> None:
    assert gain_bounds(name, drawn(50), level=1e-3, top_k=2) == gain_bounds(name, drawn(50), level=1e-3, top_k=2)


def test_top_k_with_one_answer_is_shown_exactly_where_mcnemar_shows_it() -> None:
    """The bound of a gain leaves 0 where the exact test's p-value falls under the level."""
    truth = np.zeros(200, dtype=np.int64)
    for fixed, broken in ((7, 0), (12, 2), (40, 20)):
        right = np.ones((2, 200), dtype=bool)
        right[1, :fixed], right[0, fixed : fixed + broken] = False, False
        candidate, champion = (np.where(each, 0.9, 0.1) for each in right)
        answers = answers_of(
            truth,
            np.column_stack([candidate, 1 - candidate]).astype(np.float32),
            np.column_stack([champion, 1 - champion]).astype(np.float32),
        )
        p_value = stats.binomtest(fixed, fixed + broken, alternative="greater").pvalue
        assert gain_bounds("top_k_accuracy", answers, level=p_value * 0.95, top_k=1)[0] <= 0
        assert gain_bounds("top_k_accuracy", answers, level=min(p_value * 1.05, 0.5), top_k=1)[0] > 0


@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-6])
def test_a_share_has_the_exact_binomial_bounds_where_these_are_wider(level: float) -> None:
    for right in (0, 3, 50, 99, 100):
        truth = np.zeros(100, dtype=np.int64)
        scores = np.where(np.arange(100) < right, 0.9, 0.1)
        answers = answers_of(truth, np.column_stack([scores, 1 - scores]).astype(np.float32), None)
        lower, upper = value_bounds("top_k_accuracy", answers, level=level, top_k=1)
        exact_lower = stats.beta.ppf(level, right, 101 - right) if right else 0.0
        exact_upper = stats.beta.isf(level, right + 1, 100 - right) if right < 100 else 1.0
        assert lower <= exact_lower + 2e-3
        assert upper >= exact_upper - 2e-3


@pytest.mark.parametrize("name", METRICS)
def test_of_identical_models_nothing_is_shown_but_what_the_number_of_photos_allows(name: MetricName) -> None:
    answers = drawn(100)
    same = answers_of(answers.truth, answers.candidate, answers.candidate)
    compared = compare_metric(name, same, top_k=2)
    assert compared.gain == 0
    lower, upper = gain_bounds(name, same, level=1e-3, top_k=2)
    assert -1.5 < lower < 0 < upper < 1.5
    assert labels_for_metric(name, same, margin=0.0, level=0.05, power=0.8, top_k=2) is None
    assert labels_for_metric(name, same, margin=0.1, level=0.05, power=0.8, top_k=2) is not None


@pytest.mark.parametrize("name", METRICS)
def test_awkward_answers_still_have_bounds(name: MetricName) -> None:
    random = np.random.default_rng(5)
    truth = np.array([0, 0, 0, 1, 1, 2, 0, 1])
    noise = softmax(random.normal(size=(8, 4)))
    broken = noise.copy()
    broken[2:5, 1] = np.nan
    constant = np.full((8, 4), 0.25, dtype=np.float32)
    for candidate in (noise, broken, constant, np.full_like(noise, np.nan)):
        answers = answers_of(truth, candidate, noise)
        compared = compare_metric(name, answers, top_k=2)
        assert compared.interval is not None
        assert compared.gain is not None
        assert compared.interval[0] <= compared.gain <= compared.interval[1]
        most = GREATEST_LOSS if name == "log_loss" else 1.0
        for level in (0.3, 1e-9):
            lower, upper = value_bounds(name, answers, level=level, top_k=2)
            assert 0 <= lower <= compared.candidate <= upper <= most
            lower, upper = gain_bounds(name, answers, level=level, top_k=2)
            assert -most <= lower <= compared.gain <= upper <= most


@pytest.mark.parametrize("name", METRICS)
def test_a_single_photo_bounds_nothing(name: MetricName) -> None:
    answers = drawn(1)
    most = GREATEST_LOSS if name == "log_loss" else 1.0
    assert gain_bounds(name, answers, level=0.05, top_k=2) == (-most, most)
    assert value_bounds(name, answers, level=0.05, top_k=2) == (0.0, most)
    assert compare_metric(name, answers, top_k=2).interval == (-most, most)
    assert labels_for_metric(name, answers, margin=0.1, level=0.05, power=0.8, top_k=2) is None


def test_a_first_model_has_a_value_and_no_gain() -> None:
    answers = answers_of(drawn(50).truth, drawn(50).candidate, None)
    compared = compare_metric("macro_f1", answers, top_k=2)
    assert compared.candidate == metric_value("macro_f1", answers.truth, answers.candidate, top_k=2)
    assert (compared.champion, compared.gain, compared.interval) == (None, None, None)


def test_less_is_better_where_it_is_and_the_gain_says_so() -> None:
    answers = drawn(400)
    compared = compare_metric("log_loss", answers, top_k=2)
    assert compared.champion is not None
    assert compared.candidate < compared.champion
    assert compared.gain == pytest.approx(compared.champion - compared.candidate)


def test_a_costly_error_weighs_as_the_policy_says() -> None:
    answers = drawn(2000, candidate=2.2)
    truth = answers.truth.copy()
    # The candidate calls some of class 1 class 0, which is the costly confusion.
    candidate = answers.candidate.copy()
    missed = np.flatnonzero(truth == 1)[:100]
    candidate[missed] = np.eye(4, dtype=np.float32)[0]
    answers = answers_of(truth, candidate, answers.champion)
    costs = cost_matrix(CostRule(pairs={"class-1": {"class-0": 20.0}}), answers.labels)
    assert gain_bounds("mean_cost", answers, level=0.01, top_k=2, costs=costs)[1] < 0
    assert gain_bounds("mean_cost", answers, level=0.01, top_k=2)[1] > 0


def test_a_rare_disaster_that_no_photo_shows_is_reckoned_with() -> None:
    """A candidate a little surer everywhere: on these photos its log loss is less on every single one."""
    truth = np.zeros(300, dtype=np.int64)
    champion = np.tile(np.array([[0.95, 0.05]], dtype=np.float32), (300, 1))
    candidate = np.tile(np.array([[0.99, 0.01]], dtype=np.float32), (300, 1))
    answers = answers_of(truth, candidate, champion)
    assert compare_metric("log_loss", answers, top_k=2).gain == pytest.approx(0.041, abs=0.001)
    # One photo in a hundred with a loss of 15.9 would undo the gain, and 300 photos rule that out, but one in 400 not.
    assert gain_bounds("log_loss", answers, level=0.05, top_k=2)[0] < 0
    more = answers_of(np.tile(truth, 20), np.tile(candidate, (20, 1)), np.tile(champion, (20, 1)))
    assert gain_bounds("log_loss", more, level=0.05, top_k=2)[0] > 0


def test_of_nearly_alike_models_no_more_than_the_level_are_taken_for_better_than_they_are() -> None:
    """BCa alone takes one in six at 1 %: those with photos fixed and none broken, so that no resample breaks any."""
    random = np.random.default_rng(9)
    truth = np.arange(150) % 3
    right, wrong = np.eye(3, dtype=np.float32)[truth], np.eye(3, dtype=np.float32)[(truth + 1) % 3]
    costs = cost_matrix(None, ("cat", "dog", "owl"))
    trusting = cautious = 0
    for _ in range(60):
        broken, fixed = random.random(150) < 0.012, random.random(150) < 0.010
        candidate, champion = (np.where(each[:, np.newaxis], wrong, right) for each in (broken, fixed))
        figure = summed_gain("mean_cost", truth, candidate=candidate, champion=champion, sign=-1, top_k=1, costs=costs)
        trusting += bootstrap(figure, seed=1).lower_bound(0.01) > -0.002
        answers = answers_of(truth, candidate, champion)
        cautious += gain_bounds("mean_cost", answers, level=0.01, top_k=1)[0] > -0.002
    # Of 60 at 1 %, more than 4 come less than once in a thousand times.
    assert cautious <= 4 < trusting


def test_a_champion_that_keeps_its_word_is_not_beaten_by_the_noise_of_its_own_bins() -> None:
    """Its calibration error looks like 0.06 on 150 photos and is 0; a candidate that is off by 0.05 is no match."""
    better, rounds = 0, soak.rounds(5, soak=15)
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        champion = random.dirichlet(np.ones(3), 150).astype(np.float32)
        truth = (champion.cumsum(axis=1) < random.random(150)[:, np.newaxis]).sum(axis=1).clip(0, 2)
        candidate = softmax(np.log(champion) * 0.8)
        better += gain_bounds("calibration_error", answers_of(truth, candidate, champion), level=0.2, top_k=2)[0] > 0
    # Each is one in five at the most.
    assert better <= 1 + rounds // 3


def test_the_labels_asked_for_find_the_gain_as_often_as_they_say() -> None:
    first = drawn(3000, candidate=2.35, seed=1)
    needed = labels_for_metric("mean_cost", first, margin=0.0, level=0.01, power=0.8, top_k=2)
    assert needed is not None
    random = np.random.default_rng(2)
    found = 0
    for _ in range(40):
        chosen = random.integers(0, len(first), needed)
        assert first.champion is not None
        again = answers_of(first.truth[chosen], first.candidate[chosen], first.champion[chosen])
        found += gain_bounds("mean_cost", again, level=0.01, top_k=2)[0] > 0
    # 32 of 40 are expected; fewer than 25 or more than 38 come once in a hundred times each.
    assert 25 <= found <= 38


def test_more_labels_are_asked_for_a_smaller_gain_a_stricter_level_and_more_power() -> None:
    answers = drawn(500)

    def labels(*, level: float = 0.01, power: float = 0.8, gain: float | None = None) -> int:
        needed = labels_for_metric("macro_f1", answers, margin=0.0, level=level, power=power, top_k=2, gain=gain)
        assert needed is not None
        return needed

    assert labels() < labels(level=1e-4) < labels(level=1e-4, power=0.95)
    assert labels(gain=0.05) < labels(gain=0.02)
    assert labels_for_metric("macro_f1", answers, margin=0.0, level=0.01, power=0.8, top_k=2, gain=0.0) is None
    assert labels_for_metric("macro_f1", answers, margin=0.0, level=0.01, power=0.8, top_k=2, gain=1e-5) is None


@pytest.mark.parametrize(("name", "floor"), [("macro_f1", 0.7), ("mean_cost", 0.3)])
def test_a_floor_asks_for_the_labels_that_show_it_is_kept(name: MetricName, floor: float) -> None:
    answers = drawn(500)
    needed = labels_for_metric_floor(name, answers, floor=floor, level=1e-3, power=0.8, top_k=2)
    assert needed is not None
    times = -(-needed // 500) + 1
    more = answers_of(
        np.tile(answers.truth, times), np.tile(answers.candidate, (times, 1)), np.tile(answers.candidate, (times, 1))
    )
    lower, upper = value_bounds(name, more, level=1e-3, top_k=2)
    assert lower > floor if name == "macro_f1" else upper < floor
    beyond = 0.999 if name == "macro_f1" else 0.001
    assert labels_for_metric_floor(name, answers, floor=beyond, level=1e-3, power=0.8, top_k=2) is None
