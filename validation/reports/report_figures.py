"""The forest plots of the report page as plain numbers: classes, slices and metrics with their intervals.

Its place in the flow: report_page.py hands them to the template, which draws each row as a small SVG
in a table. Places (`_at`) are in per cent of the plot's width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from validation.checks.policy import Policy
from validation.checks.verdict import Outcome, Verdict
from validation.reports.report import ClassMeasurements, Report, SliceMeasurements

MAX_FOREST_ROWS = 60
"""More classes than this are shown by the worst two thirds of as many and the best third."""

MAX_SLICE_COLUMNS = 12
MAX_SLICE_ROWS = 20
"""More values of one slice column than this are shown by the worst ones."""

_REACHES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_STARTS = (0.9, 0.8, 0.5, 0.0)
_USUAL = 80
"""Per cent of the rows whose intervals fit into the plot; wider ones end in an arrow, so that others are readable."""


@dataclass(frozen=True)
class ForestRow:
    """One class or slice: its value with a 95 % interval, and their places in the plot.

    `is_cut_low` and `is_cut_high` say that the interval goes on beyond the plot. `judged` is what the
    verdict says of this class alone, where it says something.
    """

    name: str
    n: int
    right: int
    fixed: int | None
    broken: int | None
    point: float
    low: float
    high: float
    floor: float | None = None
    judged: Outcome | None = None
    point_at: float = 0.0
    low_at: float = 0.0
    high_at: float = 0.0
    floor_at: float | None = None
    is_cut_low: bool = False
    is_cut_high: bool = False

    @property
    def share(self) -> float:
        """The candidate's share of right answers, 0 where there are no photos."""
        return self.right / self.n if self.n else 0.0


@dataclass(frozen=True)
class ForestPlot:
    """Rows from worst to best on one axis from `start` to `end`.

    With a champion the values are gains and the line stands at none; without one they are shares of
    right answers and the line stands at the accuracy over all photos. `margin` is the loss that the
    policy accepts, `floor` what it demands of every row alike. `hidden` rows are left out, and
    so are those of `unseen`, the names without a photo.
    """

    title: str
    rows: tuple[ForestRow, ...]
    start: float
    end: float
    line_at: float
    is_gain: bool
    hidden: int
    margin: float | None = None
    margin_at: float | None = None
    floor: float | None = None
    unseen: tuple[str, ...] = ()


def class_forest(report: Report, *, policy: Policy, verdict: Verdict) -> ForestPlot:
    """Return the classes' gains of recall over the champion, or their recalls when there is none."""
    rule = policy.per_class
    judged = _worst_outcomes((reason.label, reason.outcome) for reason in verdict.reasons)
    rows = [
        replace(
            _row(measured.label, measured, measured.recall_interval),
            floor=None if rule is None else rule.floor_of(measured.label),
            judged=judged.get(measured.label),
        )
        for measured in report.classes
    ]
    seen = shown = _worst_first(rows)
    if len(shown) > MAX_FOREST_ROWS:
        shown = shown[: 2 * MAX_FOREST_ROWS // 3] + shown[-(MAX_FOREST_ROWS // 3) :]
    plot = _plot(
        "class", shown, report=report, margin=None if rule is None else rule.margin, hidden=len(seen) - len(shown)
    )
    return replace(plot, unseen=tuple(row.name for row in rows if not row.n))


def slice_forests(report: Report, *, policy: Policy, verdict: Verdict) -> tuple[ForestPlot, ...]:
    """Return one plot for each slice column, in the report's order."""
    margin, floor = (
        (None, None) if policy.per_slice is None else (policy.per_slice.margin, policy.per_slice.accuracy_floor)
    )
    judged = _worst_outcomes((reason.slice, reason.outcome) for reason in verdict.reasons)
    columns: dict[str, list[ForestRow]] = {}
    for measured in report.slices:
        row = _row(measured.value, measured, measured.accuracy_interval)
        said = judged.get(f"{measured.column} = {measured.value}")
        columns.setdefault(measured.column, []).append(replace(row, floor=floor, judged=said))
    return tuple(
        _plot(
            column,
            _worst_first(rows)[:MAX_SLICE_ROWS],
            report=report,
            margin=margin,
            hidden=max(0, len([row for row in rows if row.n]) - MAX_SLICE_ROWS),
        )
        for column, rows in list(columns.items())[:MAX_SLICE_COLUMNS]
    )


def _worst_outcomes(said: Iterable[tuple[str | None, Outcome]]) -> Mapping[str, Outcome]:
    """Return the worst of what the reasons about each single class or slice say."""
    order: tuple[Outcome, ...] = ("better", "cannot tell", "not better")
    worst: dict[str, Outcome] = {}
    for name, outcome in said:
        if name is not None:
            worst[name] = max(worst.get(name, "better"), outcome, key=order.index)
    return worst


def _row(name: str, measured: ClassMeasurements | SliceMeasurements, interval: tuple[float, float]) -> ForestRow:
    n, right, paired = measured.n, measured.candidate_right, measured.paired
    if paired is None or measured.gain_interval is None:
        point, (low, high) = right / n if n else 0.0, interval
    else:
        point, (low, high) = paired.gain, measured.gain_interval
    return ForestRow(
        name=name,
        n=n,
        right=right,
        fixed=None if paired is None else paired.candidate_only,
        broken=None if paired is None else paired.champion_only,
        point=point,
        low=low,
        high=high,
    )


def _worst_first(rows: Sequence[ForestRow]) -> list[ForestRow]:
    """Return the rows that have photos by value; of equal ones first those whose interval is less favourable."""
    return sorted((row for row in rows if row.n), key=lambda row: (row.point, row.high, row.name))


def _plot(title: str, rows: Sequence[ForestRow], *, report: Report, margin: float | None, hidden: int) -> ForestPlot:
    is_gain = report.paired is not None
    if is_gain:
        extents = [max(abs(row.low), abs(row.high)) for row in rows] or [1.0]
        usual = max(float(np.percentile(extents, _USUAL)), 1.5 * (margin or 0.0))
        end = next((reach for reach in _REACHES if reach >= usual), 1.0)
        start, line = -end, 0.0
    else:
        usual = float(np.percentile([row.low for row in rows] or [0.0], 100 - _USUAL))
        usual = min([usual, report.candidate_accuracy, *(row.floor for row in rows if row.floor is not None)])
        start, end, line = next((start for start in _STARTS if start <= usual), 0.0), 1.0, report.candidate_accuracy

    def at(value: float) -> float:
        return round(100 * (min(max(value, start), end) - start) / (end - start), 2)

    return ForestPlot(
        title=title,
        rows=tuple(
            replace(
                row,
                point_at=at(row.point),
                low_at=at(row.low),
                high_at=at(row.high),
                floor_at=None if is_gain or row.floor is None else at(row.floor),
                is_cut_low=row.low < start,
                is_cut_high=row.high > end,
            )
            for row in rows
        ),
        start=start,
        end=end,
        line_at=at(line),
        is_gain=is_gain,
        hidden=hidden,
        margin=margin if is_gain else None,
        margin_at=at(-margin) if is_gain and margin is not None else None,
        floor=rows[0].floor if len({row.floor for row in rows}) == 1 else None,
    )
