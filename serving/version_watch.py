"""A new version is watched while the one before could still take its place.

Its place in the flow: at each look the agent asks whether users' requests or the golden examples say
that the version must go; the answer is a Withdraw, after which the roll-out moves the labels back.
Nothing here asks the bucket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from artifact_sync.clock import Clock
from artifact_sync.errors import IntegrityError, LiftgateError, ModelServerError
from serving.agent_state import AgentState, Label
from serving.rollout_steps import Withdraw
from serving.server_driver import VersionRejectedError
from serving.settings import AgentSettings
from serving.traffic.bounds import TrafficBounds, Window, judge, upper_bound_ms
from serving.traffic.observation import TrafficReport
from serving.traffic.windows import shadow_window, version_window
from serving.traffic_marks import TrafficMark, TrafficMarks
from serving.traffic_source import TrafficSource
from serving.version_checks import VersionChecks


@dataclass(frozen=True)
class Watched:
    """A version under watch, what users call it by, the version it is compared with, and its release."""

    label: Label
    version: int
    against: int
    release: int


@dataclass(frozen=True)
class Findings:
    """What one look found.

    Args:
        withdraw: the version that must go, if any.
        figures: what is worth saying in the bucket, by what it is about.
        troubles: front ends that could not be asked.
    """

    withdraw: Withdraw | None = None
    figures: Mapping[str, str] | None = None
    troubles: tuple[str, ...] = ()


def watched(state: AgentState, *, now: datetime) -> tuple[Watched, ...]:
    """Return the versions under watch: a new stable one for its bake time, a canary and a shadow always."""
    accepted, watch, withdrawal = state.accepted, state.watch, state.withdrawal
    if accepted is None or (withdrawal is not None and withdrawal.release == accepted.release):
        return ()
    found = []
    if watch is not None and watch.version == accepted.stable and now < watch.until:
        found.append(Watched("stable", watch.version, watch.before, watch.release))
    others: tuple[tuple[Label, int | None], ...] = (("canary", accepted.canary), ("shadow", accepted.shadow))
    for label, version in others:
        if version is not None and version != accepted.stable:
            found.append(Watched(label, version, accepted.stable, accepted.release))
    return tuple(found)


class VersionWatch:
    """The watch over one model on one host; keeps what front ends said lately.

    Args:
        source: where reports of traffic come from.
        marks: the counters at the beginning of each watch.
        checks: replays golden examples.
        settings: bounds and pauses.
        clock: time.
    """

    def __init__(
        self,
        *,
        source: TrafficSource,
        marks: TrafficMarks,
        checks: VersionChecks,
        settings: AgentSettings,
        clock: Clock,
    ) -> None:
        self._source = source
        self._marks = marks
        self._checks = checks
        self._settings = settings
        self._clock = clock
        self._probed_at: dict[int, float] = {}
        self._bounds = TrafficBounds(
            min_requests=settings.min_requests,
            max_error_increase=settings.max_error_increase,
            max_p95_ratio=settings.max_p95_ratio,
            p95_floor_ms=settings.p95_floor_ms,
            max_answer_shift=settings.max_answer_shift,
            min_shadow_agreement=settings.min_shadow_agreement,
        )

    def look(self, state: AgentState, *, now: datetime) -> Findings:
        """Return what users' requests and the golden examples say now."""
        reading = self._source.read()
        self._marks.remember(reading.reports, at_seconds=self._clock.monotonic())
        found = watched(state, now=now)
        figures = self._last_word(state, reading.reports, now=now)
        for each in found:
            withdraw = self._judge(each, reading.reports, figures) or self._probe_again(each)
            if withdraw is not None:
                return Findings(withdraw=withdraw, troubles=reading.troubles)
        said = state.account.figures if state.account is not None else {}
        news = {about: text for about, text in figures.items() if about not in said}
        return Findings(figures=news, troubles=reading.troubles if found else ())

    def _judge(self, each: Watched, reports: tuple[TrafficReport, ...], figures: dict[str, str]) -> Withdraw | None:
        if not reports:
            return None
        mark = self._marks.mark(each.label, release=each.release, version=each.version, reports=reports)
        if each.label == "shadow":
            shadow = shadow_window(mark.start, reports, each.version)
            breach = judge(Window(), Window(), self._bounds, shadow=shadow)
            if shadow.compared >= self._settings.min_requests:
                figures["shadow"] = f"Version {each.version} as {shadow}."
        else:
            before, now = self._windows(each, mark, reports)
            breach = judge(before, now, self._bounds)
            if each.label == "canary" and now.requests >= self._settings.min_requests:
                figures["canary"] = _sentence(each, before, now)
        if breach is None:
            return None
        reason = f"Users' requests to version {each.version} ({each.label}) broke a bound: {breach.detail}."
        return Withdraw(label=each.label, version=each.version, cause="traffic", reason=reason)

    def _windows(self, each: Watched, mark: TrafficMark, reports: tuple[TrafficReport, ...]) -> tuple[Window, Window]:
        now = version_window(mark.start, reports, each.version)
        if each.label == "canary":
            # Both are asked at the same time, by users that a hash has parted.
            return version_window(mark.start, reports, each.against), now
        return version_window(mark.before, mark.start, each.against), now

    def _last_word(self, state: AgentState, reports: tuple[TrafficReport, ...], *, now: datetime) -> dict[str, str]:
        """Return the figures of a watch that is over."""
        watch, accepted = state.watch, state.accepted
        if watch is None or accepted is None or now < watch.until or accepted.release != watch.release:
            return {}
        mark = self._marks.known("stable", release=watch.release, version=watch.version)
        if mark is None or not reports or accepted.stable != watch.version:
            return {}
        each = Watched("stable", watch.version, watch.before, watch.release)
        return {"traffic": _sentence(each, *self._windows(each, mark, reports))}

    def _probe_again(self, each: Watched) -> Withdraw | None:
        pause, now = self._settings.probe_seconds, self._clock.monotonic()
        # It gave the golden answers right before its label moved.
        before = self._probed_at.setdefault(each.version, now)
        if pause <= 0 or now - before < pause:
            return None
        self._probed_at[each.version] = now
        try:
            if each.version not in self._checks.driver.available():
                return None
            self._probe_twice(each.version)
        except VersionRejectedError as error:
            return Withdraw(label=each.label, version=each.version, cause="golden", reason=str(error))
        except (IntegrityError, ModelServerError):
            # The disk or the server is at fault; the tick sees that for itself.
            return None
        return None

    def _probe_twice(self, version: int) -> None:
        try:
            self._checks.probe(version)
        except LiftgateError:
            self._checks.probe(version)


def _sentence(each: Watched, before: Window, now: Window) -> str:
    return (
        f"Users' requests to version {each.version}: {_said(now)}; to version {each.against} for comparison: "
        f"{_said(before)}."
    )


def _said(window: Window) -> str:
    if not window.requests:
        return "none"
    p95 = upper_bound_ms(window.latency_counts, 0.95)
    return f"{window.requests}, {window.errors} failed, 95 of 100 answers within {p95:g} ms"


def marks_path(model_dir: Path) -> Path:
    """Return the file with the counters at the beginning of each watch."""
    return model_dir / ".traffic.json"
