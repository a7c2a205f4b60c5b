"""The figures of the report page as plain numbers, ready to be drawn: forest plot and confusion matrices.

Its place in the flow: report_page.py hands them to the template, which draws them as SVG and tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.report import ClassMeasurements, ModelMeasurements, Report

MAX_MATRIX_CLASSES = 20
"""More classes than this make no readable matrix; the most frequent confusions are listed instead."""


MAX_FOREST_ROWS = 60
"""More classes than this are shown by the worst two thirds of as many and the best third."""


@dataclass(frozen=True)
class ForestRow:
    """One class: its value with a 95 % interval, and their places (`_at`) in per cent of the plot's width."""

    measured: ClassMeasurements
    point: float
    low: float
    high: float
    point_at: float
    low_at: float
    high_at: float


@dataclass(frozen=True)
class ForestPlot:
    """The classes from worst to best on one axis from `start` to `end`.

    With a champion the values are gains of recall and the line stands at none; without one they are
    recalls and the line stands at the overall accuracy. `hidden` classes in the middle are left out.
    """

    rows: tuple[ForestRow, ...]
    start: float
    end: float
    line_at: float
    is_gain: bool
    hidden: int


@dataclass(frozen=True)
class Matrix:
    """Counts [true class, answered class]; `largest` is the greatest absolute count, at least 1."""

    title: str
    counts: NDArray[np.int64]
    is_difference: bool

    @property
    def largest(self) -> int:
        """What the darkest cell stands for."""
        return max(1, int(np.abs(self.counts).max()))


def forest_plot(report: Report) -> ForestPlot:
    """Return the classes' gains over the champion, or their recalls when there is none."""
    is_gain = report.paired is not None
    values = [_gain(row) if is_gain else _recall(row) for row in report.classes]
    reach = max([0.01, *(abs(edge) for value in values for edge in value)])
    start, end = (-reach, reach) if is_gain else (0.0, 1.0)

    def at(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    rows = (
        ForestRow(
            measured=measured,
            point=point,
            low=low,
            high=high,
            point_at=at(point),
            low_at=at(low),
            high_at=at(high),
        )
        for measured, (point, low, high) in zip(report.classes, values, strict=True)
    )
    line = 0.0 if is_gain else report.candidate_accuracy
    worst_first = sorted(rows, key=lambda row: row.point)
    hidden = max(0, len(worst_first) - MAX_FOREST_ROWS)
    if hidden:
        worst, best = 2 * MAX_FOREST_ROWS // 3, MAX_FOREST_ROWS // 3
        worst_first = worst_first[:worst] + worst_first[-best:]
    return ForestPlot(rows=tuple(worst_first), start=start, end=end, line_at=at(line), is_gain=is_gain, hidden=hidden)


def confusion_matrices(report: Report) -> tuple[Matrix, ...]:
    """Return the matrices to draw, the difference first; none when there are too many classes."""
    if len(report.labels) > MAX_MATRIX_CLASSES:
        return ()
    candidate = _answered(report.candidate)
    matrices = [Matrix(title="Candidate", counts=candidate, is_difference=False)]
    if report.champion is not None:
        champion = _answered(report.champion)
        matrices.append(Matrix(title="Champion", counts=champion, is_difference=False))
        difference = Matrix(title="Candidate minus champion", counts=candidate - champion, is_difference=True)
        matrices.insert(0, difference)
    return tuple(matrices)


def _answered(model: ModelMeasurements) -> NDArray[np.int64]:
    return np.array(model.confusion, dtype=np.int64)[:, :-1]


def _gain(row: ClassMeasurements) -> tuple[float, float, float]:
    assert row.paired is not None, "a report with a champion has paired counts for each class"
    assert row.gain_interval is not None, "and their interval"
    return (row.paired.gain, *row.gain_interval)


def _recall(row: ClassMeasurements) -> tuple[float, float, float]:
    return (row.candidate_right / row.n if row.n else 0.0, *row.recall_interval)
