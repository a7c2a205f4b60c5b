"""What a table of scores is worth: accuracy's companions, computed from one model's answers.

Its place in the flow: report.py computes these for candidate and champion from evaluate.py's
answers. A photo whose scores are not all finite counts as answered wrongly everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Classes = NDArray[np.int64]

NO_ANSWER = -1
"""The predicted class of a photo whose scores are not finite."""


def predicted_classes(scores: Scores) -> Classes:
    """Return the best class of each row of `scores` [n, classes], NO_ANSWER where a score is not finite."""
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, np.argmax(np.nan_to_num(scores), axis=1), NO_ANSWER).astype(np.int64)


def confusion_matrix(truth: Classes, predicted: Classes, *, classes: int) -> NDArray[np.int64]:
    """Return counts [true class, predicted class]; the last column, [:, classes], counts NO_ANSWER."""
    column = np.where(predicted == NO_ANSWER, classes, predicted)
    flat = np.bincount(truth * (classes + 1) + column, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1).astype(np.int64)


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Return the mean of the classes' F1 scores; a class with no photo and no answer counts as 0."""
    square = confusion[:, :-1]
    hits = np.diagonal(square)
    denominator = confusion.sum(axis=1) + square.sum(axis=0)
    f1 = np.divide(2 * hits, denominator, out=np.zeros(len(hits)), where=denominator > 0)
    return float(f1.mean())


def log_loss(truth: Classes, scores: Scores) -> float | None:
    """Return the mean negative log of the probability given to the truth, in nats; None if not all are finite."""
    if not np.isfinite(scores).all() or len(scores) == 0:
        return None
    smallest = np.finfo(np.float32).eps
    rows = np.clip(scores.astype(np.float64), smallest, 1.0)
    rows /= rows.sum(axis=1, keepdims=True)
    return float(-np.log(rows[np.arange(len(truth)), truth]).mean())


def calibration_error(truth: Classes, scores: Scores, *, bins: int = 15) -> float | None:
    """Return the expected calibration error, 0 to 1, over equal-width bins (Guo et al., ICML 2017).

    It is the mean distance between the best class's probability and how often it is right, each
    bin weighted by its photos. None if a score is not finite.
    """
    if not np.isfinite(scores).all() or len(scores) == 0:
        return None
    confidence = scores.max(axis=1).astype(np.float64)
    right = scores.argmax(axis=1) == truth
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    distance = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(distance).sum() / len(truth))
