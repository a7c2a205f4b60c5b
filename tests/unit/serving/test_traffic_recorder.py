"""What is counted adds up, also when many threads count, and crosses as a record."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from artifact_sync.clock import ManualClock
from artifact_sync.errors import RecordError
from serving.traffic.observation import LATENCY_BOUNDS_MS, TrafficReport, VersionTraffic
from serving.traffic.recorder import TrafficRecorder

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def recorder(clock) -> TrafficRecorder:
    return TrafficRecorder(model="photos", front_end="front-1", clock=clock)


def test_before_the_first_request_it_reports_nothing(recorder, clock):
    clock.sleep(7)
    report = recorder.report()
    assert (report.versions, report.shadows) == ((), ())
    assert (report.started_at, (report.at - report.started_at).seconds) == (START, 7)
    assert report.version(1) is report.shadow(1) is None


def test_each_version_has_its_own_counts(recorder):
    for seconds in (0.001, 0.0011, 0.004, 60.0):
        recorder.answered(2, top_label="cat", seconds=seconds)
    recorder.failed(2)
    recorder.answered(1, top_label="dog", seconds=0.002)
    recorder.fell_back(3)
    report = recorder.report()
    assert [entry.version for entry in report.versions] == [1, 2, 3]
    second = report.version(2)
    assert (second.requests, second.errors, second.fallbacks, second.top_counts) == (5, 1, 0, {"cat": 4})
    filled = {index: count for index, count in enumerate(second.latency_counts) if count}
    # A bound is part of its bucket; what is above the last has one of its own.
    assert filled == {0: 1, 1: 1, 3: 1, len(LATENCY_BOUNDS_MS): 1}
    assert second.latency_sum_ms == pytest.approx(60_006.1)
    third = report.version(3)
    assert (third.requests, third.errors, third.fallbacks) == (0, 0, 1)


def test_a_shadow_has_its_counts(recorder):
    recorder.compared(7, is_agreed=True, distance=0.25)
    recorder.compared(7, is_agreed=False, distance=0.5)
    recorder.copy_failed(7)
    recorder.copy_dropped(7)
    recorder.copy_dropped(7)
    shadow = recorder.report().shadow(7)
    assert (shadow.compared, shadow.agreed, shadow.failed, shadow.dropped) == (2, 1, 1, 2)
    assert (shadow.score_distance_sum, shadow.score_distance_max) == (0.75, 0.5)


def test_no_count_is_lost_between_threads_and_each_report_adds_up(recorder):
    def ask() -> None:
        for number in range(2_000):
            recorder.answered(1 + number % 2, top_label="cat", seconds=0.01)
            recorder.failed(1)
            recorder.compared(3, is_agreed=True, distance=0.5)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    # The record itself refuses counts that do not add up.
    while any(thread.is_alive() for thread in threads):
        recorder.report()
    report = recorder.report()
    assert [(entry.requests, entry.errors) for entry in report.versions] == [(24_000, 16_000), (8_000, 0)]
    assert (report.shadow(3).compared, report.shadow(3).score_distance_sum) == (16_000, 8_000.0)


def test_a_report_crosses_as_canonical_json(recorder):
    recorder.answered(1, top_label='fish & "<chips>"\n', seconds=0.0123)
    recorder.compared(2, is_agreed=False, distance=1 / 3)
    report = recorder.report()
    assert TrafficReport.from_json(report.to_json()) == report
    with pytest.raises(RecordError, match="canonical"):
        TrafficReport.from_json(report.to_json() + b" ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": 2},
        {"errors": 1},
        {"latency_counts": (1,)},
        {"latency_counts": (2, *[0] * len(LATENCY_BOUNDS_MS))},
        {"top_counts": {}},
        {"top_counts": {"cat": 2, "dog": -1}},
        {"fallbacks": -1},
    ],
)
def test_counts_that_do_not_add_up_are_refused(wrong):
    right = {
        "version": 1,
        "requests": 1,
        "errors": 0,
        "latency_counts": (1, *[0] * len(LATENCY_BOUNDS_MS)),
        "top_counts": {"cat": 1},
    }
    VersionTraffic(**right)
    with pytest.raises(ValidationError):
        VersionTraffic(**right | wrong)


def test_versions_are_ascending_and_each_once(recorder):
    recorder.answered(1, top_label="cat", seconds=0.01)
    recorder.answered(2, top_label="cat", seconds=0.01)
    report = recorder.report()
    for versions in (report.versions[::-1], report.versions[:1] * 2):
        with pytest.raises(ValidationError, match="ascending"):
            TrafficReport(**{**dict(report), "versions": versions})
