from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sklearn import metrics as reference

from artifact_sync.errors import RefusedError
from validation.checks.policy import CostRule, MetricName
from validation.figures.metrics import (
    GREATEST_LOSS,
    NO_ANSWER,
    answer_costs,
    calibration_error,
    confusion_matrix,
    cost_matrix,
    held_out_gaps,
    log_loss,
    log_losses,
    macro_f1,
    metric_value,
    predicted_classes,
    top_k_hits,
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
    assert log_losses(truth, scores)[1:].tolist() == [GREATEST_LOSS, GREATEST_LOSS]
    assert calibration_error(truth, scores) == pytest.approx((2 + 0.1) / 3, abs=1e-6)
    assert top_k_hits(truth, scores, top_k=2).tolist() == [True, False, False]
    costs = np.array([[0.0, 3.0], [1.0, 0.0]])
    assert answer_costs(truth, predicted, costs=costs).tolist() == [0.0, 1.0, 3.0]


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_is_that_of_scikit_learn(top_k: int) -> None:
    truth, scores = drawn()
    expected = reference.top_k_accuracy_score(truth, scores, k=top_k)
    assert metric_value("top_k_accuracy", truth, scores, top_k=top_k) == pytest.approx(expected)


def test_of_equal_scores_the_earlier_class_comes_first_as_it_does_in_the_answer() -> None:
    scores = np.full((3, 3), 1 / 3, dtype=np.float32)
    assert top_k_hits(np.array([0, 1, 2]), scores, top_k=2).tolist() == [True, True, False]
    assert predicted_classes(scores).tolist() == [0, 0, 0]


def test_balanced_accuracy_is_that_of_scikit_learn_and_leaves_out_classes_without_photos() -> None:
    truth, scores = drawn()
    expected = reference.balanced_accuracy_score(truth, predicted_classes(scores))
    assert metric_value("balanced_accuracy", truth, scores, top_k=2) == pytest.approx(expected)
    kept = truth != 3
    recalls = reference.recall_score(truth[kept], predicted_classes(scores[kept]), average=None, labels=[0, 1, 2])
    assert metric_value("balanced_accuracy", truth[kept], scores[kept], top_k=2) == pytest.approx(recalls.mean())


def test_a_costly_confusion_counts_for_its_cost() -> None:
    rule = CostRule(wrong=1.0, pairs={"sick": {"well": 20.0}, "well": {"sick": 0.5}})
    costs = cost_matrix(rule, ("well", "sick", "unsure"))
    assert costs.tolist() == [[0.0, 0.5, 1.0], [20.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    scores = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    value = metric_value("mean_cost", np.array([0, 1, 0, 1]), scores, top_k=2, costs=costs)
    assert value == pytest.approx((0 + 20 + 0.5 + 1) / 4)


def test_without_a_cost_rule_a_wrong_answer_costs_one() -> None:
    truth, scores = drawn()
    wrong = float((predicted_classes(scores) != truth).mean())
    assert metric_value("mean_cost", truth, scores, top_k=2) == pytest.approx(wrong)


@pytest.mark.parametrize("pairs", [{"cat": {"lynx": 2.0}}, {"lynx": {"cat": 2.0}}])
def test_costs_of_a_label_that_there_is_not_are_refused(pairs: dict[str, dict[str, float]]) -> None:
    with pytest.raises(RefusedError, match="sets costs for lynx, and the labels are cat, dog"):
        cost_matrix(CostRule(pairs=pairs), ("cat", "dog"))


@pytest.mark.parametrize("name", get_args(MetricName))
def test_no_photos_have_no_metric(name: MetricName) -> None:
    assert metric_value(name, np.zeros(0, np.int64), np.zeros((0, 3), np.float32), top_k=2) is None


@pytest.mark.parametrize("name", get_args(MetricName))
def test_scores_that_are_no_probabilities_still_have_a_metric(name: MetricName) -> None:
    random = np.random.default_rng(1)
    for scale in (0.0, 50.0, 1e30):
        scores = (random.normal(size=(20, 3)) * scale).astype(np.float32)
        value = metric_value(name, random.integers(0, 3, 20), scores, top_k=2)
        assert value is not None
        assert 0 <= value <= GREATEST_LOSS


def test_the_calibration_error_of_few_photos_is_too_high_and_the_held_out_one_is_not() -> None:
    plain, held_out = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        scores = random.dirichlet(np.ones(4), 200).astype(np.float32)
        truth = (scores.cumsum(axis=1) < random.random(200)[:, np.newaxis]).sum(axis=1).clip(0, 3)
        plain.append(calibration_error(truth, scores))
        held_out.append(held_out_gaps(truth, scores).mean())
    assert np.mean(plain) > 0.05
    assert abs(np.mean(held_out)) < 0.02
    assert (np.array(held_out) <= np.array(plain)).all()


def test_the_held_out_gaps_see_a_model_that_is_surer_than_right() -> None:
    scores = np.tile(np.array([[0.9, 0.1]], dtype=np.float32), (200, 1))
    truth = np.repeat([0, 1], [120, 80])
    assert held_out_gaps(truth, scores).mean() == pytest.approx(0.3, abs=1e-6)
