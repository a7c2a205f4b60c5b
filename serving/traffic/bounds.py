"""When users' requests say that a version must go: pure bounds on errors, answer times and answers.

Its place in the flow: while a version is watched the agent takes what front ends counted for it and
for the version before, and asks `judge`. Every bound is crossed only when the figures are surely
beyond it, so that a few requests, or many looks at the same noise, return nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serving.traffic.observation import LATENCY_BOUNDS_MS

# One-sided 0.02 %: a bake time of ten minutes is some 60 looks, each a chance to be wrong.
_Z = 3.5
_CHANCE = 2e-4
_BUCKETS = len(LATENCY_BOUNDS_MS) + 1


@dataclass(frozen=True)
class Window:
    """What one version was asked in some time.

    Args:
        requests: questions, answered or not; `errors`: those without a usable answer.
        latency_counts: answered questions for each bound of LATENCY_BOUNDS_MS and above.
        top_counts: answered questions by the label that won.
    """

    requests: int = 0
    errors: int = 0
    latency_counts: tuple[int, ...] = (0,) * _BUCKETS
    top_counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ShadowWindow:
    """How copies of requests compared in some time."""

    compared: int = 0
    agreed: int = 0
    score_distance_sum: float = 0.0
    failed: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        if not self.compared:
            return f"shadow: no copied request compared, {self.failed} failed, {self.dropped} dropped"
        agreed, distance = self.agreed / self.compared, self.score_distance_sum / self.compared
        return (
            f"shadow: {self.compared} copied requests compared, same first label in {agreed:.1%}, mean score distance "
            f"{distance:.3f}, {self.failed} failed, {self.dropped} dropped"
        )


@dataclass(frozen=True)
class TrafficBounds:
    """What is too much; see AgentSettings for each."""

    min_requests: int = 100
    max_error_increase: float = 0.02
    max_p95_ratio: float = 2.0
    p95_floor_ms: float = 50.0
    max_answer_shift: float = 0.3
    min_shadow_agreement: float | None = None


@dataclass(frozen=True)
class Breach:
    """A bound that is surely broken, and the figures."""

    what: Literal["errors", "latency", "answers", "shadow"]
    detail: str


def judge(before: Window, now: Window, bounds: TrafficBounds, *, shadow: ShadowWindow | None = None) -> Breach | None:
    """Return the first bound that `now` surely breaks against `before`; None while there is no proof."""
    if min(before.requests, now.requests) >= bounds.min_requests:
        for check in (_judge_errors, _judge_latency, _judge_answers):
            breach = check(before, now, bounds)
            if breach is not None:
                return breach
    return _judge_shadow(shadow, bounds) if shadow is not None else None


def _judge_errors(before: Window, now: Window, bounds: TrafficBounds) -> Breach | None:
    increase = surely_increased_by((before.errors, before.requests), (now.errors, now.requests))
    if increase <= bounds.max_error_increase:
        return None
    return Breach(
        "errors",
        f"{now.errors} of {now.requests} requests failed, {before.errors} of {before.requests} before; surely "
        f"{increase:.1%} more, {bounds.max_error_increase:.1%} allowed (max_error_increase)",
    )


def surely_increased_by(before: tuple[int, int], now: tuple[int, int], *, z: float = _Z) -> float:
    """Return by how much a share (hits, count) has increased at least: the lower end of an interval for that.

    Newcombe's hybrid score interval, method 10 in R. G. Newcombe, "Interval estimation for the
    difference between independent proportions", Statistics in Medicine 17 (1998), 873 to 890.
    """
    share_before, share_now = before[0] / before[1], now[0] / now[1]
    _, upper_before = wilson(*before, z=z)
    lower_now, _ = wilson(*now, z=z)
    return (share_now - share_before) - math.hypot(share_now - lower_now, upper_before - share_before)


def wilson(hits: int, count: int, *, z: float = _Z) -> tuple[float, float]:
    """Return Wilson's score interval of a share (E. B. Wilson, JASA 22 (1927), 209 to 212)."""
    share, z2 = hits / count, z * z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _judge_latency(before: Window, now: Window, bounds: TrafficBounds) -> Breach | None:
    answered_before, answered = sum(before.latency_counts), sum(now.latency_counts)
    if min(answered_before, answered) < bounds.min_requests:
        return None
    p95_before = upper_bound_ms(before.latency_counts, 0.95)
    limit_ms = max(bounds.max_p95_ratio * p95_before, p95_before + bounds.p95_floor_ms)
    over = sum(
        count
        for count, lower_ms in zip(now.latency_counts, (0.0, *LATENCY_BOUNDS_MS), strict=True)
        if lower_ms >= limit_ms
    )
    if wilson(over, answered)[0] <= 0.05:
        return None
    return Breach(
        "latency",
        f"{over} of {answered} answers took over {limit_ms:g} ms, where 95 of 100 took at most {p95_before:g} ms "
        f"before; allowed {bounds.max_p95_ratio:g} times that (max_p95_ratio)",
    )


def upper_bound_ms(latency_counts: tuple[int, ...], share: float) -> float:
    """Return the smallest bound that at least `share` of the answers kept; infinity above the last."""
    needed, seen = share * sum(latency_counts), 0
    for count, bound_ms in zip(latency_counts, (*LATENCY_BOUNDS_MS, math.inf), strict=True):
        seen += count
        if seen >= needed:
            return bound_ms
    return math.inf


def _judge_answers(before: Window, now: Window, bounds: TrafficBounds) -> Breach | None:
    answered_before, answered = sum(before.top_counts.values()), sum(now.top_counts.values())
    if min(answered_before, answered) < bounds.min_requests:
        return None
    shift = surely_shifted_by(before.top_counts, now.top_counts)
    if shift <= bounds.max_answer_shift:
        return None
    label = max(now.top_counts, key=lambda name: now.top_counts[name] / answered - _share(before.top_counts, name))
    return Breach(
        "answers",
        f"the winning labels moved by at least {shift:.2f} of 1, {bounds.max_answer_shift:.2f} allowed "
        f"(max_answer_shift); most of all {label!r}: {now.top_counts[label] / answered:.1%} of {answered}, "
        f"{_share(before.top_counts, label):.1%} of {answered_before} before",
    )


def surely_shifted_by(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return how far two sets of shares are apart at least: total variation distance less what chance makes.

    Chance makes the distance of two samples of the same shares about `expected` (the mean absolute
    deviation of a normal variable, half of it for each label), and more than `slack` beyond that with
    a probability under _CHANCE (C. McDiarmid, "On the method of bounded differences", 1989: one
    answer more or less moves the distance by at most 1/n).
    """
    count_before, count_now = sum(before.values()), sum(now.values())
    spread = 1 / count_before + 1 / count_now
    distance = expected = 0.0
    for label in {*before, *now}:
        distance += abs(_share(before, label) - _share(now, label)) / 2
        pooled = (before.get(label, 0) + now.get(label, 0)) / (count_before + count_now)
        expected += math.sqrt(pooled * (1 - pooled) * spread * 2 / math.pi) / 2
    slack = math.sqrt(math.log(1 / _CHANCE) * spread / 2)
    return max(0.0, distance - expected - slack)


def _share(counts: Mapping[str, int], label: str) -> float:
    return counts.get(label, 0) / sum(counts.values())


def _judge_shadow(shadow: ShadowWindow, bounds: TrafficBounds) -> Breach | None:
    least = bounds.min_shadow_agreement
    if least is None or shadow.compared < bounds.min_requests:
        return None
    if wilson(shadow.agreed, shadow.compared)[1] >= least:
        return None
    return Breach("shadow", f"{shadow}; at least {least:.1%} must agree (min_shadow_agreement)")
