"""A new version's latency against the served one's: what is judged, and what the agent does with it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from artifact_sync.errors import ModelServerError
from serving.latency_probe import LatencyBounds, MeasuredPairs, compare, measure, percentile

BOUNDS = LatencyBounds(max_ratio=2.0, floor_ms=10.0)


@pytest.fixture
def lab(agent_lab: ModuleType, memory_path: Any) -> Any:
    """A host that serves version 1 in 20 ms a photo."""
    lab = agent_lab.Lab(memory_path)
    lab.initialise()
    lab.server.milliseconds[1] = 20.0
    lab.publish(1)
    lab.agent().tick()
    yield lab
    assert lab.server.faults == []


@pytest.mark.parametrize(
    ("new", "served", "breaches"),
    [
        ([20.0] * 30, [20.0] * 30, set()),
        ([39.0] * 30, [20.0] * 30, set()),
        ([41.0] * 30, [20.0] * 30, {"median", "95th percentile"}),
        # Three times as long and yet nothing that anybody notices.
        ([9.0] * 30, [3.0] * 30, set()),
        # Far over the floor and not over the ratio.
        ([190.0] * 30, [100.0] * 30, set()),
        # One slow answer in thirty is chance, three are a tail.
        ([20.0] * 29 + [400.0], [20.0] * 30, set()),
        ([20.0] * 27 + [400.0] * 3, [20.0] * 30, {"95th percentile"}),
        # Both were slow at the same time: the host was busy.
        ([20.0] * 20 + [400.0] * 10, [20.0] * 20 + [400.0] * 10, set()),
    ],
)
def test_a_version_is_too_slow_over_the_ratio_and_over_the_floor(
    new: list[float], served: list[float], breaches: set[str]
) -> None:
    assert compare(MeasuredPairs(tuple(new), tuple(served)), BOUNDS).breaches == breaches


def test_without_a_served_version_only_the_limit_counts() -> None:
    alone = MeasuredPairs((500.0,) * 5)
    assert compare(alone, BOUNDS).breaches == frozenset()
    limited = LatencyBounds(max_ratio=2.0, floor_ms=10.0, max_ms=499.0)
    assert compare(alone, limited).breaches == {"limit"}
    assert compare(MeasuredPairs((499.0,) * 5), limited).breaches == frozenset()


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95)) == (50.0, 95.0)
    assert percentile([7.0], 0.95) == 7.0


def test_requests_are_made_in_turn_and_each_version_goes_first_as_often(lab: Any, agent_lab: ModuleType) -> None:
    asked: list[int] = []

    class Recorder:
        def predict(self, model: str, pixels: Any, *, version: int, timeout_seconds: float) -> None:
            asked.append(version)
            lab.clock.sleep(version / 1000.0)

    pairs = measure(
        Recorder(),
        model="shapes",
        new=(2, ["a", "b"]),
        served=(1, ["a", "b"]),
        pairs=4,
        timeout_seconds=1.0,
        clock=lab.clock,
        pause=lambda: None,
    )
    assert [round(each, 6) for each in pairs.new_ms] == [2.0] * 4
    assert [round(each, 6) for each in pairs.served_ms] == [1.0] * 4
    turns = list(zip(asked[::2], asked[1::2], strict=True))
    assert set(turns) == {(1, 2), (2, 1)}
    assert len(turns) == 4 + 5, "five to warm up"


def test_a_long_measurement_ends_after_a_minute_with_fewer_pairs(lab: Any) -> None:
    lab.server.milliseconds[1] = 4000.0
    pairs = measure(
        lab.server,
        model="shapes",
        new=(1, [__import__("numpy").zeros((1, 2, 3, 1), "uint8")]),
        served=None,
        pairs=1000,
        timeout_seconds=10.0,
        clock=lab.clock,
        pause=lambda: None,
    )
    assert len(pairs.new_ms) < 20


def test_a_slower_version_gets_no_label_and_the_figures_are_said(lab: Any) -> None:
    lab.server.milliseconds[2] = 45.0
    lab.publish(2)
    report = lab.agent().tick()
    assert (report.outcome, report.served, report.loaded) == ("failed", {"stable": 1}, (1,))
    assert [step.name for step in report.steps][-3:] == ["MeasureLatency", "UnloadVersions", "Acknowledge"]
    (said,) = lab.acknowledgements(2)
    assert "too slow on this host, measured twice (95th percentile, median): median 45.0 ms" in said.detail
    assert "served version 20.0 and 20.0 ms" in said.detail
    assert lab.state()["failure"]["cause"] == "latency"
    lab.server.milliseconds[2] = 25.0
    lab.clock.sleep(60)
    assert lab.agent().tick().served == {"stable": 2}


def test_a_version_that_is_as_fast_is_served_and_its_figures_are_in_the_acknowledgement(lab: Any) -> None:
    lab.server.milliseconds[2] = 21.0
    lab.publish(2)
    assert lab.agent().tick().served == {"stable": 2}
    (said,) = lab.acknowledgements(2)
    assert "Latency of version 2 against version 1: median 21.0 ms, 95th percentile 21.0 ms of 30" in said.detail


def test_a_moment_of_noise_is_measured_again(lab: Any) -> None:
    real, calls = lab.server.predict, [0]

    def predict(model: str, pixels: Any, **named: Any) -> Any:
        answer = real(model, pixels, **named)
        if named.get("version") == 2 and len(pixels) == 1:
            calls[0] += 1
            # The first measurement alone.
            lab.clock.sleep(0.2 if calls[0] <= 35 else 0.0)
        return answer

    lab.server.predict = predict
    lab.publish(2)
    assert lab.agent().tick().served == {"stable": 2}
    assert calls[0] == 70


def test_a_rollback_is_not_refused_for_being_slow(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(2)
    agent.tick()
    lab.server.milliseconds[1] = 900.0
    lab.publish(1, kind="rollback")
    assert agent.tick().served == {"stable": 1}


def test_a_served_version_that_takes_no_such_photo_is_no_reason_to_refuse(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lab.server.predict

    def predict(model: str, pixels: Any, **named: Any) -> Any:
        if named.get("version") == 1:
            raise ModelServerError("INVALID_ARGUMENT: another shape")
        return real(model, pixels, **named)

    monkeypatch.setattr(lab.server, "predict", predict)
    lab.publish(2)
    assert lab.agent().tick().served == {"stable": 2}
    assert "not compared with version 1" in lab.acknowledgements(2)[0].detail


def test_the_first_release_has_a_limit_only_where_one_is_set(agent_lab: ModuleType, memory_path: Any) -> None:
    lab = agent_lab.Lab(memory_path, settings={"max_latency_ms": 100.0})
    lab.initialise()
    lab.server.milliseconds[1] = 101.0
    lab.publish(1)
    report = lab.agent().tick()
    assert (report.outcome, report.served) == ("failed", {})
    assert "limit 100 ms (max_latency_ms)" in report.detail


def test_a_limit_holds_where_nothing_is_compared(agent_lab: ModuleType, memory_path: Any) -> None:
    lab = agent_lab.Lab(memory_path, settings={"latency_pairs": 0, "max_latency_ms": 100.0})
    lab.initialise()
    lab.server.milliseconds.update({1: 1.0, 2: 99.0, 3: 101.0})
    for version, served in ((1, 1), (2, 2), (3, 2)):
        lab.publish(version)
        assert lab.agent().tick().served == {"stable": served}
