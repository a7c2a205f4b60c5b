"""From the counters of front ends to what happened in between, and reading them over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serving.traffic.observation import ShadowTraffic
from serving.traffic.windows import shadow_window, version_window
from serving.traffic_marks import TrafficMarks
from serving.traffic_source import HttpTrafficSource


@pytest.fixture
def report(agent_lab: ModuleType) -> Any:
    return agent_lab.traffic_report


def test_counters_of_all_front_ends_are_added_and_what_was_before_is_taken_off(report: Any) -> None:
    start = (report((1, 100, 10), (2, 5, 0)), report((1, 7, 0), front_end="front-2"))
    end = (report((1, 150, 11), (2, 30, 4)), report((1, 9, 2), (2, 1, 0), front_end="front-2"))
    one, two = version_window(start, end, 1), version_window(start, end, 2)
    assert (one.requests, one.errors, sum(one.latency_counts)) == (52, 3, 49)
    assert (two.requests, two.errors, two.top_counts) == (26, 4, {"circle": 22})
    assert version_window(start, end, 3).requests == 0


def test_a_front_end_that_was_started_anew_counts_from_zero(report: Any, agent_lab: ModuleType) -> None:
    start = (report((1, 100, 10)),)
    later = agent_lab.START + timedelta(hours=1)
    assert version_window(start, (report((1, 40, 1), started_at=later),), 1).requests == 40
    assert version_window(start, (report((1, 40, 1)),), 1).requests == 40, "a counter that went down says so too"
    assert version_window(start, (), 1).requests == 0


def shadow(compared: int, agreed: int, distance: float) -> ShadowTraffic:
    return ShadowTraffic(
        version=3,
        compared=compared,
        agreed=agreed,
        score_distance_sum=distance,
        score_distance_max=1.0,
        dropped=1,
        failed=2,
    )


def test_shadows_are_subtracted_alike(report: Any) -> None:
    start, end = (report(shadows=(shadow(10, 5, 1.0),)),), (report(shadows=(shadow(30, 24, 2.5),)),)
    found = shadow_window(start, end, 3)
    assert (found.compared, found.agreed, found.score_distance_sum, found.failed) == (20, 19, 1.5, 0)


def test_marks_outlive_the_process_and_a_baseline_is_old_enough_or_everything(tmp_path: Path, report: Any) -> None:
    marks = TrafficMarks(tmp_path / ".traffic.json", baseline_seconds=100.0)
    for second in range(0, 400, 40):
        marks.remember((report((1, second, 0)),), at_seconds=float(second))
    now = (report((1, 365, 0)),)
    made = marks.mark("stable", release=2, version=2, reports=now)
    assert made.start == now
    assert made.before[0].versions[0].requests == 240, "the newest reading that is 100 s old"
    again = TrafficMarks(tmp_path / ".traffic.json", baseline_seconds=100.0)
    assert again.mark("stable", release=2, version=2, reports=(report((1, 999, 0)),)) == made
    assert again.known("canary", release=2, version=2) is None
    fresh = again.mark("stable", release=3, version=3, reports=now)
    assert fresh.before == ()
    (tmp_path / ".traffic.json").write_bytes(b"{}")
    assert again.known("stable", release=2, version=2) is None


ANSWERS: dict[str, tuple[int, bytes]] = {}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/good")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def base() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_reports_are_read_and_what_cannot_be_had_is_named(base: str, report: Any) -> None:
    good = report((1, 10, 0))
    stranger = good.model_copy(update={"model": "flowers"})
    ANSWERS.update(
        {
            "/good": (200, good.to_json()),
            "/other": (200, stranger.to_json()),
            "/broken": (500, b"no"),
            "/redirect": (302, b""),
            "/nonsense": (200, b"{}"),
            "/huge": (200, b" " * (5 * 1024 * 1024)),
        }
    )
    urls = [f"{base}{path}" for path in ANSWERS] + ["http://127.0.0.1:9/traffic"]
    reading = HttpTrafficSource(urls, model="shapes", timeout_seconds=5.0).read()
    assert reading.reports == (good,)
    assert len(reading.troubles) == 6
    for trouble, path in zip(
        reading.troubles, ["/other", "/broken", "/redirect", "/nonsense", "/huge", ":9"], strict=True
    ):
        assert path in trouble
    assert HttpTrafficSource((), model="shapes", timeout_seconds=5.0).read().reports == ()
