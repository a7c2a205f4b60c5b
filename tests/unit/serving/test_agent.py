"""One tick of the agent after the other, on a signed bucket and a model server in memory."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync.errors import ModelServerError, RefusedError, SettingsError
from serving.model_server import VersionState


@pytest.fixture
def lab(agent_lab: ModuleType, tmp_path: Path) -> Any:
    lab = agent_lab.Lab(tmp_path)
    lab.initialise()
    yield lab
    assert lab.server.faults == []


def steps(report: Any) -> list[str]:
    return [step.name for step in report.steps]


FIRST = ["PullVersion", "CheckMemory", "LoadVersions", "ProbeVersion", "MoveLabels", "RecordServing", "Acknowledge"]
NEXT = [*FIRST[:4], "MeasureLatency", *FIRST[4:]]


def test_before_the_first_release_there_is_nothing_to_do_and_the_server_can_start(lab: Any) -> None:
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.exit_code, report.release) == ("idle", 0, None)
    assert report.detail == "No release to serve."
    lab.server.restart(lab.settings.config_path)
    assert steps(agent.tick()) == []


def test_the_first_release_is_served_and_acknowledged_once(lab: Any) -> None:
    lab.publish(1)
    agent = lab.agent()
    report = agent.tick()
    assert steps(report)[-7:] == FIRST
    assert (report.outcome, report.served, report.loaded, report.exit_code) == ("serving", {"stable": 1}, (1,), 0)
    again = agent.tick()
    assert steps(again) == []
    assert steps(lab.agent().tick()) == [], "nor does a new process do or say it again"
    (said,) = lab.acknowledgements(1)
    assert (said.outcome, said.serving_version, said.loaded_versions, said.host) == ("serving", 1, (1,), "host-1")


def test_a_new_release_moves_the_label_and_keeps_the_version_before_for_its_bake_time(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.publish(2)
    report = agent.tick()
    assert steps(report) == NEXT
    assert (report.served, report.loaded) == ({"stable": 2}, (1, 2))
    assert "version 1 stays in memory until" in report.detail
    lab.clock.sleep(lab.settings.bake_seconds)
    assert steps(agent.tick()) == ["UnloadVersions"]
    assert lab.server.available == {2}
    assert (lab.model_dir / "1").is_dir(), "the last good version stays on the disk"


def test_a_version_that_is_neither_served_nor_last_good_leaves_the_disk(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2, 3):
        lab.publish(version)
        agent.tick()
        lab.clock.sleep(lab.settings.bake_seconds)
        agent.tick()
    agent.tick()
    assert sorted(path.name for path in lab.model_dir.iterdir() if path.name.isdecimal()) == ["2", "3"]
    assert not list(lab.model_dir.glob(".removed-*"))


def test_a_rollback_within_the_bake_time_only_moves_the_label(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    lab.publish(1, kind="rollback")
    assert steps(agent.tick()) == ["ProbeVersion", "MoveLabels", "RecordServing", "Acknowledge"]
    assert lab.server.labels == {"stable": 1}


def test_a_rollback_after_the_bake_time_loads_from_the_disk_and_pulls_nothing(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    lab.clock.sleep(lab.settings.bake_seconds)
    agent.tick()
    lab.publish(1, kind="rollback")
    assert steps(agent.tick()) == ["CheckMemory", "LoadVersions", "ProbeVersion", *NEXT[5:]]


def test_a_canary_is_loaded_and_labelled_beside_the_stable_version(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.publish(1, canary=2)
    report = agent.tick()
    assert (report.outcome, report.served) == ("serving", {"stable": 1, "canary": 2})
    lab.publish(2)
    assert agent.tick().served == {"stable": 2}


def test_a_release_that_names_the_same_version_is_acknowledged_too(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.publish(1)
    assert steps(agent.tick()) == ["RecordServing", "Acknowledge"]
    assert [said.outcome for said in lab.acknowledgements(2)] == ["serving"]


def test_a_version_that_does_not_load_is_put_off_longer_each_time(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.server.broken[2] = "OUT_OF_RANGE: Read less bytes than requested"
    lab.publish(2)
    report = agent.tick()
    assert steps(report) == ["PullVersion", "CheckMemory", "LoadVersions", "UnloadVersions", "Acknowledge"]
    assert (report.outcome, report.served, report.exit_code) == ("failed", {"stable": 1}, 10)
    assert "did not load it: OUT_OF_RANGE: Read less bytes than requested" in report.detail
    assert "It is tried again after" in report.detail
    (said,) = lab.acknowledgements(2)
    assert (said.outcome, said.serving_version) == ("failed", 1)
    assert "Read less bytes" in said.detail

    assert steps(agent.tick()) == [], "it does not hammer"
    pauses = []
    for _ in range(9):
        due = datetime.fromisoformat(lab.state()["failure"]["retry_at"])
        pauses.append((due - lab.clock.now()).total_seconds())
        lab.clock.sleep(pauses[-1] - 1)
        assert steps(agent.tick()) == []
        lab.clock.sleep(1)
        assert steps(agent.tick()) == ["CheckMemory", "LoadVersions", "UnloadVersions"]
    assert [math.ceil(pause) for pause in pauses] == [31, 61, 121, 241, 481, 961, 1921, 3601, 3601]
    assert len(lab.acknowledgements(2)) == 1, "nor does it repeat itself in the bucket"

    lab.server.broken.clear()
    lab.clock.sleep(4000)
    assert agent.tick().served == {"stable": 2}
    assert [said.outcome for said in lab.acknowledgements(2)] == ["failed", "serving"]
    assert lab.state()["failure"] is None


def test_the_backoff_survives_a_restart_of_the_agent(lab: Any) -> None:
    lab.publish(1)
    lab.agent().tick()
    lab.server.broken[2] = "broken"
    lab.publish(2)
    lab.agent().tick()
    report = lab.agent().tick()
    assert (steps(report), report.outcome) == ([], "failed")


def test_a_newer_release_is_taken_at_once_while_another_is_put_off(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.server.broken[2] = "broken"
    lab.publish(2)
    agent.tick()
    lab.publish(3)
    assert agent.tick().served == {"stable": 3}


def test_a_version_that_never_becomes_available_is_given_up(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.server.stuck.add(2)
    lab.publish(2)
    report = agent.tick()
    assert (report.outcome, report.served) == ("failed", {"stable": 1})
    assert "it is LOADING after 300 s (load_timeout_seconds)" in report.detail


def test_a_first_release_that_fails_is_taken_back(lab: Any) -> None:
    lab.server.broken[1] = "broken"
    lab.publish(1)
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.served) == ("failed", {})
    assert lab.server.config is None
    lab.publish(2)
    assert agent.tick().served == {"stable": 2}


@pytest.mark.parametrize(
    ("kind", "words"),
    [("nan", "4 with NaN or infinity"), ("skewed", "largest difference")],
)
def test_a_version_that_answers_otherwise_than_at_the_training_site_gets_no_label(
    lab: Any, kind: str, words: str
) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    getattr(lab.server, kind).add(2)
    lab.publish(2)
    report = agent.tick()
    assert steps(report) == [
        "PullVersion",
        "CheckMemory",
        "LoadVersions",
        "ProbeVersion",
        "UnloadVersions",
        "Acknowledge",
    ]
    assert (report.outcome, report.served, report.loaded) == ("failed", {"stable": 1}, (1,))
    assert words in report.detail
    assert words in lab.acknowledgements(2)[0].detail


def test_a_version_without_golden_examples_gets_no_label(lab: Any, agent_lab: ModuleType) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    agent_lab.write_export(lab.root / "runs" / "2", weight=2.0, has_golden_examples=False)
    lab.publish(2)
    report = agent.tick()
    assert (report.outcome, report.served) == ("refused", {"stable": 1})
    assert "it has no assets.extra/golden_examples.json" in report.detail


def test_an_empty_server_is_given_what_was_accepted(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.server.config, lab.server.states, lab.server.weights = None, {}, {}
    assert steps(agent.tick()) == ["LoadVersions", "ProbeVersion", "MoveLabels"]
    assert lab.server.labels == {"stable": 1}
    assert len(lab.acknowledgements(1)) == 1


def test_a_restarted_server_comes_back_from_its_file_without_the_agent(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.server.is_down = True
    lab.clock.sleep(1)
    report = agent.tick()
    assert (report.outcome, report.served, report.exit_code) == ("unreachable", None, 10)
    assert lab.acknowledgements(1)[-1].outcome == "failed"
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 1}
    lab.clock.sleep(1)
    agent.tick()
    assert [said.outcome for said in lab.acknowledgements(1)] == ["serving", "failed", "serving"]


def test_a_server_that_restarted_with_an_old_file_is_brought_forward(lab: Any) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    old = lab.settings.config_path.read_bytes()
    lab.publish(2)
    agent.tick()
    lab.settings.config_path.write_bytes(old)
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 1}
    report = agent.tick()
    assert report.served == {"stable": 2}
    assert b"versions: 2" in lab.settings.config_path.read_bytes()


def test_an_accepted_version_that_no_longer_loads_gives_way_to_the_last_good_one(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    lab.server.broken[2] = "out of memory"
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {}
    report = agent.tick()
    assert (report.outcome, report.served) == ("failed", {"stable": 1})
    assert lab.acknowledgements(2)[-1].serving_version == 1
    lab.server.broken.clear()
    lab.clock.sleep(60)
    assert agent.tick().served == {"stable": 2}


@pytest.mark.parametrize("call", ["reload", "predict"])
def test_a_server_that_dies_during_the_move_comes_back_on_the_old_version_and_is_not_killed_at_once_again(
    lab: Any, call: str
) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    lab.server.dies_at = call
    lab.publish(2)
    report = agent.tick()
    assert (report.outcome, report.served) == ("unreachable", None)
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 1}
    assert "LoadVersions" not in steps(agent.tick())
    lab.clock.sleep(60)
    assert agent.tick().served == {"stable": 2}


def test_a_host_goes_back_to_the_last_good_version_without_the_bucket(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    lab.store.is_away = True
    lab.clock.sleep(1)
    report = agent.return_to_last_good(reason="users complain")
    assert report.served == {"stable": 1}
    lab.store.is_away = False
    report = agent.tick()
    assert (report.outcome, report.served) == ("failed", {"stable": 1})
    assert lab.acknowledgements(2)[-1].detail == "users complain"
    lab.publish(3)
    assert agent.tick().served == {"stable": 3}


def test_without_another_good_version_there_is_no_way_back(lab: Any) -> None:
    lab.publish(1)
    agent = lab.agent()
    agent.tick()
    with pytest.raises(RefusedError, match="no other good version"):
        agent.return_to_last_good(reason="users complain")


def test_an_unreadable_state_file_costs_memory_but_not_service(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    (lab.model_dir / "state.json").write_bytes(b"{}")
    report = agent.tick()
    assert (report.outcome, report.served) == ("serving", {"stable": 2})
    assert "set aside as state.json.unreadable" in report.detail
    assert {"LoadVersions", "MoveLabels"} & set(steps(report)) == set()
    assert (lab.model_dir / "1").is_dir()


def test_a_stop_ends_the_tick_between_two_steps_and_the_next_one_goes_on(lab: Any) -> None:
    lab.publish(1)
    asked = iter([False] * 3 + [True] * 100)
    report = lab.agent(should_stop=lambda: next(asked)).tick()
    assert (report.outcome, report.exit_code) == ("stopped", 0)
    assert 0 < len(report.steps) < 7
    assert lab.agent().tick().served == {"stable": 1}


def test_a_stop_ends_a_wait_for_the_server(lab: Any) -> None:
    lab.publish(1)
    lab.server.stuck.add(1)
    report = lab.agent(should_stop=lambda: lab.server.config is not None).tick()
    assert report.outcome == "stopped"
    assert lab.state()["failure"] is None


def test_another_host_that_configures_the_server_is_overruled(lab: Any) -> None:
    agent = lab.agent()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    config = lab.server.config
    lab.server.config = type(config)(config.name, config.base_path, (1, 2), {"stable": 1})
    assert steps(agent.tick()) == ["ProbeVersion", "MoveLabels"]
    assert lab.server.labels == {"stable": 2}


def test_a_server_that_says_yes_and_does_nothing_is_found_out(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    real = lab.server.reload
    monkeypatch.setattr(
        lab.server,
        "reload",
        lambda configs, *, timeout_seconds: (
            None if configs and configs[0].labels.get("stable") == 2 else real(configs, timeout_seconds=timeout_seconds)
        ),
    )
    lab.publish(2)
    report = agent.tick()
    assert (report.outcome, report.served) == ("failed", {"stable": 1})
    assert "answers with {'stable': 1}" in report.detail


def test_a_refusal_of_the_reload_is_said_with_the_servers_words(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.publish(1)

    def refuse(configs: object, *, timeout_seconds: float) -> None:
        raise ModelServerError("INVALID_ARGUMENT: no")

    monkeypatch.setattr(lab.server, "reload", refuse)
    report = lab.agent().tick()
    assert (report.outcome, report.exit_code) == ("failed", 10)
    assert "INVALID_ARGUMENT: no" in report.detail


def test_a_report_is_plain_json(lab: Any) -> None:
    lab.publish(1)
    document = json.loads(json.dumps(lab.agent().tick().as_dict()))
    assert document["served"] == {"stable": 1}
    assert document["steps"][-1]["name"] == "Acknowledge"
    assert document["model"] == "shapes"


def test_settings_for_another_model_are_refused(lab: Any) -> None:
    settings = lab.settings.model_copy(update={"model": "flowers"})
    with pytest.raises(SettingsError, match="'flowers'"):
        lab.agent(settings=settings).tick()


def test_loading_is_watched_on_the_server_not_assumed(lab: Any) -> None:
    lab.publish(1)
    lab.agent().tick()
    assert lab.server.states[1].state is VersionState.AVAILABLE
    loads, moves = lab.server.reloads
    assert (dict(loads[0].labels), dict(moves[0].labels)) == ({}, {"stable": 1})
