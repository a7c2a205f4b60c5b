"""A version that users suffer from goes back by itself: stable, canary and shadow, with the bucket and without it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serving.traffic.observation import ShadowTraffic


@pytest.fixture
def lab(agent_lab: ModuleType, memory_path: Path) -> Any:
    """Version 2 has just taken the place of 1; `lab.count` sets what one front end has counted since."""
    lab = agent_lab.Lab(memory_path, settings={"probe_seconds": 60})
    lab.initialise()
    lab.count = lambda *versions, **named: setattr(
        lab.traffic, "reports", (agent_lab.traffic_report((1, 5000, 5), *versions, **named),)
    )
    lab.publish(1)
    agent = lab.agent()
    agent.tick()
    lab.count()
    lab.publish(2)
    assert agent.tick().served == {"stable": 2}
    # The first look after the move takes the mark.
    assert agent.must_return() is False
    lab.the_agent = agent
    yield lab
    assert lab.server.faults == []


def steps(report: Any) -> list[str]:
    return [step.name for step in report.steps]


def test_errors_of_users_move_the_label_back_before_the_bucket_is_asked(lab: Any) -> None:
    lab.store.is_away = True
    lab.count((2, 200, 90))
    assert lab.the_agent.is_watching()
    assert lab.the_agent.must_return()
    report = lab.the_agent.tick()
    assert steps(report) == ["ProbeVersion", "MoveLabels", "RecordServing", "UnloadVersions"]
    assert (report.outcome, report.served) == ("unreachable", {"stable": 1})
    assert "90 of 200 requests failed, 5 of 5000 before" in report.detail
    assert b"versions: 1" in lab.settings.config_path.read_bytes()

    lab.store.is_away = False
    report = lab.the_agent.tick()
    assert (report.outcome, report.exit_code) == ("failed", 0)
    word = lab.acknowledgements(2)[-1]
    assert (word.outcome, word.serving_version) == ("failed", 1)
    assert "broke a bound: 90 of 200 requests failed" in word.detail
    lab.clock.sleep(100_000)
    assert steps(lab.the_agent.tick()) == [], "the release is not tried again"
    lab.publish(2)
    assert lab.the_agent.tick().served == {"stable": 2}, "a newer one is"


def test_one_tick_alone_sees_it_too(lab: Any) -> None:
    lab.count((2, 200, 90))
    report = lab.agent().tick()
    assert steps(report)[:4] == ["Withdraw", "ProbeVersion", "MoveLabels", "RecordServing"]
    assert report.served == {"stable": 1}


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"slow": {2: 100}}, "took over 70 ms"),
        ({"top": {2: {"star": 400}}}, "most of all 'star': 100.0% of 400"),
    ],
)
def test_slow_answers_and_other_answers_move_it_back(lab: Any, named: Any, words: str) -> None:
    lab.count((2, 400, 0), **named)
    report = lab.agent().tick()
    assert report.served == {"stable": 1}
    assert words in lab.acknowledgements(2)[-1].detail


def test_a_good_version_stays_and_its_figures_are_said_when_the_watch_is_over(lab: Any) -> None:
    lab.count((2, 4000, 4))
    lab.clock.sleep(lab.settings.bake_seconds)
    report = lab.the_agent.tick()
    assert report.served == {"stable": 2}
    first, last = lab.acknowledgements(2)
    assert "Users' requests" not in first.detail
    assert "Users' requests to version 2: 4000, 4 failed, 95 of 100 answers within 20 ms; to version 1" in last.detail
    assert "5000, 5 failed" in last.detail
    assert not lab.the_agent.is_watching()
    lab.count((2, 9000, 9000))
    assert not lab.the_agent.must_return()
    lab.the_agent.tick()
    assert len(lab.acknowledgements(2)) == 2


def test_what_happened_before_the_move_is_not_held_against_a_version(lab: Any) -> None:
    lab.clock.sleep(lab.settings.bake_seconds)
    lab.the_agent.tick()
    lab.count((2, 1000, 900))
    lab.publish(1)
    lab.the_agent.tick()
    lab.count((2, 1000, 900))
    lab.publish(2)
    lab.the_agent.tick()
    lab.the_agent.must_return()
    lab.count((2, 1300, 900))
    assert lab.the_agent.must_return() is False
    lab.count((2, 1600, 1200))
    assert lab.the_agent.must_return()


def test_the_mark_outlives_the_agent(lab: Any) -> None:
    lab.count((2, 200, 90))
    assert lab.agent().tick().served == {"stable": 1}, "a new process compares with the counters of then"


def test_a_front_end_that_is_away_returns_nothing(lab: Any) -> None:
    lab.traffic.reports = ()
    assert lab.the_agent.must_return() is False
    assert lab.the_agent.tick().served == {"stable": 2}


def test_golden_examples_that_go_wrong_later_move_it_back(lab: Any) -> None:
    lab.server.skewed.add(2)
    assert lab.the_agent.must_return() is False, "they are not replayed at every look"
    lab.clock.sleep(60)
    assert lab.the_agent.must_return()
    report = lab.the_agent.tick()
    assert report.served == {"stable": 1}
    assert lab.state()["withdrawal"]["cause"] == "golden"
    assert "answers otherwise on this host" in lab.acknowledgements(2)[-1].detail


def test_one_bad_answer_is_asked_for_again(lab: Any) -> None:
    real, left = lab.server.predict, [1]

    def predict(model: str, pixels: Any, **named: Any) -> Any:
        answer = real(model, pixels, **named)
        if left[0]:
            left[0] -= 1
            answer = type(answer)(scores=answer.scores * 0, version=answer.version)
        return answer

    lab.server.predict = predict
    lab.clock.sleep(60)
    assert lab.the_agent.must_return() is False
    assert left == [0]


def test_a_version_that_left_the_memory_is_loaded_first(lab: Any) -> None:
    config = lab.server.config
    lab.server.config = type(config)(config.name, config.base_path, (2,), {"stable": 2})
    lab.server.status("shapes")
    assert lab.server.available == {2}
    lab.count((2, 200, 90))
    report = lab.agent().tick()
    assert {"CheckMemory", "LoadVersions"} <= set(steps(report))
    assert report.served == {"stable": 1}


def test_a_dead_server_comes_back_on_the_version_before(lab: Any) -> None:
    lab.count((2, 200, 90))
    lab.server.is_down = True
    report = lab.agent().tick()
    assert (report.outcome, report.served) == ("unreachable", None)
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 1}
    assert lab.agent().tick().served == {"stable": 1}


def test_a_rollback_is_not_watched(lab: Any) -> None:
    lab.publish(1, kind="rollback")
    lab.the_agent.tick()
    assert not lab.the_agent.is_watching()


# Canary and shadow.


@pytest.fixture
def canary(lab: Any) -> Any:
    lab.clock.sleep(lab.settings.bake_seconds)
    lab.publish(2, canary=3)
    assert lab.the_agent.tick().served == {"stable": 2, "canary": 3}
    lab.count((2, 1000, 1))
    lab.the_agent.must_return()
    return lab


def test_a_canary_that_fails_gives_its_users_the_stable_version(canary: Any) -> None:
    canary.count((2, 3000, 3), (3, 150, 50))
    report = canary.agent().tick()
    assert report.served == {"stable": 2, "canary": 2}
    assert report.loaded == (2,)
    word = canary.acknowledgements(3)[-1]
    assert (word.outcome, word.serving_version) == ("failed", 2)
    assert "version 3 (canary) broke a bound: 50 of 150 requests failed, 2 of 2000 before" in word.detail
    canary.server.restart(canary.settings.config_path)
    assert canary.server.labels == {"stable": 2, "canary": 2}
    assert steps(canary.agent().tick()) == []
    canary.publish(2, canary=4)
    assert canary.agent().tick().served == {"stable": 2, "canary": 4}


def test_a_canary_is_compared_with_the_stable_version_at_the_same_time_and_for_as_long_as_it_runs(canary: Any) -> None:
    canary.clock.sleep(30 * 86_400)
    canary.renew()
    assert canary.the_agent.is_watching()
    # Both are as bad: something else is wrong.
    canary.count((2, 3000, 900), (3, 300, 90))
    assert canary.the_agent.must_return() is False
    assert "300, 90 failed" in canary.state()["account"]["figures"]["canary"]
    canary.count((2, 3000, 900), (3, 300, 200))
    assert canary.the_agent.must_return()


def shadow(agent_lab: ModuleType, compared: int, agreed: int) -> ShadowTraffic:
    return ShadowTraffic(
        version=3,
        compared=compared,
        agreed=agreed,
        score_distance_sum=compared * 0.25,
        score_distance_max=1.0,
        dropped=0,
        failed=0,
    )


@pytest.mark.parametrize("least", [None, 0.9])
def test_a_shadow_is_told_of_and_leaves_only_where_a_bound_is_set(
    agent_lab: ModuleType, memory_path: Path, least: float | None
) -> None:
    lab = agent_lab.Lab(memory_path, settings={"min_shadow_agreement": least})
    lab.initialise()
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.publish(1, shadow=3)
    assert agent.tick().served == {"stable": 1, "shadow": 3}
    for compared in (0, 500):
        entry = (shadow(agent_lab, compared, compared // 2),)
        lab.traffic.reports = (agent_lab.traffic_report((1, 500, 0), shadows=entry),)
        lab.clock.sleep(10)
        report = agent.tick()
    word = lab.acknowledgements(2)[-1]
    assert "500 copied requests compared, same first label in 50.0%, mean score distance 0.250" in word.detail
    assert (word.outcome, report.served) == (
        ("serving", {"stable": 1, "shadow": 3}) if least is None else ("failed", {"stable": 1})
    )
    assert lab.acknowledgements(2)[0].outcome == "serving"


def test_the_watch_of_an_earlier_release_goes_on_beside_a_new_canary(lab: Any) -> None:
    lab.publish(2, canary=3)
    lab.the_agent.tick()
    lab.the_agent.must_return()
    lab.count((2, 300, 150), (3, 0, 0))
    assert lab.the_agent.must_return()
    report = lab.the_agent.tick()
    assert report.served == {"stable": 1, "canary": 1}, "nobody's label is gone"
    assert lab.clock.now() - timedelta(hours=1) < report.at
