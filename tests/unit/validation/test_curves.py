from __future__ import annotations

import numpy as np
import pytest

from validation.figures.curves import calibration_bins, risk_coverage
from validation.figures.metrics import calibration_error, predicted_classes


def drawn(n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    scores = random.dirichlet(np.ones(4), n).astype(np.float32)
    return random.integers(0, 4, n), scores


def test_the_bins_make_up_the_calibration_error() -> None:
    truth, scores = drawn()
    bins = calibration_bins(truth, scores)
    assert sum(each.n for each in bins) == 500
    assert [each.low for each in bins] == sorted(each.low for each in bins)
    assert all(each.low <= each.confidence <= each.high for each in bins)
    weighted = sum(each.n * abs(each.confidence - each.accuracy) for each in bins) / 500
    assert weighted == pytest.approx(calibration_error(truth, scores))


def test_a_bin_without_photos_is_left_out() -> None:
    scores = np.array([[0.9, 0.1], [0.88, 0.12], [0.5, 0.5]], dtype=np.float32)
    low, high = calibration_bins(np.array([0, 1, 0]), scores, bins=10)
    assert (low.n, low.low, low.high, low.accuracy) == (1, 0.4, 0.5, 1.0)
    assert (high.n, high.accuracy) == (2, 0.5)
    assert high.confidence == pytest.approx(0.89)


def test_risk_falls_when_the_model_answers_only_where_it_is_sure() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], dtype=np.float32)
    curve = risk_coverage(np.array([0, 0, 1, 1]), scores)
    assert [(point.coverage, point.risk) for point in curve] == [
        (0.25, 0.0),
        (0.5, 0.0),
        (0.75, pytest.approx(1 / 3)),
        (1.0, 0.5),
    ]


def test_the_last_point_is_the_share_of_wrong_answers_of_all_photos() -> None:
    truth, scores = drawn(1234)
    curve = risk_coverage(truth, scores)
    assert len(curve) == 50
    assert curve[-1].coverage == 1.0
    assert curve[-1].risk == pytest.approx(float((predicted_classes(scores) != truth).mean()))


def test_equal_scores_are_wrong_in_their_share_whatever_the_order_of_photos() -> None:
    scores = np.tile(np.array([[0.75, 0.25]], dtype=np.float32), (10, 1))
    truth = np.array([1, 1] + [0] * 8)
    assert {round(point.risk, 9) for point in risk_coverage(truth, scores)} == {0.2}
    assert risk_coverage(truth, scores) == risk_coverage(truth[::-1], scores)


def test_photos_without_a_finite_answer_come_last_and_are_wrong() -> None:
    scores = np.array([[np.nan, 1.0], [0.6, 0.4]], dtype=np.float32)
    first, last = risk_coverage(np.array([0, 0]), scores)
    assert (first.coverage, first.risk) == (0.5, 0.0)
    assert (last.coverage, last.risk) == (1.0, 0.5)


def test_no_photos_have_no_curves() -> None:
    nothing = np.zeros(0, np.int64), np.zeros((0, 3), np.float32)
    assert risk_coverage(*nothing) == ()
    assert calibration_bins(*nothing) == ()
