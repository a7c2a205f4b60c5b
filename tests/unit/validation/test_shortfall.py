from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from validation.answers import Answers
from validation.checks.gate import holds, preliminary
from validation.checks.groups import Group, Sizes
from validation.checks.policy import Policy
from validation.checks.shortfall import Shortfall
from validation.reports.report import Report

MakeAnswers = Callable[..., Answers]
MakePolicy = Callable[..., Policy]
MakeReport = Callable[..., Report]


def missing(answers: Answers, policy: Policy, report: Report, *, level: float = 0.02) -> Shortfall:
    return preliminary(report, answers, policy=policy, fresh_level=level).shortfall


def found_by(n: int, policy: Policy, make_answers: MakeAnswers, *, gain: float, level: float) -> float:
    """Return the share of 150 candidates with this gain for which n photos show that all checks hold."""
    random = np.random.default_rng(31)
    template = make_answers(np.ones(n, dtype=bool), np.ones(n, dtype=bool))
    right, wrong = template.candidate, template.candidate[:, ::-1]
    fixed, broken = (0.1 + gain) / 2, (0.1 - gain) / 2
    found = 0
    for _ in range(150):
        kind = random.choice(4, p=[0.8 - fixed, fixed, broken, 0.2 - broken], size=n)[:, np.newaxis]
        own, rival = np.where(kind <= 1, right, wrong), np.where((kind == 0) | (kind == 2), right, wrong)
        found += holds(replace(template, candidate=own, champion=rival), policy=policy, level=level)
    return found / 150


def open_sample(make_answers: MakeAnswers, *, fixed: int, broken: int, n: int = 1000, sealed: int = 100) -> Answers:
    """Return n open photos with these changes, and some sealed ones."""
    right = np.ones(n + sealed, dtype=bool)
    candidate, champion = right.copy(), right.copy()
    champion[:fixed] = False
    candidate[fixed : fixed + broken] = False
    return make_answers(candidate, champion, is_open=np.arange(n + sealed) < n)


def test_with_as_many_labels_the_gate_decides_as_often_as_the_power_says(
    make_answers: MakeAnswers, make_policy: MakePolicy, make_report: MakeReport
) -> None:
    report = make_report(np.ones(50, dtype=bool), np.ones(50, dtype=bool))
    policy = make_policy()
    asked = missing(open_sample(make_answers, fixed=75, broken=25), policy, report)
    share = found_by(asked.labels, policy, make_answers, gain=0.05, level=0.02)
    # Three standard errors of 150 draws at 0.8 are 0.1.
    assert abs(share - 0.8) < 0.1
    policy = make_policy(test="non-inferiority", margin=0.06)
    asked = missing(open_sample(make_answers, fixed=50, broken=50), policy, report)
    share = found_by(asked.labels, policy, make_answers, gain=0.0, level=0.02)
    assert abs(share - 0.8) < 0.1


def test_labels_of_classes_and_slices_are_named_and_photos_not_counted_twice(
    make_answers: MakeAnswers, make_policy: MakePolicy, make_report: MakeReport
) -> None:
    report = make_report(np.ones(50, dtype=bool), np.ones(50, dtype=bool))
    truth = np.array([0] * 500 + [1] * 500)
    right = np.arange(1000) % 10 != 0
    slices = [{"site": "a" if place % 2 else "b"} for place in range(1000)]
    answers = make_answers(right, right, truth=truth, is_open=np.arange(1000) % 5 != 1, slices=slices)
    classes = {"minimum_photos": 5, "recall_floor": 0.85}
    both = {"per_slice": {"minimum_photos": 5, "accuracy_floor": 0.7}}
    of_classes = missing(answers, make_policy(per_class=classes, smallest_gain=0.2), report)
    names = dict(of_classes.groups)
    assert set(names) == {"cat", "dog"}
    assert of_classes.labels == sum(names.values())
    assert f"({names['cat']:,} of cat, {names['dog']:,} of dog)" in of_classes.text
    together = missing(answers, make_policy(per_class=classes, smallest_gain=0.2, document=both), report)
    assert together.labels == of_classes.labels, "the labels of classes serve the slices too"


def test_a_class_on_its_line_is_named_as_undecidable(
    make_answers: MakeAnswers, make_policy: MakePolicy, make_report: MakeReport
) -> None:
    report = make_report(np.ones(50, dtype=bool), np.ones(50, dtype=bool))
    right = np.arange(400) % 4 > 1
    answers = make_answers(right, None, labels=("cat", "dog"), is_open=np.arange(400) < 200)
    policy = make_policy(floor=0.4, per_class={"minimum_photos": 5, "recall_floor": 0.5})
    found = missing(answers, policy, report)
    assert found.undecidable == ("recall floor of cat", "recall floor of dog")
    assert found.text.endswith("No affordable number of labels would decide: recall floor of cat, recall floor of dog.")


def test_enough_sealed_photos_are_said_to_be_enough(
    make_answers: MakeAnswers, make_policy: MakePolicy, make_report: MakeReport
) -> None:
    report = make_report(np.ones(50, dtype=bool), np.ones(50, dtype=bool))
    found = missing(open_sample(make_answers, fixed=75, broken=25, sealed=5000), make_policy(), report)
    assert (found.labels, found.undecidable) == (0, ())
    assert found.text.startswith("They are enough to show, with 80% power at level 0.02")


def test_a_group_that_is_not_there_has_no_photos() -> None:
    sizes = Sizes(10, {Group("cat"): 4})
    assert (sizes.of(None), sizes.of(Group("cat")), sizes.of(Group("cat", "device"))) == (10, 4, 0)
