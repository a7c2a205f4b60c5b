"""From cumulative counters to what happened between two readings: pure.

Its place in the flow: the agent keeps readings of all front ends; two of them make the windows that
bounds.judge compares. A front end that was started anew in between counts from zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serving.traffic.bounds import ShadowWindow, Window
from serving.traffic.observation import LATENCY_BOUNDS_MS, ShadowTraffic, TrafficReport, VersionTraffic

_NO_COUNTS = (0,) * (len(LATENCY_BOUNDS_MS) + 1)


def version_window(start: Iterable[TrafficReport], end: Iterable[TrafficReport], version: int) -> Window:
    """Return what all front ends counted for `version` from `start` to `end`.

    A front end that is in `end` only counts from its own beginning; one that is gone counts no more.
    """
    earlier = _by_front_end(start)
    total = Window()
    for report in end:
        now = report.version(version)
        if now is None:
            continue
        begun = earlier.get(report.front_end)
        then = begun.version(version) if begun is not None and begun.started_at == report.started_at else None
        total = _added(total, _difference(then, now))
    return total


def shadow_window(start: Iterable[TrafficReport], end: Iterable[TrafficReport], version: int) -> ShadowWindow:
    """Return how the copies for `version` compared from `start` to `end`."""
    earlier = _by_front_end(start)
    total = ShadowWindow()
    for report in end:
        now = report.shadow(version)
        if now is None:
            continue
        begun = earlier.get(report.front_end)
        then = begun.shadow(version) if begun is not None and begun.started_at == report.started_at else None
        then = then if then is not None and then.compared <= now.compared and then.failed <= now.failed else None
        total = ShadowWindow(
            compared=total.compared + now.compared - (then.compared if then else 0),
            agreed=total.agreed + now.agreed - (then.agreed if then else 0),
            score_distance_sum=total.score_distance_sum + _distance(now) - _distance(then),
            failed=total.failed + now.failed - (then.failed if then else 0),
            dropped=total.dropped + now.dropped - (then.dropped if then else 0),
        )
    return total


def _by_front_end(reports: Iterable[TrafficReport]) -> Mapping[str, TrafficReport]:
    return {report.front_end: report for report in reports}


def _distance(shadow: ShadowTraffic | None) -> float:
    return shadow.score_distance_sum if shadow is not None else 0.0


def _difference(then: VersionTraffic | None, now: VersionTraffic) -> Window:
    whole = Window(now.requests, now.errors, now.latency_counts, dict(now.top_counts))
    if then is None or then.requests > now.requests or then.errors > now.errors:
        return whole
    return Window(
        requests=now.requests - then.requests,
        errors=now.errors - then.errors,
        latency_counts=tuple(max(0, a - b) for a, b in zip(now.latency_counts, then.latency_counts, strict=True)),
        top_counts={
            label: count - then.top_counts.get(label, 0)
            for label, count in now.top_counts.items()
            if count > then.top_counts.get(label, 0)
        },
    )


def _added(one: Window, other: Window) -> Window:
    return Window(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        latency_counts=tuple(a + b for a, b in zip(one.latency_counts, other.latency_counts, strict=True)),
        top_counts={
            label: one.top_counts.get(label, 0) + other.top_counts.get(label, 0)
            for label in {*one.top_counts, *other.top_counts}
        },
    )
