"""Each metric as a function of sums over photos, so that a photo can be counted twice, not at all, or newly.

Its place in the flow: metric_comparison.py builds these from both models' answers; bootstrap.py and
bounded_mean.py ask what the figure would be on other draws of the same photos. Photos that the
figure cannot tell apart share one row, so that ten thousand of them are often a handful of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from validation.checks.policy import MetricName
from validation.figures.metrics import (
    CALIBRATION_BINS,
    GREATEST_LOSS,
    NO_ANSWER,
    Classes,
    Costs,
    Floats,
    Scores,
    answer_costs,
    calibration_gaps,
    confusion_matrix,
    held_out_gaps,
    log_losses,
    predicted_classes,
    top_k_hits,
)

Side = Literal["lower", "upper"]

_DENSE_CELLS = 4_000_000
"""At most so many sums are held at once (32 MB)."""


@dataclass(frozen=True)
class SummedFigure:
    """A figure of weighted photos: `figure` turns sums of `rows` [b, columns] into values [b].

    Attributes:
        rows: what each kind of photo adds to the sums, [kinds, columns].
        counts: how many photos are of each kind, int64 [kinds].
        extremes: what photos that were not drawn could add, among them those that move the figure most.
        figure: from sums to values; it depends on their proportions only.
    """

    rows: sparse.csr_array
    counts: NDArray[np.int64]
    extremes: sparse.csr_array
    figure: Callable[[Floats], Floats]

    @property
    def photos(self) -> int:
        """How many photos there are."""
        return int(self.counts.sum())

    @property
    def value(self) -> float:
        """The figure of the photos as they are."""
        return float(self.at(self.counts[np.newaxis])[0])

    def at(self, weights: NDArray[np.int64]) -> Floats:
        """Return the figure for each row of `weights` [b, kinds]."""
        step = max(1, _DENSE_CELLS // self.rows.shape[1])
        transposed = self.rows.T.tocsr()
        parts = [self.figure((transposed @ part.T).T) for part in _batches(weights, step)]
        return np.concatenate(parts)

    def moved(self, rows: sparse.csr_array, *, sign: int) -> Floats:
        """Return the figure with one photo more (`sign` 1) or fewer (-1), for each row of `rows`."""
        sums = np.asarray(self.rows.T @ self.counts, dtype=np.float64)
        step = max(1, _DENSE_CELLS // rows.shape[1])
        parts = [
            self.figure(sums + sign * rows[start : start + step].toarray()) for start in range(0, rows.shape[0], step)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Part:
    """One model's half: a row for each photo, and possible other photos with the case that each belongs to.

    A case is what the models share of a photo, such as its true class.
    """

    rows: sparse.csr_array
    extremes: sparse.csr_array
    cases: NDArray[np.int64]
    figure: Callable[[Floats], Floats]


def summed_value(
    name: MetricName, truth: Classes, scores: Scores, *, top_k: int, costs: Costs, side: Side | None = None
) -> SummedFigure:
    """Return one model's metric, or what bounds it on one `side`: see `summed_gain`."""
    part = _part(name, truth, scores, top_k=top_k, costs=costs, is_held_out=side == "lower")
    return _of_kinds(part.rows, extremes=part.extremes, figure=part.figure)


def summed_gain(
    name: MetricName,
    truth: Classes,
    *,
    candidate: Scores,
    champion: Scores,
    sign: int,
    top_k: int,
    costs: Costs,
    side: Side | None = None,
) -> SummedFigure:
    """Return `sign` times the candidate's metric minus the champion's, on the same photos.

    The calibration error of few photos is too high, the more so the better a model is calibrated. For
    the `side` "lower" the champion's is therefore one that is not, and for "upper" the candidate's.
    """
    ours = _part(name, truth, candidate, top_k=top_k, costs=costs, is_held_out=side == "upper")
    theirs = _part(name, truth, champion, top_k=top_k, costs=costs, is_held_out=side == "lower")
    mine, other = np.nonzero(ours.cases[:, np.newaxis] == theirs.cases[np.newaxis, :])
    columns = ours.rows.shape[1]

    def gain(sums: Floats) -> Floats:
        return sign * (ours.figure(sums[:, :columns]) - theirs.figure(sums[:, columns:]))

    return _of_kinds(
        sparse.hstack([ours.rows, theirs.rows], format="csr"),
        extremes=sparse.hstack([ours.extremes[mine], theirs.extremes[other]], format="csr"),
        figure=gain,
    )


def _of_kinds(
    rows: sparse.csr_array, *, extremes: sparse.csr_array, figure: Callable[[Floats], Floats]
) -> SummedFigure:
    """Put photos with the same row together, in the order of their first appearance."""
    rows.sort_indices()
    kinds: dict[bytes, int] = {}
    kind_of = np.empty(rows.shape[0], dtype=np.int64)
    for photo in range(rows.shape[0]):
        part = slice(rows.indptr[photo], rows.indptr[photo + 1])
        key = rows.indices[part].tobytes() + rows.data[part].tobytes()
        kind_of[photo] = kinds.setdefault(key, len(kinds))
    _, first = np.unique(kind_of, return_index=True)
    return SummedFigure(rows=rows[first], counts=np.bincount(kind_of), extremes=extremes, figure=figure)


def _part(name: MetricName, truth: Classes, scores: Scores, *, top_k: int, costs: Costs, is_held_out: bool) -> _Part:
    match name:
        case "macro_f1":
            return _macro_f1(truth, predicted_classes(scores), classes=scores.shape[1])
        case "balanced_accuracy":
            return _balanced_accuracy(truth, predicted_classes(scores), classes=scores.shape[1])
        case "calibration_error":
            return _calibration_error(truth, scores, is_held_out=is_held_out)
        case "log_loss":
            return _mean(log_losses(truth, scores), span=(0.0, GREATEST_LOSS))
        case "top_k_accuracy":
            return _mean(top_k_hits(truth, scores, top_k=top_k).astype(np.float64), span=(0.0, 1.0))
        case "mean_cost":
            paid = answer_costs(truth, predicted_classes(scores), costs=costs)
            return _mean(paid, span=(0.0, float(costs.max())))


def _mean(values: Floats, *, span: tuple[float, float]) -> _Part:
    """Columns: the value, and 1."""
    extremes = np.array([[value, 1.0] for value in span])
    return _Part(
        rows=sparse.csr_array(np.column_stack([values, np.ones(len(values))])),
        extremes=sparse.csr_array(extremes),
        cases=np.zeros(2, dtype=np.int64),
        figure=lambda sums: sums[:, 0] / sums[:, 1],
    )


def _calibration_error(truth: Classes, scores: Scores, *, is_held_out: bool) -> _Part:
    """Columns: the gaps of each bin, and 1. An extreme photo is wrong or right at either edge of some bin."""
    if is_held_out:
        return _mean(held_out_gaps(truth, scores), span=(-1.0, 1.0))
    bin_of, gap = calibration_gaps(truth, scores)
    bins = CALIBRATION_BINS
    wrong, right = (np.arange(bins) + 1) / bins, np.arange(bins) / bins - 1
    edges, edge_bins = np.concatenate([wrong, right]), np.tile(np.arange(bins), 2)
    return _Part(
        rows=_placed(len(truth), bins + 1, [(bin_of, gap), (bins, 1.0)]),
        extremes=_placed(2 * bins, bins + 1, [(edge_bins, edges), (bins, 1.0)]),
        cases=np.zeros(2 * bins, dtype=np.int64),
        figure=lambda sums: np.abs(sums[:, :bins]).sum(axis=1) / sums[:, bins],
    )


def _balanced_accuracy(truth: Classes, predicted: Classes, *, classes: int) -> _Part:
    """Columns: photos of each class, right answers of each class."""

    def figure(sums: Floats) -> Floats:
        photos, right = sums[:, :classes], sums[:, classes:]
        recall = np.divide(right, photos, out=np.zeros_like(right), where=photos > 0)
        mean: Floats = recall.sum(axis=1) / np.maximum((photos > 0).sum(axis=1), 1)
        return mean

    seen = np.unique(truth)
    cases, is_right = np.repeat(seen, 2), np.tile([1.0, 0.0], len(seen))
    return _Part(
        rows=_placed(
            len(truth), 2 * classes, [(truth, 1.0), (classes + truth, (predicted == truth).astype(np.float64))]
        ),
        extremes=_placed(len(cases), 2 * classes, [(cases, 1.0), (classes + cases, is_right)]),
        cases=cases,
        figure=figure,
    )


def _macro_f1(truth: Classes, predicted: Classes, *, classes: int) -> _Part:
    """Columns: photos of each class, answers of each class, right answers of each class."""

    def figure(sums: Floats) -> Floats:
        both = sums[:, :classes] + sums[:, classes : 2 * classes]
        f1 = np.divide(2 * sums[:, 2 * classes :], both, out=np.zeros_like(both), where=both > 0)
        mean: Floats = f1.mean(axis=1)
        return mean

    def rows(of: Classes, answers: Classes) -> sparse.csr_array:
        answered = (answers != NO_ANSWER).astype(np.float64)
        right = (answers == of).astype(np.float64)
        columns = np.where(answers == NO_ANSWER, 0, answers)
        return _placed(len(of), 3 * classes, [(of, 1.0), (classes + columns, answered), (2 * classes + of, right)])

    seen = np.unique(truth)
    fragile = _most_fragile(confusion_matrix(truth, predicted, classes=classes))
    wrong = np.where(seen == fragile[0], fragile[1], fragile[0])
    cases = np.concatenate([seen, seen])
    return _Part(
        rows=rows(truth, predicted),
        extremes=rows(cases, np.concatenate([seen, wrong])),
        cases=cases,
        figure=figure,
    )


def _most_fragile(confusion: NDArray[np.int64]) -> tuple[int, int]:
    """Return the two classes whose F1 falls most by one wrong answer more."""
    answers = confusion[:, :-1].sum(axis=0) + confusion.sum(axis=1)
    fall = 2 * np.diagonal(confusion) / np.maximum(answers, 1) / np.maximum(answers + 1, 1)
    order = np.argsort(-fall, kind="stable")
    return int(order[0]), int(order[1])


def _placed(photos: int, width: int, entries: list[tuple[NDArray[np.int64] | int, Floats | float]]) -> sparse.csr_array:
    """Return [photos, width] with the given (column, value) pairs in each row, zeros left out."""
    rows = np.tile(np.arange(photos), len(entries))
    columns = np.concatenate([np.broadcast_to(np.asarray(column), (photos,)) for column, _ in entries])
    values = np.concatenate([np.broadcast_to(np.asarray(value, dtype=np.float64), (photos,)) for _, value in entries])
    matrix = sparse.csr_array((values, (rows, columns)), shape=(photos, width))
    matrix.eliminate_zeros()
    return matrix


def _batches(weights: NDArray[np.int64], step: int) -> list[NDArray[np.int64]]:
    return [weights[start : start + step] for start in range(0, len(weights), step)]
