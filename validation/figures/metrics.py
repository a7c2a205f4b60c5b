"""What a table of scores is worth: accuracy's companions, computed from one model's answers.

Its place in the flow: report.py shows these figures, metric_comparison.py tests their differences.
A photo whose scores are not all finite counts as answered wrongly everywhere, and as wrongly as can
be where the scores themselves are judged: the greatest loss, a wrong answer with full confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import RefusedError
from validation.checks.policy import CostRule, MetricName

Scores = NDArray[np.float32]
Classes = NDArray[np.int64]
Costs = NDArray[np.float64]
Floats = NDArray[np.float64]

NO_ANSWER = -1
"""The predicted class of a photo whose scores are not finite."""

LESS_IS_BETTER: frozenset[MetricName] = frozenset({"log_loss", "calibration_error", "mean_cost"})

CALIBRATION_BINS = 15
_SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
GREATEST_LOSS = float(-np.log(_SMALLEST_PROBABILITY))
"""The log loss, in nats, of giving the truth no probability that float32 can tell from none: 15.9."""


def predicted_classes(scores: Scores) -> Classes:
    """Return the best class of each row of `scores` [n, classes], NO_ANSWER where a score is not finite."""
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, np.argmax(np.nan_to_num(scores), axis=1), NO_ANSWER).astype(np.int64)


def best_scores(scores: Scores) -> Floats:
    """Return the greatest score of each row, 0 to 1; 1 where a score is not finite."""
    finite = np.isfinite(scores).all(axis=1)
    return np.where(finite, np.clip(np.nan_to_num(scores).max(axis=1), 0.0, 1.0), 1.0).astype(np.float64)


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


def balanced_accuracy(confusion: NDArray[np.int64]) -> float:
    """Return the mean recall of the classes that have a photo; 0 if none has."""
    photos = confusion.sum(axis=1)
    seen = photos > 0
    recalls = np.diagonal(confusion)[seen] / photos[seen]
    return float(recalls.mean()) if len(recalls) else 0.0


def log_losses(truth: Classes, scores: Scores) -> Floats:
    """Return for each photo the negative log of the probability given to the truth, in nats, 0 to GREATEST_LOSS."""
    rows = np.clip(np.nan_to_num(scores.astype(np.float64)), 0.0, 1.0)
    total = rows.sum(axis=1)
    share = np.divide(rows[np.arange(len(truth)), truth], total, out=np.zeros(len(truth)), where=total > 0)
    share[~np.isfinite(scores).all(axis=1)] = 0.0
    losses: Floats = np.log(1 / np.clip(share, _SMALLEST_PROBABILITY, 1.0))
    return losses


def log_loss(truth: Classes, scores: Scores) -> float | None:
    """Return the mean of `log_losses`; None for no photos."""
    return float(log_losses(truth, scores).mean()) if len(truth) else None


def calibration_gaps(
    truth: Classes, scores: Scores, *, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.int64], Floats]:
    """Return each photo's bin of equal width by its best score, and that score minus 1 if right, minus 0 if wrong."""
    confidence = best_scores(scores)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return bin_of, confidence - (predicted_classes(scores) == truth)


def calibration_error(truth: Classes, scores: Scores, *, bins: int = CALIBRATION_BINS) -> float | None:
    """Return the expected calibration error, 0 to 1, over equal-width bins (Guo et al., ICML 2017).

    It is the mean distance between the best class's probability and how often it is right, each
    bin weighted by its photos. None for no photos.
    """
    if len(truth) == 0:
        return None
    bin_of, gap = calibration_gaps(truth, scores, bins=bins)
    return float(np.abs(np.bincount(bin_of, weights=gap, minlength=bins)).sum() / len(truth))


def held_out_gaps(truth: Classes, scores: Scores) -> Floats:
    """Return gaps whose mean does not lie over the true calibration error, as that of few photos does.

    Whether a bin's scores are too high or too low is taken from every other photo and applied to the
    rest, and the other way round; so a bin that is calibrated comes out as 0, not as its noise.
    """
    bin_of, gap = calibration_gaps(truth, scores)
    half = np.arange(len(truth)) % 2
    sums = np.bincount(bin_of + half * CALIBRATION_BINS, weights=gap, minlength=2 * CALIBRATION_BINS)
    signs = np.sign(sums).reshape(2, CALIBRATION_BINS)
    held_out: Floats = signs[1 - half, bin_of] * gap
    return held_out


def top_k_hits(truth: Classes, scores: Scores, *, top_k: int) -> NDArray[np.bool_]:
    """Return which photos have the truth among the `top_k` best classes; of equal scores, the earlier class first."""
    clean = np.nan_to_num(scores)
    own = clean[np.arange(len(truth)), truth][:, np.newaxis]
    earlier = np.arange(scores.shape[1])[np.newaxis, :] < truth[:, np.newaxis]
    ahead = (clean > own).sum(axis=1) + ((clean == own) & earlier).sum(axis=1)
    hits: NDArray[np.bool_] = np.isfinite(scores).all(axis=1) & (ahead < top_k)
    return hits


def cost_matrix(rule: CostRule | None, labels: Sequence[str]) -> Costs:
    """Return what each answer costs, float64 [true class, answered class]; without a rule a wrong answer costs 1.

    Raises:
        RefusedError: the rule names a label that there is not.
    """
    rule = rule or CostRule()
    matrix = np.full((len(labels), len(labels)), rule.wrong, dtype=np.float64)
    np.fill_diagonal(matrix, 0.0)
    index = {label: position for position, label in enumerate(labels)}
    for true, answers in rule.pairs.items():
        for answered, cost in answers.items():
            strangers = sorted({true, answered} - set(index))
            if strangers:
                raise RefusedError(
                    f"Validation refused: the policy sets costs for {', '.join(strangers)}, and the labels are "
                    f"{', '.join(labels)}. Correct costs.pairs in the policy."
                )
            matrix[index[true], index[answered]] = cost
    return matrix


def answer_costs(truth: Classes, predicted: Classes, *, costs: Costs) -> Floats:
    """Return what each answer costs; no answer costs as much as the worst one to that photo."""
    worst = costs.max(axis=1)[truth]
    return np.where(predicted == NO_ANSWER, worst, costs[truth, predicted])


def metric_value(
    name: MetricName, truth: Classes, scores: Scores, *, top_k: int, costs: Costs | None = None
) -> float | None:
    """Return one metric of one model's answers; None for no photos.

    Args:
        name: the metric.
        truth: the index of each photo's label.
        scores: float32 [n, classes].
        top_k: for "top_k_accuracy", how many answers count.
        costs: for "mean_cost", of `cost_matrix`; None lets a wrong answer cost 1.
    """
    if len(truth) == 0:
        return None
    predicted = predicted_classes(scores)
    if name in {"macro_f1", "balanced_accuracy"}:
        confusion = confusion_matrix(truth, predicted, classes=scores.shape[1])
        return macro_f1(confusion) if name == "macro_f1" else balanced_accuracy(confusion)
    if name == "log_loss":
        return log_loss(truth, scores)
    if name == "calibration_error":
        return calibration_error(truth, scores)
    if name == "top_k_accuracy":
        return float(top_k_hits(truth, scores, top_k=top_k).mean())
    matrix = cost_matrix(None, [str(index) for index in range(scores.shape[1])]) if costs is None else costs
    return float(answer_costs(truth, predicted, costs=matrix).mean())
