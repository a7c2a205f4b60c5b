from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from validation.answers import Answers
from validation.checks.claims import Question
from validation.checks.gate import combine, holds, sampled_findings
from validation.checks.metric_checks import metric_demands, metric_findings
from validation.checks.policy import Policy
from validation.checks.verdict import Reason

MakeAnswers = Callable[..., Answers]
MakePolicy = Callable[..., Policy]
Paired = Callable[..., Any]


def asked(**rule: Any) -> dict[str, Any]:
    return {"metrics": [{"test": "superiority", **rule}]}


def of_metrics(answers: Answers, policy: Policy) -> list[Reason]:
    demands = tuple(metric_demands(answers, policy=policy))
    return [found.reason for found in metric_findings(demands, n=len(answers), question=question(policy))]


def question(policy: Policy) -> Question:
    return Question(alpha=policy.accuracy.alpha, level=policy.accuracy.alpha, power=policy.accuracy.power)


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy", "log_loss"])
@pytest.mark.parametrize(
    ("fixed", "broken", "outcome"), [(60, 10, "better"), (10, 60, "not better"), (20, 18, "cannot tell")]
)
def test_a_metric_is_shown_to_be_better_worse_or_neither(
    make_answers: MakeAnswers,
    make_policy: MakePolicy,
    paired_right: Paired,
    name: str,
    fixed: int,
    broken: int,
    outcome: str,
) -> None:
    answers = make_answers(*paired_right(600, fixed=fixed, broken=broken, neither=60))
    policy = make_policy(test="non-inferiority", margin=0.5, document=asked(name=name))
    (found,) = of_metrics(answers, policy)
    assert (found.check, found.outcome) == (f"{name}, superiority", outcome)
    assert holds(answers, policy=policy, level=0.05) == (outcome == "better")
    assert (found.more_labels is not None) == (outcome == "cannot tell")


def test_a_loss_within_the_margin_is_accepted_and_one_beyond_it_is_not(
    make_answers: MakeAnswers, make_policy: MakePolicy, paired_right: Paired
) -> None:
    answers = make_answers(*paired_right(600, fixed=20, broken=32, neither=60))
    outcomes = []
    for margin in (0.1, 0.02, 0.001):
        policy = make_policy(document=asked(name="macro_f1", test="non-inferiority", margin=margin))
        (found,) = of_metrics(answers, policy)
        outcomes.append(found.outcome)
        assert f"wanted: accepted loss {margin:g}" in found.statement
    assert outcomes[0] == "better"
    assert set(outcomes[1:]) <= {"cannot tell", "not better"}


@pytest.mark.parametrize(("floor", "outcome"), [(0.8, "better"), (0.9, "cannot tell"), (0.97, "not better")])
def test_a_floor_is_at_least_where_more_is_better(
    make_answers: MakeAnswers, make_policy: MakePolicy, floor: float, outcome: str
) -> None:
    answers = make_answers(np.arange(500) % 10 != 0, None)
    (found,) = of_metrics(answers, make_policy(document=asked(name="balanced_accuracy", floor=floor)))
    assert (found.check, found.outcome) == ("balanced_accuracy floor", outcome)
    assert f"wanted: at least {floor:g}" in found.statement


@pytest.mark.parametrize(("floor", "outcome"), [(0.5, "better"), (0.36, "cannot tell"), (0.25, "not better")])
def test_a_floor_is_at_most_where_less_is_better(
    make_answers: MakeAnswers, make_policy: MakePolicy, floor: float, outcome: str
) -> None:
    # 0.9 of the photos cost -log 0.8, 0.1 cost -log 0.2: 0.362 on average.
    answers = make_answers(np.arange(500) % 10 != 0, None)
    (found,) = of_metrics(answers, make_policy(document=asked(name="log_loss", floor=floor)))
    assert (found.check, found.outcome) == ("log_loss floor", outcome)
    assert f"wanted: at most {floor:g}" in found.statement


def test_a_dear_confusion_outweighs_a_gain_in_accuracy(make_answers: MakeAnswers, make_policy: MakePolicy) -> None:
    truth = np.arange(1000) % 2
    candidate, champion = np.ones(1000, dtype=bool), np.ones(1000, dtype=bool)
    champion[truth == 0] = np.arange(500) % 5 != 0
    candidate[truth == 1] = np.arange(500) % 25 != 0
    answers = make_answers(candidate, champion, truth=truth)
    costs = {"pairs": {"dog": {"cat": 20.0}}}
    policy = make_policy(document={**asked(name="mean_cost"), "costs": costs})
    plain = make_policy(document={**asked(name="mean_cost"), "costs": {"wrong": 1.0}})
    assert combine(sampled_findings(answers, plain, question(plain))) == "better"
    assert [found.outcome for found in sampled_findings(answers, policy, question(policy))] == ["better", "not better"]
    assert "Mean cost 0.4000 against 0.1000, gain -0.3000" in of_metrics(answers, policy)[0].statement
    assert not holds(answers, policy=policy, level=0.05)
