from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from validation.metrics import (
    NO_ANSWER,
    calibration_error,
    confusion_matrix,
    log_loss,
    macro_f1,
    predicted_classes,
)


def drawn(n: int = 500, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    scores = random.dirichlet(np.ones(classes), n).astype(np.float32)
    truth = np.array([random.choice(classes, p=row / row.sum()) for row in scores.astype(np.float64)])
    return truth.astype(np.int64), scores


def test_the_figures_are_those_of_scikit_learn() -> None:
    truth, scores = drawn()
    predicted = predicted_classes(scores)
    confusion = confusion_matrix(truth, predicted, classes=4)
    assert (confusion[:, :4] == reference.confusion_matrix(truth, predicted)).all()
    assert macro_f1(confusion) == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    exact = scores / scores.sum(axis=1, keepdims=True, dtype=np.float64)
    assert log_loss(truth, scores) == pytest.approx(reference.log_loss(truth, exact), rel=1e-4)


def test_scores_that_keep_their_word_are_calibrated() -> None:
    truth, scores = drawn(n=20_000)
    error = calibration_error(truth, scores)
    assert error is not None
    assert error < 0.02


def test_a_model_that_is_surer_than_right_is_off_by_the_difference() -> None:
    scores = np.tile(np.array([[0.9, 0.1]], dtype=np.float32), (10, 1))
    truth = np.array([0] * 6 + [1] * 4)
    assert calibration_error(truth, scores) == pytest.approx(0.3, abs=1e-6)


def test_a_photo_answered_with_nan_is_answered_wrongly() -> None:
    scores = np.array([[0.1, 0.9], [np.nan, 0.9], [np.inf, 0.0]], dtype=np.float32)
    truth = np.array([1, 1, 0])
    predicted = predicted_classes(scores)
    assert predicted.tolist() == [1, NO_ANSWER, NO_ANSWER]
    assert confusion_matrix(truth, predicted, classes=2).tolist() == [[0, 0, 1], [0, 1, 1]]
    assert log_loss(truth, scores) is None
    assert calibration_error(truth, scores) is None
