from __future__ import annotations

import numpy as np
import pytest

from artifact_sync.canonical import sha256_hex
from validation.answers import Answers
from validation.holdout import HoldoutItem
from validation.metric_comparison import (
    compare_metric,
    gain_bounds,
)
from validation.metrics import MetricName

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
    items = tuple(
        HoldoutItem(sha256=sha256_hex(str(photo).encode()), extension="png", label=labels[index], source="folder:x")
        for photo, index in enumerate(truth)
    )
    return Answers(labels=labels, items=items, truth=truth, candidate=candidate, champion=champion)


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
    answers = drawn(2000)
    compared = compare_metric(name, answers, top_k=2)
    assert compared.gain is not None
    assert compared.interval is not None
    assert compared.interval[0] <= compared.gain <= compared.interval[1]
    if name != "calibration_error":
        assert compared.gain > 0
        assert gain_bounds(name, answers, level=0.01, top_k=2)[0] > 0


@pytest.mark.parametrize("name", METRICS)
def test_exchanging_the_models_mirrors_the_bounds(name: MetricName) -> None:
    answers = drawn(300)
    assert answers.champion is not None
    exchanged = answers_of(answers.truth, answers.champion, answers.candidate)
    lower, upper = gain_bounds(name, answers, level=0.025, top_k=2)
    mirrored = gain_bounds(name, exchanged, level=0.025, top_k=2)
    assert mirrored == pytest.approx((-upper, -lower), abs=0.1 * (upper - lower))


@pytest.mark.parametrize("name", METRICS)
def test_a_stricter_level_gives_wider_bounds(name: MetricName) -> None:
    answers = drawn(200)
    bounds = [gain_bounds(name, answers, level=level, top_k=2) for level in (0.1, 0.01, 1e-3, 1e-5, 1e-8)]
    lowers, uppers = zip(*bounds, strict=True)
    assert list(lowers) == sorted(lowers, reverse=True)
    assert list(uppers) == sorted(uppers)


@pytest.mark.parametrize("name", METRICS)
def test_the_same_answers_give_the_same_bounds(name: MetricName) -> None:
    assert gain_bounds(name, drawn(100), level=1e-3, top_k=2) == gain_bounds(name, drawn(100), level=1e-3, top_k=2)
