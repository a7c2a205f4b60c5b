"""Are the candidate's columns named in the wrong order?

Its place in the flow: the gate tells the trainer, since a model that learned well and is read wrongly
is repaired by one line; the report shows the order that fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from validation.answers import Answers
from validation.figures.metrics import confusion_matrix, predicted_classes
from validation.reports.report import LabelOrder

_LEVEL = 1e-3
"""The accepted probability of calling the order of a model wrong by chance, over all orders together."""
_TIMES_BETTER = 2
"""A truly swapped pair reads far better the other way round; a model that only mixes two classes up does not."""


def label_order(answers: Answers, *, columns: Sequence[str] | None = None) -> LabelOrder | None:
    """Return the reading of the candidate's columns that fits the labels clearly better, None if there is none.

    The best of all readings (linear sum assignment) is taken apart into cycles of exchanged names. A
    cycle counts if it makes twice as many answers right as it finds, and if an exact sign test of the answers
    that it changes stays under one in a thousand when multiplied by the number of cycles possible.

    Args:
        answers: the candidate's, columns in the holdout's order.
        columns: the names that the model gives its columns, in its own order; None for the holdout's.
    """
    classes = len(answers.labels)
    confusion = confusion_matrix(answers.truth, predicted_classes(answers.candidate), classes=classes)[:, :classes]
    truths, answered = optimize.linear_sum_assignment(confusion, maximize=True)
    best = np.empty(classes, dtype=np.int64)
    best[answered] = truths
    reading = np.arange(classes)
    for cycle in _cycles(best):
        if _is_clear(confusion, cycle, meaning=best):
            reading[cycle] = best[cycle]
    if (reading == np.arange(classes)).all():
        return None
    names = dict(zip(answers.labels, (answers.labels[index] for index in reading), strict=True))
    right = int(confusion[reading, np.arange(classes)].sum())
    return LabelOrder(
        labels=tuple(names[column] for column in (answers.labels if columns is None else columns)),
        accuracy=right / len(answers),
    )


def _cycles(permutation: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions that each cycle of two or more moves."""
    left, cycles = set(np.flatnonzero(permutation != np.arange(len(permutation))).tolist()), []
    while left:
        cycle = [min(left)]
        while (following := int(permutation[cycle[-1]])) != cycle[0]:
            cycle.append(following)
        left.difference_update(cycle)
        cycles.append(np.array(cycle, dtype=np.int64))
    return cycles


def _is_clear(confusion: NDArray[np.int64], cycle: NDArray[np.int64], *, meaning: NDArray[np.int64]) -> bool:
    stated = int(confusion[cycle, cycle].sum())
    read = int(confusion[meaning[cycle], cycle].sum())
    if read < _TIMES_BETTER * max(stated, 1):
        return False
    log_chance = float(stats.binom.logsf(read - 1, read + stated, 0.5))
    return log_chance + _log_cycles(len(confusion), moved=len(cycle)) <= math.log(_LEVEL)


def _log_cycles(classes: int, *, moved: int) -> float:
    """Return the log of how many cycles move so many of the classes, times how many lengths there are."""
    arrangements = special.gammaln(classes + 1) - special.gammaln(classes - moved + 1) - math.log(moved)
    return float(arrangements + math.log(max(classes - 1, 1)))
