"""Counting answers: loss and shares as by hand, parts that add up, only the worst mistakes kept."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from training_cluster.training.evaluation import Tally, concluded

_RANDOM = np.random.default_rng(5)


def _pixels(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)


def test_loss_accuracy_recall_and_precision_are_those_by_hand() -> None:
    tally = Tally(3)
    chances = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    # Adding the same to all logits of a row changes nothing, and large ones do not overflow.
    tally.add(np.log(chances) + 900.0, np.array([0, 1, 1]), _pixels(3))
    found = concluded(tally.sums, step=7)
    assert found.loss == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.5)) / 3)
    assert found.accuracy == pytest.approx(2 / 3)
    np.testing.assert_array_equal(found.confusion, [[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    document = json.loads(json.dumps(found.to_document(("a", "b", "c")), allow_nan=False))
    assert document["classes"] == {
        "a": {"examples": 1, "recall": 1.0, "precision": 0.5},
        "b": {"examples": 2, "recall": 0.5, "precision": 1.0},
        "c": {"examples": 0, "recall": None, "precision": None},
    }
    assert (document["step"], document["examples"]) == (7, 3)


def test_parts_of_several_workers_add_up_to_the_whole() -> None:
    logits, labels, pixels = _RANDOM.normal(size=(90, 4)), _RANDOM.integers(0, 4, 90), _pixels(90)
    whole, parts = Tally(4), (Tally(4), Tally(4))
    for index, begin in enumerate(range(0, 90, 30)):
        batch = slice(begin, begin + 30)
        whole.add(logits[batch], labels[batch], pixels[batch])
        parts[index % 2].add(logits[batch], labels[batch], pixels[batch])
    summed = {name: parts[0].sums[name] + parts[1].sums[name] for name in whole.sums}
    one, two = concluded(whole.sums, step=1), concluded(summed, step=1)
    np.testing.assert_array_equal(one.confusion, two.confusion)
    assert one.loss == pytest.approx(two.loss, rel=1e-12)


def test_the_most_confident_mistakes_of_all_batches_are_kept_with_their_photos() -> None:
    tally = Tally(2)
    confidence = _RANDOM.permutation(np.linspace(0.51, 0.99, 60))
    for begin in range(0, 60, 20):
        batch = slice(begin, begin + 20)
        logits = np.log(np.stack([confidence[batch], 1 - confidence[batch]], axis=1))
        tally.add(logits, np.arange(begin, begin + 20) % 2, _pixels(60)[batch])
    mistakes = tally.mistakes
    assert mistakes is not None
    wrong = sorted((index for index in range(60) if index % 2), key=lambda index: -confidence[index])[:24]
    assert mistakes.pixels[:, 0, 0, 0].tolist() == wrong
    np.testing.assert_allclose(mistakes.confidences, confidence[wrong])
    assert set(mistakes.truth) == {1}
    assert set(mistakes.predicted) == {0}


def test_answers_that_are_no_numbers_make_a_loss_that_is_none() -> None:
    tally = Tally(2)
    tally.add(np.array([[np.nan, 1.0]]), np.array([1]), _pixels(1))
    assert math.isnan(concluded(tally.sums, step=1).loss)
