"""How far a model's scores can be trusted: its calibration, and what it gets wrong if it may decline to answer.

Its place in the flow: report.py holds these curves, report_page.py draws them.
"""

from __future__ import annotations

import numpy as np

from validation.figures.metrics import (
    CALIBRATION_BINS,
    NO_ANSWER,
    Classes,
    Scores,
    best_scores,
    calibration_gaps,
    predicted_classes,
)
from validation.reports.report import CalibrationBin, RiskPoint

_RISK_POINTS = 50


def calibration_bins(truth: Classes, scores: Scores, *, bins: int = CALIBRATION_BINS) -> tuple[CalibrationBin, ...]:
    """Return the bins that hold a photo, lowest first; their mean distances make the calibration error."""
    bin_of, gap = calibration_gaps(truth, scores, bins=bins)
    confidence = best_scores(scores)
    counts = np.bincount(bin_of, minlength=bins)
    sure = np.bincount(bin_of, weights=confidence, minlength=bins)
    right = np.bincount(bin_of, weights=confidence - gap, minlength=bins)
    return tuple(
        CalibrationBin(
            low=index / bins,
            high=(index + 1) / bins,
            n=int(counts[index]),
            confidence=float(sure[index] / counts[index]),
            accuracy=float(right[index] / counts[index]),
        )
        for index in np.flatnonzero(counts)
    )


def risk_coverage(truth: Classes, scores: Scores, *, points: int = _RISK_POINTS) -> tuple[RiskPoint, ...]:
    """Return at most `points` points of the risk-coverage curve, by rising coverage; the last is of all photos.

    At each, the model answers the photos with the highest best scores only (Geifman and El-Yaniv,
    NeurIPS 2017). Of photos with equal scores, as many are taken as wrong as their share is. Photos
    without a finite answer come last.
    """
    photos = len(truth)
    if photos == 0:
        return ()
    predicted = predicted_classes(scores)
    rank = np.where(predicted == NO_ANSWER, -1.0, best_scores(scores))
    _, tied, sizes = np.unique(-rank, return_inverse=True, return_counts=True)
    wrong = np.bincount(tied, weights=predicted != truth)
    taken = np.concatenate([[0], np.cumsum(sizes)])
    missed = np.concatenate([[0.0], np.cumsum(wrong)])
    answered = np.unique(np.ceil(np.arange(1, points + 1) * photos / points).astype(np.int64))
    risks = np.interp(answered, taken, missed) / answered
    return tuple(
        RiskPoint(coverage=int(count) / photos, risk=float(risk)) for count, risk in zip(answered, risks, strict=True)
    )
