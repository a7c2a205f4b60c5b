from __future__ import annotations

from collections.abc import Callable

import numpy as np

from validation.answers import Answers
from validation.checks.policy import Policy
from validation.checks.size_checks import size_reasons

MakeAnswers = Callable[..., Answers]
MakePolicy = Callable[..., Policy]


def test_only_sealed_photos_count_where_there_are_any(make_answers: MakeAnswers, make_policy: MakePolicy) -> None:
    right = np.ones(120, dtype=bool)
    policy = make_policy(minimum_photos=110)
    sealed = make_answers(right, None, is_open=np.arange(120) < 20)
    (found,) = size_reasons(sealed.items, labels=sealed.labels, policy=policy)
    assert (found.check, found.outcome, found.more_labels) == ("holdout size", "cannot tell", 10)
    assert found.statement == "The holdout has 100 sealed photos, the policy asks for 110: 10 more labels are needed."
    assert size_reasons(make_answers(right, None).items, labels=sealed.labels, policy=policy) == ()


def test_each_class_that_is_too_small_is_named_with_what_it_lacks(
    make_answers: MakeAnswers, make_policy: MakePolicy
) -> None:
    truth = np.array([0] * 100 + [1] * 19)
    answers = make_answers(np.ones(119, dtype=bool), None, truth=truth, labels=("cat", "dog", "fox"))
    policy = make_policy(per_class={"minimum_photos": 20, "recall_floor": 0.5})
    found = size_reasons(answers.items, labels=answers.labels, policy=policy)
    assert [(reason.label, reason.more_labels) for reason in found] == [("dog", 1), ("fox", 20)]
    assert "1 more label is needed" in found[0].statement


def test_a_slice_of_which_all_photos_are_open_is_missed(make_answers: MakeAnswers, make_policy: MakePolicy) -> None:
    is_open = np.arange(100) < 10
    slices = [{"site": "new" if place < 10 else "old"} for place in range(100)]
    answers = make_answers(np.ones(100, dtype=bool), None, is_open=is_open, slices=slices)
    policy = make_policy(document={"per_slice": {"minimum_photos": 30, "margin": 0.1}})
    (found,) = size_reasons(answers.items, labels=answers.labels, policy=policy)
    assert (found.check, found.slice, found.label, found.more_labels) == ("slice size", "site = new", None, 30)
    assert "site = new has 0 sealed photos" in found.statement


def test_very_many_small_classes_share_a_sentence_with_the_sum(
    make_answers: MakeAnswers, make_policy: MakePolicy
) -> None:
    labels = tuple(f"class-{index:03}" for index in range(120))
    answers = make_answers(np.ones(240, dtype=bool), None, labels=labels)
    policy = make_policy(per_class={"minimum_photos": 12, "recall_floor": 0.5})
    found = size_reasons(answers.items, labels=labels, policy=policy)
    assert len(found) == 51
    assert found[-1].more_labels == 70 * 10
    assert found[-1].statement.startswith("70 more have too few: class-050, class-051")
