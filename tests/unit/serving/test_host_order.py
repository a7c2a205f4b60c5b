"""Hosts that take a promotion one after another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync.errors import RecordError
from artifact_sync.records import Acknowledgement
from serving.host_order import turn_of

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
ORDER = ("host-1", "host-2", "host-3")


def said(
    release: Any, host: str, outcome: str = "serving", *, age_seconds: float = 0, **changes: Any
) -> Acknowledgement:
    return Acknowledgement(
        model="shapes",
        release=release.number,
        release_sha256=changes.get("sha256", release.sha256),
        host=host,
        outcome=outcome,
        serving_version=1,
        loaded_versions=(1,),
        detail=changes.get("detail", ""),
        took_seconds=1.0,
        at=NOW - timedelta(seconds=age_seconds),
    )


def turn(release: Any, *acknowledgements: Acknowledgement, host: str = "host-3", **changes: Any) -> str:
    return turn_of(
        host,
        order=ORDER,
        release=release,
        acknowledgements=acknowledgements,
        seen_at=NOW - timedelta(seconds=changes.get("seen_seconds", 0)),
        now=NOW,
        pause_seconds=changes.get("pause_seconds", 0.0),
        timeout_seconds=100.0,
    ).word


@pytest.fixture
def release(agent_lab: ModuleType) -> Any:
    return agent_lab.release_record(2, 2)


def test_the_first_host_goes_and_the_others_wait_for_all_before_them(release: Any) -> None:
    assert turn(release, host="host-1") == "go"
    assert turn(release, host="host-2") == "wait"
    assert turn(release, said(release, "host-1"), host="host-2") == "go"
    assert turn(release, said(release, "host-1")) == "wait"
    assert turn(release, said(release, "host-1"), said(release, "host-2")) == "go"


def test_a_host_that_could_not_stops_those_after_it_until_it_can(release: Any) -> None:
    failed = said(release, "host-1", "failed")
    assert turn(release, failed, host="host-2") == "stop"
    assert turn(release, failed, said(release, "host-2")) == "stop"
    assert turn(release, failed, said(release, "host-1"), host="host-2") == "go", "its newest word counts"
    assert turn(release, said(release, "host-1"), failed, host="host-2") == "stop", "it went back"


def test_the_host_before_must_have_served_for_a_while(release: Any) -> None:
    assert turn(release, said(release, "host-1", age_seconds=29), host="host-2", pause_seconds=30) == "wait"
    assert turn(release, said(release, "host-1", age_seconds=30), host="host-2", pause_seconds=30) == "go"


def test_a_host_that_waited_long_enough_says_so_and_does_not_go_ahead(release: Any) -> None:
    assert turn(release, host="host-2", seen_seconds=99) == "wait"
    assert turn(release, host="host-2", seen_seconds=100) == "late"
    assert turn(release, said(release, "host-1"), host="host-2", seen_seconds=100) == "go"


def test_rollbacks_and_hosts_outside_the_order_never_wait(release: Any, agent_lab: ModuleType) -> None:
    assert turn(release, host="host-9") == "go"
    assert turn(agent_lab.release_record(2, 1, kind="rollback")) == "go"


def test_a_word_about_another_release_of_the_same_number_does_not_count(release: Any) -> None:
    assert turn(release, said(release, "host-1", sha256="f" * 64), host="host-2") == "wait"


# The agent.


@pytest.fixture
def lab(agent_lab: ModuleType, memory_path: Path) -> Any:
    """host-2 of an order of two, serving version 1; `lab.first` is the agent of host-1."""
    order = {"host_order": ("host-1", "host-2"), "order_pause_seconds": 60, "order_timeout_seconds": 600}
    lab = agent_lab.Lab(memory_path, settings={**order, "host": "host-2"})
    lab.initialise()
    other = agent_lab.MemoryModelServer()
    settings = lab.settings.model_copy(update={"host": "host-1", "models_dir": memory_path / "host-1" / "models"})
    lab.first = lab.agent(trust=lab.reader("host-1"), server=other, settings=settings)
    lab.first_server = other
    lab.publish(1)
    lab.first.tick()
    lab.clock.sleep(60)
    assert lab.agent().tick().served == {"stable": 1}
    return lab


def steps(report: Any) -> list[str]:
    return [step.name for step in report.steps]


def test_a_host_loads_and_proves_and_waits_with_the_label(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(2)
    report = agent.tick()
    assert steps(report) == ["PullVersion", "CheckMemory", "LoadVersions", "ProbeVersion", "MeasureLatency"]
    assert (report.outcome, report.exit_code, report.served, report.loaded) == ("idle", 0, {"stable": 1}, (1, 2))
    assert "Stable = version 2 is ready and waits: host-1 has not acknowledged release 2." in report.detail
    assert lab.acknowledgements(2) == []
    assert steps(agent.tick()) == [], "it is not asked again at every look"
    lab.first.tick()
    assert "has served release 2 for less than 60 s" in agent.tick().detail
    lab.clock.sleep(60)
    report = agent.tick()
    assert steps(report) == ["ProbeVersion", "MeasureLatency", "MoveLabels", "RecordServing", "Acknowledge"]
    assert report.served == {"stable": 2}


def test_a_host_stops_where_the_one_before_failed_and_follows_when_it_recovers(lab: Any) -> None:
    agent = lab.agent()
    lab.first_server.broken[2] = "no room"
    lab.publish(2)
    lab.first.tick()
    report = agent.tick()
    assert (report.outcome, report.exit_code, report.served, report.loaded) == ("refused", 3, {"stable": 1}, (1,))
    (word,) = [each for each in lab.acknowledgements(2) if each.host == "host-2"]
    assert (word.outcome, word.serving_version) == ("refused", 1)
    assert word.detail.startswith("Host-1 could not take release 2 (failed: Version 2 refused")
    assert word.detail.endswith("this host keeps stable = version 1.")
    assert steps(agent.tick()) == []
    lab.first_server.broken.clear()
    lab.clock.sleep(60)
    lab.first.tick()
    lab.clock.sleep(60)
    assert agent.tick().served == {"stable": 2}


def test_a_host_that_gave_up_waiting_says_so_and_unloads(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(2)
    agent.tick()
    lab.clock.sleep(600)
    report = agent.tick()
    assert (report.outcome, report.served, report.loaded) == ("refused", {"stable": 1}, (1,))
    assert "gave up waiting after 600 s (order_timeout_seconds)" in lab.acknowledgements(2)[0].detail.lower()


def test_a_rollback_does_not_wait(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(2)
    lab.first.tick()
    lab.clock.sleep(60)
    agent.tick()
    lab.publish(1, kind="rollback")
    assert agent.tick().served == {"stable": 1}


def test_acknowledgements_that_cannot_be_read_make_it_wait_and_nothing_else(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(release: int) -> Any:
        raise RecordError("It is no acknowledgement.")

    lab.publish(2)
    monkeypatch.setattr(lab.registry, "acknowledgements", unreadable)
    report = lab.agent().tick()
    assert report.served == {"stable": 1}
    assert "the acknowledgements of release 2 cannot be read" in report.detail


def test_a_restarted_server_is_given_the_accepted_release_without_waiting(lab: Any) -> None:
    agent = lab.agent()
    lab.server.config, lab.server.states, lab.server.weights = None, {}, {}
    assert agent.tick().served == {"stable": 1}


def test_a_server_that_is_emptied_while_its_host_waits_gets_what_was_served(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(2)
    agent.tick()
    lab.server.config, lab.server.states, lab.server.weights = None, {}, {}
    report = agent.tick()
    assert report.served == {"stable": 1}
    assert report.loaded == (1, 2), "and the new one is ready again"
