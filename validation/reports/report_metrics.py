"""The metrics of both models as rows of one table: values, gain with its interval, and what the policy demands.

Its place in the flow: report_page.py hands the rows to the template. Accuracy comes from the paired
counts, the others from the report's comparisons; what was measured but not compared has no interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from validation.checks.policy import MetricRule, Policy
from validation.reports.report import Interval, MetricComparison, Report
from validation.reports.report_text import percent

_NAMES = {
    "macro_f1": "Macro F1",
    "balanced_accuracy": "Balanced accuracy",
    "top_k_accuracy": "Top-{k} accuracy",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
    "mean_cost": "Mean cost of an answer",
}
_LESS_IS_BETTER = frozenset({"log_loss", "calibration_error", "mean_cost"})


@dataclass(frozen=True)
class MetricRow:
    """One metric; gain and interval are positive where the candidate is better, whatever the direction.

    The places (`_at`) are in per cent of the row's own plot, whose middle is "no difference".
    """

    name: str
    less_is_better: bool
    candidate: float | None
    champion: float | None
    gain: float | None
    interval: Interval | None
    demand: str
    point_at: float = 50.0
    low_at: float = 50.0
    high_at: float = 50.0


def metric_rows(report: Report, *, policy: Policy) -> tuple[MetricRow, ...]:
    """Return accuracy, then the compared metrics, then those that were only measured."""
    compared = {metric.name: metric for metric in report.metrics}
    names = [*compared, *(name for name in _NAMES if name not in compared)]
    rows = (_metric(name, compared.get(name), report=report, policy=policy) for name in names)
    return (_accuracy(report, policy), *(row for row in rows if row.candidate is not None or row.champion is not None))


def _accuracy(report: Report, policy: Policy) -> MetricRow:
    rule, interval = policy.accuracy, report.gain_interval
    demands: list[str] = []
    if report.paired is not None:
        margin = rule.margin
        demands.append("better than the champion" if margin is None else f"at most {100 * margin:g} points worse")
    if rule.floor is not None:
        demands.append(f"at least {percent(rule.floor)}")
    return _placed(
        MetricRow(
            name="Accuracy",
            less_is_better=False,
            candidate=report.candidate_accuracy,
            champion=report.champion_accuracy,
            gain=None if report.paired is None else report.paired.gain,
            interval=interval,
            demand=", ".join(demands),
        )
    )


def _metric(name: str, compared: MetricComparison | None, *, report: Report, policy: Policy) -> MetricRow:
    candidate = getattr(report.candidate, name, None) if compared is None else compared.candidate
    champion = getattr(report.champion, name, None) if compared is None else compared.champion
    rules = [rule for rule in policy.metrics if rule.name == name]
    return _placed(
        MetricRow(
            name=_NAMES.get(name, name).format(k=policy.top_k),
            less_is_better=name in _LESS_IS_BETTER,
            candidate=candidate,
            champion=champion,
            gain=None if compared is None else compared.gain,
            interval=None if compared is None else compared.interval,
            demand=", ".join(demand for rule in rules for demand in _demands(rule, has_champion=champion is not None)),
        )
    )


def _demands(rule: MetricRule, *, has_champion: bool) -> Iterator[str]:
    if has_champion:
        yield "better than the champion" if rule.margin is None else f"at most {rule.margin:g} worse"
    if rule.floor is not None:
        yield f"at {'most' if rule.name in _LESS_IS_BETTER else 'least'} {rule.floor:g}"


def _placed(row: MetricRow) -> MetricRow:
    """Return the row with its places; each metric has a unit of its own, and so a scale of its own."""
    if row.gain is None or row.interval is None:
        return row
    reach = 1.15 * max(abs(row.gain), *(abs(edge) for edge in row.interval)) or 1.0
    point_at, low_at, high_at = (round(50 + 50 * value / reach, 2) for value in (row.gain, *row.interval))
    return replace(row, point_at=point_at, low_at=low_at, high_at=high_at)
