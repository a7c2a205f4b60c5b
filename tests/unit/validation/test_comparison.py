from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from validation.answers import Answers
from validation.checks.policy import Policy
from validation.reports.comparison import MAX_SLICE_VALUES, compare, compare_counts, measurements_of

MakeAnswers = Callable[..., Answers]
MakePolicy = Callable[..., Policy]


@pytest.fixture
def answers(make_answers: MakeAnswers) -> Answers:
    """Forty photos: one fixed, two broken (one of them without an answer), the last ten sealed."""
    candidate, champion = np.ones(40, dtype=bool), np.ones(40, dtype=bool)
    champion[2] = candidate[0] = False
    slices = [{"device": "phone" if place % 4 else "camera", "id": str(place)} for place in range(40)]
    built = make_answers(candidate, champion, is_open=np.arange(40) < 30, slices=slices)
    scores = built.candidate.copy()
    scores[1] = np.nan
    return replace(built, candidate=scores)


def test_what_changed_is_counted_and_named(answers: Answers) -> None:
    fields: dict[str, Any] = compare_counts(answers)
    assert (fields["paired"].candidate_only, fields["paired"].champion_only) == (1, 2)
    assert [photo.sha256 for photo in fields["fixed"]] == [answers.items[2].sha256]
    broken, nan = fields["broken"]
    assert (broken.champion_answer, nan.candidate_answer) == (broken.label, None)
    assert broken.candidate_answer not in (None, broken.label)
    assert sum(row.n for row in fields["classes"]) == 40
    assert sum(row.paired.champion_only for row in fields["classes"]) == 2
    assert [(row.value, row.n) for row in fields["slices"] if row.column == "device"] == [("camera", 10), ("phone", 30)]


def test_of_sealed_photos_only_their_number_is_told(answers: Answers, make_policy: MakePolicy) -> None:
    policy = make_policy(document={"suspect_labels": {"confidence": 0.7}})
    shown: dict[str, Any] = compare(answers, policy=policy, scope="open")
    assert (shown["photos"], shown["sealed_photos"], shown["scope"]) == (30, 10, "open")
    others = replace(answers, candidate=answers.candidate.copy())
    sealed = ~answers.is_open
    others.candidate[sealed] = others.candidate[sealed][:, ::-1]
    assert compare(others, policy=policy, scope="open") == shown
    whole: dict[str, Any] = compare(others, policy=policy, scope="all")
    assert (whole["photos"], whole["sealed_photos"]) == (40, 0)
    assert whole["paired"].champion_only == 12


def test_the_metrics_that_are_asked_for_stand_beside_the_usual_ones(
    answers: Answers, make_answers: MakeAnswers, make_policy: MakePolicy
) -> None:
    asked = {"metrics": [{"name": "mean_cost", "test": "superiority"}], "costs": {"pairs": {"cat": {"dog": 20.0}}}}
    policy = make_policy(document=asked)
    fields: dict[str, Any] = compare(answers, policy=policy, scope="open")
    names = [metric.name for metric in fields["metrics"]]
    assert names == ["macro_f1", "balanced_accuracy", "log_loss", "calibration_error", "mean_cost"]
    first = make_answers(np.arange(40) % 5 != 0, None)
    alone: dict[str, Any] = compare(first, policy=policy, scope="all")
    assert (alone["paired"], alone["fixed"], alone["broken"]) == (None, (), ())
    assert all(metric.gain is None for metric in alone["metrics"])


def test_a_column_that_names_photos_is_left_out(make_answers: MakeAnswers) -> None:
    count = MAX_SLICE_VALUES + 1
    slices = [{"site": "a", "id": str(place)} for place in range(count)]
    fields: dict[str, Any] = compare_counts(make_answers(np.ones(count, dtype=bool), None, slices=slices))
    assert [row.column for row in fields["slices"]] == ["site"]


def test_one_models_figures_are_those_of_its_confusion(answers: Answers, make_policy: MakePolicy) -> None:
    document = {"metrics": [{"name": "top_k_accuracy", "test": "superiority"}], "top_k": 2, "costs": {"wrong": 3.0}}
    policy = make_policy(document=document)
    found: dict[str, Any] = measurements_of(answers.truth, answers.candidate, labels=answers.labels, policy=policy)
    assert found["right"] == 38
    # A cat taken for a dog, and a dog without an answer.
    assert found["confusion"] == ((19, 1, 0), (0, 19, 1))
    assert found["non_finite_photos"] == 1
    assert found["mean_cost"] == pytest.approx(2 * 3.0 / 40)
    assert found["top_k_accuracy"] == pytest.approx(39 / 40)
    assert sum(bin_.n for bin_ in found["calibration"]) == 40
    assert found["risk_coverage"][-1].risk == pytest.approx(2 / 40)
    plain: dict[str, Any] = measurements_of(
        answers.truth, answers.candidate, labels=answers.labels, policy=make_policy()
    )
    assert (plain["mean_cost"], plain["top_k_accuracy"]) == (None, None)
