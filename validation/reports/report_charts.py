"""The calibration and risk-coverage charts of the report page: lines in the units of an SVG, and tables.

Its place in the flow: report_page.py hands them to the template, which draws axes and words around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from validation.reports.report import ModelMeasurements, Report, RiskPoint

LEFT, TOP, SIZE = 40.0, 22.0, 250.0
"""The chart's square in the SVG's own units."""

_LINE_POINTS = 160
_NOTED_COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)
_TOPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_STEADY_COVERAGE = 0.1
"""Below this share of the photos the risk is of a handful of them, and does not set the scale."""


@dataclass(frozen=True)
class Mark:
    """A point of a line; `radius` grows with the photos that it stands for."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Line:
    """One model's line: `points` as an SVG polyline has them, and the marks on it."""

    model: str
    points: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines in the square, the axis' labels, and the figures as a table with its headings."""

    lines: tuple[Line, ...]
    top: float
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def calibration_chart(report: Report) -> Chart | None:
    """Return each bin's share of right answers over its mean score; None when nothing was measured."""
    models = _models(report)
    if not any(model.calibration for _, model in models):
        return None
    rows = tuple(
        (
            name,
            f"{bin_.low:.2f} – {bin_.high:.2f}",
            f"{bin_.n:,}",
            f"{bin_.confidence:.3f}",
            f"{bin_.accuracy:.3f}",
        )
        for name, model in models
        for bin_ in model.calibration
        if bin_.n
    )
    return Chart(
        lines=tuple(_calibration_line(name, model) for name, model in models if model.calibration),
        top=1.0,
        headings=("Model", "Scores", "Photos", "Mean score", "Right"),
        rows=rows,
    )


def risk_chart(report: Report) -> Chart | None:
    """Return the share of wrong answers among the surest photos; None when nothing was measured."""
    models = [(name, sorted(model.risk_coverage, key=lambda one: one.coverage)) for name, model in _models(report)]
    models = [(name, curve) for name, curve in models if curve]
    if not models:
        return None
    steady = [one.risk for _, curve in models for one in curve if one.coverage >= _STEADY_COVERAGE]
    top = next((top for top in _TOPS if top >= max(steady, default=1.0)), 1.0)
    rows = tuple(
        (f"{coverage:.0%}", *(f"{_risk_at(curve, coverage):.2%}" for _, curve in models))
        for coverage in _NOTED_COVERAGES
    )
    return Chart(
        lines=tuple(
            Line(model=name, points=_points([(one.coverage, one.risk / top) for one in _thinned(curve)]))
            for name, curve in models
        ),
        top=top,
        headings=("Surest photos", *(f"{name} wrong" for name, _ in models)),
        rows=rows,
    )


def _models(report: Report) -> list[tuple[str, ModelMeasurements]]:
    models = [("Candidate", report.candidate)]
    return models if report.champion is None else [*models, ("Champion", report.champion)]


def _calibration_line(name: str, model: ModelMeasurements) -> Line:
    bins = [bin_ for bin_ in model.calibration if bin_.n]
    total = sum(bin_.n for bin_ in bins)
    return Line(
        model=name,
        points=_points([(bin_.confidence, bin_.accuracy) for bin_ in bins]),
        marks=tuple(
            Mark(
                x=_x(bin_.confidence),
                y=_y(bin_.accuracy),
                radius=round(2.0 + 6.0 * float((bin_.n / total) ** 0.5), 1),
            )
            for bin_ in bins
        ),
    )


def _risk_at(curve: Sequence[RiskPoint], coverage: float) -> float:
    """Return the risk at the first point that covers so much."""
    return next((one.risk for one in curve if one.coverage >= coverage - 1e-9), curve[-1].risk)


def _thinned(curve: Sequence[RiskPoint]) -> Sequence[RiskPoint]:
    step = -(-len(curve) // _LINE_POINTS)
    return curve if step <= 1 else [*curve[:-1:step], curve[-1]]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(x):g},{_y(y):g}" for x, y in places)


def _x(share: float) -> float:
    return round(LEFT + SIZE * share, 1)


def _y(share: float) -> float:
    return round(TOP + SIZE * (1 - min(share, 1.0)), 1)
