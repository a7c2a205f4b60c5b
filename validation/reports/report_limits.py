"""What the candidate costs the serving hosts, as bars against the policy's limits.

Its place in the flow: report_page.py hands the rows to the template. A limit that the policy does
not set has no line, and its figures are shown all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from validation.checks.policy import Policy
from validation.reports.report import ModelMeasurements, Report
from validation.reports.report_text import bytes_text, percent

_Quantity = tuple[str, Callable[[float], str], Callable[[ModelMeasurements], float], float | None]
"""A quantity's name, how it is written, where it is measured, and its limit."""

_ROOM = 1.12
"""The axis ends this much beyond the longest bar or line, so that what exceeds a limit is seen to."""


@dataclass(frozen=True)
class Bar:
    """One model's figure: as text, and as a length in per cent of the plot's width."""

    model: str
    text: str
    length: float


@dataclass(frozen=True)
class LimitRow:
    """One quantity; `holds` is whether the candidate keeps the limit, None where there is none."""

    name: str
    bars: tuple[Bar, ...]
    limit: str | None
    limit_at: float | None
    holds: bool | None


def limit_rows(report: Report, *, policy: Policy) -> tuple[LimitRow, ...]:
    """Return size, loading, memory, latencies and unanswered photos, each against its limit."""
    quantities: tuple[_Quantity, ...] = (
        ("Size", bytes_text, lambda model: model.size_bytes, policy.limits.size_bytes),
        ("Time to load", _seconds, lambda model: model.load_seconds, policy.limits.load_seconds),
        ("One photo, half within", _milliseconds, lambda model: model.latency_ms.p50, policy.limits.latency_p50_ms),
        ("One photo, 95% within", _milliseconds, lambda model: model.latency_ms.p95, policy.limits.latency_p95_ms),
        ("One photo, 99% within", _milliseconds, lambda model: model.latency_ms.p99, policy.limits.latency_p99_ms),
    )
    champion = report.champion
    rows = [
        _row(name, form, measured(report.candidate), None if champion is None else measured(champion), limit)
        for name, form, measured, limit in quantities
    ]
    return (*rows[:2], *_memory(report, policy), *rows[2:], *_ratio(report, policy), _unanswered(report, policy))


def _ratio(report: Report, policy: Policy) -> Iterator[LimitRow]:
    limit = policy.limits.latency_p95_ratio
    if limit is not None and report.champion is not None and report.champion.latency_ms.p95 > 0:
        ratio = report.candidate.latency_ms.p95 / report.champion.latency_ms.p95
        yield _row("95% time against the champion's", _times, ratio, None, limit)


def _unanswered(report: Report, policy: Policy) -> LimitRow:
    champion = None if report.champion is None else report.champion.non_finite_photos / report.photos
    share, limit = report.candidate.non_finite_photos / report.photos, policy.limits.maximum_nan_share
    return _row("Photos without a finite answer", lambda part: percent(part, 2), share, champion, limit)


def _memory(report: Report, policy: Policy) -> Iterator[LimitRow]:
    if report.memory_bytes is not None:
        row = _row("Memory of the server", bytes_text, report.memory_bytes, None, policy.limits.memory_bytes)
        holder = "Candidate alone" if report.champion is None else "Both models"
        yield replace(row, bars=(replace(row.bars[0], model=holder),))


def _row(
    name: str, form: Callable[[float], str], candidate: float, champion: float | None, limit: float | None
) -> LimitRow:
    end = _ROOM * max(candidate, champion or 0.0, limit or 0.0) or 1.0

    def at(value: float) -> float:
        return round(100 * value / end, 2)

    bars = [Bar("Candidate", form(candidate), at(candidate))]
    if champion is not None:
        bars.append(Bar("Champion", form(champion), at(champion)))
    return LimitRow(
        name=name,
        bars=tuple(bars),
        limit=None if limit is None else form(limit),
        limit_at=None if limit is None else at(limit),
        holds=None if limit is None else candidate <= limit,
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms"


def _times(value: float) -> str:
    return f"{value:.2f} times"
