from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from validation.answers import Answers
from validation.figures.label_order import label_order
from validation.photos.holdout import HoldoutItem

ITEM = HoldoutItem(sha256="a" * 64, extension="png", label="class-0", source="folder:x")


def answers_of(truth: NDArray[np.int64], answer: NDArray[np.int64], classes: int) -> Answers:
    scores = np.full((len(truth), classes), 0.1, dtype=np.float32)
    scores[np.arange(len(truth)), answer] = 0.9
    labels = tuple(f"class-{index}" for index in range(classes))
    return Answers(labels=labels, items=(ITEM,) * len(truth), truth=truth, candidate=scores, champion=None)


def noisy(n: int, classes: int, *, right: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    return truth, np.where(random.random(n) < right, truth, random.integers(0, classes, n))


def test_two_names_exchanged_are_found() -> None:
    truth, answer = noisy(200, 5, right=0.8)
    exchanged = np.array([0, 3, 2, 1, 4])
    found = label_order(answers_of(truth, exchanged[answer], 5))
    assert found is not None
    assert found.labels == ("class-0", "class-3", "class-2", "class-1", "class-4")
    assert found.accuracy == pytest.approx(float((truth == answer).mean()))


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_an_order_sorted_another_way_is_found(classes: int) -> None:
    truth, answer = noisy(40 * classes, classes, right=0.7)
    meaning = np.roll(np.arange(classes), 1)
    column_of = np.argsort(meaning)
    found = label_order(answers_of(truth, column_of[answer], classes))
    assert found is not None
    assert found.labels == tuple(f"class-{index}" for index in meaning)


def test_the_names_are_given_in_the_order_of_the_models_own_columns() -> None:
    truth, answer = noisy(200, 3, right=0.9)
    exchanged = np.array([1, 0, 2])
    found = label_order(answers_of(truth, exchanged[answer], 3), columns=("class-2", "class-0", "class-1"))
    assert found is not None
    assert found.labels == ("class-2", "class-1", "class-0")


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_a_model_in_order_is_left_alone_however_bad(classes: int, right: float) -> None:
    for seed in range(2 if classes > 100 else 20):
        truth, answer = noisy(300, classes, right=right, seed=seed)
        assert label_order(answers_of(truth, answer, classes)) is None


def test_two_classes_that_are_mixed_up_are_not_exchanged_names() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 2000)
    answer = np.where(random.random(2000) < 0.6, 1 - truth, truth)
    assert label_order(answers_of(truth, answer, 2)) is None


def test_too_few_photos_accuse_nobody() -> None:
    assert label_order(answers_of(np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0]), 2)) is None
    twelve = np.arange(12) % 2
    assert label_order(answers_of(twelve, 1 - twelve, 2)) is not None


def test_answers_that_are_not_finite_say_nothing_of_the_order() -> None:
    answers = answers_of(np.arange(40) % 2, 1 - np.arange(40) % 2, 2)
    answers.candidate[:] = np.nan
    assert label_order(answers) is None
