"""What the agent does when the bucket, the disk or the model server is against it: it keeps serving and says why."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync import durable
from artifact_sync.errors import CapacityError


@pytest.fixture
def agent_lab() -> ModuleType:
    import importlib.util
    import sys

    if "agent_lab" not in sys.modules:
        spec = importlib.util.spec_from_file_location("agent_lab", Path(__file__).parents[1] / "agent_lab.py")
        sys.modules["agent_lab"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["agent_lab"])
    return sys.modules["agent_lab"]


@pytest.fixture
def lab(agent_lab: ModuleType, memory_path: Path) -> Any:
    """A host that serves version 1; release 2 is ready in the bucket."""
    lab = agent_lab.Lab(memory_path)
    lab.initialise()
    lab.publish(1)
    lab.agent().tick()
    lab.publish(2)
    yield lab
    assert lab.server.faults == []


def steps(report: Any) -> list[str]:
    return [step.name for step in report.steps]


def test_a_tampered_blob_is_refused_and_taken_once_it_is_right_again(lab: Any, agent_lab: ModuleType) -> None:
    blob = lab.blob(2, agent_lab.WEIGHTS)
    right = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(right.replace(b"2", b"6"))
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.exit_code, report.served) == ("refused", 5, {"stable": 1})
    assert "variables/variables.data-00000-of-00001 refused" in report.detail
    assert "is not what was signed" in lab.acknowledgements(2)[0].detail
    assert lab.acknowledgements(2)[0].outcome == "refused"
    assert not (lab.model_dir / "2").exists()

    assert steps(agent.tick()) == [], "it is not downloaded again at every look"
    blob.write_bytes(right)
    lab.clock.sleep(60)
    assert agent.tick().served == {"stable": 2}


def test_a_missing_blob_is_refused(lab: Any, agent_lab: ModuleType) -> None:
    lab.blob(2, agent_lab.GRAPH).unlink()
    # Both versions have the same graph, and one blob of it; version 1 is on the disk already.
    report = lab.agent().tick()
    assert (report.outcome, report.exit_code, report.served) == ("refused", 5, {"stable": 1})


@pytest.mark.parametrize("name", ["versions/000002.json", "releases/000002.json"])
@pytest.mark.parametrize("change", ["tampered", "removed"])
def test_readable_copies_are_for_people_and_change_nothing(
    lab: Any, agent_lab: ModuleType, name: str, change: str
) -> None:
    path = lab.bucket / agent_lab.MODEL / name
    path.chmod(0o644)
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b'"stable":2', b'"stable":1').replace(b'"sam"', b'"eve"'))
    assert lab.agent().tick().served == {"stable": 2}


def test_a_tampered_release_blob_is_refused_and_said_about_what_is_served(lab: Any, agent_lab: ModuleType) -> None:
    view = lab.reader("other").refresh()
    blob = lab.bucket / lab.registry.blob_key(view.release_sha256(2))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b'"stable":2', b'"stable":1'))
    report = lab.agent().tick()
    assert (report.outcome, report.exit_code, report.served, report.release) == ("refused", 6, {"stable": 1}, None)
    (serving, refused) = lab.acknowledgements(1)
    assert {serving.outcome, refused.outcome} == {"serving", "refused"}


def test_metadata_of_a_stranger_is_refused(lab: Any, agent_lab: ModuleType, memory_path: Path) -> None:
    stranger = agent_lab.Lab(memory_path / "stranger")
    stranger.initialise()
    stranger.publish(3)
    metadata = lab.bucket / agent_lab.MODEL / "metadata"
    shutil.rmtree(metadata)
    shutil.copytree(stranger.bucket / agent_lab.MODEL / "metadata", metadata)
    report = lab.agent().tick()
    assert (report.outcome, report.exit_code, report.served) == ("refused", 6, {"stable": 1})


def test_an_older_bucket_is_refused_even_when_the_host_lost_its_metadata(lab: Any, agent_lab: ModuleType) -> None:
    metadata = lab.bucket / agent_lab.MODEL / "metadata"
    shutil.copytree(metadata, lab.root / "old")
    agent = lab.agent()
    lab.publish(1)
    agent.tick()
    shutil.rmtree(metadata)
    shutil.copytree(lab.root / "old", metadata)
    shutil.rmtree(lab.root / "host" / "trust")
    report = lab.agent().tick()
    assert (report.outcome, report.served) == ("refused", {"stable": 1})
    assert "the bucket's newest is 2, this host has seen 3" in report.detail


def test_expired_metadata_is_said_once_and_what_is_served_stays(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = agent_lab.Lab(memory_path)
    lab.initialise()
    lab.publish(1)
    agent = lab.agent()
    agent.tick()
    # Signed again as if that had been a month ago: the timestamp is believed for a week.
    lab.clock = agent_lab.ManualClock(datetime.now(UTC).replace(microsecond=0) - timedelta(days=30))
    lab.renew()
    reports = [agent.tick() for _ in range(3)]
    for report in reports:
        assert (report.outcome, report.exit_code, report.served) == ("refused", 6, {"stable": 1})
        assert "too old to be believed" in report.detail
    assert sorted(said.outcome for said in lab.acknowledgements(1)) == ["refused", "serving"]
    lab.server.restart(lab.settings.config_path)
    assert agent.tick().served == {"stable": 1}
    lab.clock = agent_lab.ManualClock(datetime.now(UTC).replace(microsecond=0))
    lab.renew()
    assert agent.tick().outcome == "serving"
    assert len(lab.acknowledgements(1)) == 3


def test_while_the_bucket_is_away_the_host_serves_on_and_mends_its_server(lab: Any) -> None:
    lab.store.is_away = True
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.exit_code, report.served) == ("unreachable", 8, {"stable": 1})
    assert "The bucket cannot be reached" in report.detail
    lab.server.config, lab.server.states, lab.server.weights = None, {}, {}
    report = agent.tick()
    assert steps(report) == ["LoadVersions", "ProbeVersion", "MoveLabels"]
    assert report.served == {"stable": 1}
    lab.store.is_away = False
    assert agent.tick().served == {"stable": 2}


def test_a_bucket_that_goes_away_during_the_pull_is_no_failure_of_the_release(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lab.registry.open_blob
    digests = {entry.sha256 for entry in lab.manifests[2].files} - {entry.sha256 for entry in lab.manifests[1].files}

    def open_blob(sha256: str) -> Any:
        lab.store.is_away = lab.store.is_away or sha256 in digests
        return real(sha256)

    monkeypatch.setattr(lab.registry, "open_blob", open_blob)
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.exit_code, report.served) == ("unreachable", 8, {"stable": 1})
    assert lab.state()["failure"] is None
    monkeypatch.undo()
    lab.store.is_away = False
    assert agent.tick().served == {"stable": 2}, "at the next look, without a pause"


def test_an_acknowledgement_that_did_not_arrive_is_sent_later(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lab.registry.write_acknowledgement

    def fail(record: Any) -> None:
        lab.store.is_away = True
        real(record)

    monkeypatch.setattr(lab.registry, "write_acknowledgement", fail)
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.served) == ("unreachable", {"stable": 2})
    monkeypatch.undo()
    lab.store.is_away = False
    assert steps(agent.tick()) == ["Acknowledge"]
    assert [said.outcome for said in lab.acknowledgements(2)] == ["serving"]


def test_a_disk_without_room_is_seen_before_the_pull(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 990, 10))
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.exit_code, report.served) == ("refused", 12, {"stable": 1})
    assert "10 are free" in report.detail
    assert lab.acknowledgements(2)[0].outcome == "refused"
    monkeypatch.undo()
    lab.clock.sleep(60)
    assert agent.tick().served == {"stable": 2}


def test_a_full_disk_does_not_keep_the_agent_from_bringing_the_server_back(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = lab.agent()
    agent.tick()
    lab.server.config, lab.server.states, lab.server.weights = None, {}, {}
    real = durable.os.fsync

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    lab.store.is_away = True
    monkeypatch.setattr(durable.os, "fsync", no_room)
    assert agent.tick().served == {"stable": 2}
    monkeypatch.setattr(durable.os, "fsync", real)


def test_a_disk_that_fills_up_while_the_state_is_written_is_said(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving import step_runner

    def no_room(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(step_runner, "write_durably", no_room)
    agent = lab.agent()
    report = agent.tick()
    assert (report.outcome, report.exit_code) == ("refused", CapacityError.exit_code)
    assert "models.config: No space left on device" in report.detail
    assert report.served == {"stable": 2}, "the label moved; the old version is in the file and comes back on a restart"
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 1}
    monkeypatch.undo()
    assert agent.tick().outcome == "serving"


def test_a_damaged_directory_is_mended_from_the_bucket_while_it_is_served(lab: Any, agent_lab: ModuleType) -> None:
    agent = lab.agent()
    agent.tick()
    for name, data in ((agent_lab.GRAPH, b"tampered"), ("variables/extra", b"?"), ("other/file", b"?")):
        (lab.model_dir / "2" / name).parent.mkdir(exist_ok=True)
        (lab.model_dir / "2" / name).write_bytes(data)
    (lab.model_dir / "2" / "variables" / "variables.index").unlink()
    report = agent.tick()
    assert steps(report) == ["WriteConfig", "PullVersion"]
    assert (report.outcome, report.served) == ("serving", {"stable": 2})
    agent.tick()
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 2}
    assert not (lab.model_dir / "2" / "other").exists()


def test_a_damaged_directory_is_not_loaded_by_a_restart_while_the_bucket_is_away(
    lab: Any, agent_lab: ModuleType
) -> None:
    agent = lab.agent()
    agent.tick()
    (lab.model_dir / "2" / agent_lab.GRAPH).write_bytes(b"tampered")
    lab.store.is_away = True
    report = agent.tick()
    assert report.served == {"stable": 2}, "what is in memory was verified when it was loaded"
    lab.server.restart(lab.settings.config_path)
    assert lab.server.labels == {"stable": 1}, "the last good version stands in"
    assert agent.tick().served == {"stable": 1}
    lab.store.is_away = False
    assert agent.tick().served == {"stable": 2}


def test_a_way_back_that_cannot_be_mended_is_said_and_not_downloaded_at_every_look(
    lab: Any, agent_lab: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = lab.agent()
    agent.tick()
    (lab.model_dir / "1" / agent_lab.WEIGHTS).write_bytes(b"9.9")
    blob = lab.blob(1, agent_lab.WEIGHTS)
    blob.chmod(0o644)
    blob.write_bytes(b"9.9")
    report = agent.tick()
    assert (report.outcome, report.served, steps(report)) == (
        "serving",
        {"stable": 2},
        ["PullVersion", "RemoveVersions"],
    )
    assert "is not what was signed" in report.detail
    assert steps(agent.tick()) == []
    assert [said.outcome for said in lab.acknowledgements(2)] == ["serving"]
    lab.publish(1)
    assert agent.tick().outcome == "refused", "it is tried again when a release names it"


@pytest.mark.parametrize("is_bucket_tampered", [False, True])
def test_a_new_process_reads_every_byte_again(lab: Any, agent_lab: ModuleType, is_bucket_tampered: bool) -> None:
    agent = lab.agent()
    agent.tick()
    path = lab.model_dir / "2" / agent_lab.GRAPH
    info = path.stat()
    path.write_bytes(b"A graph")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert path.stat().st_mtime_ns == info.st_mtime_ns
    if is_bucket_tampered:
        blob = lab.blob(2, agent_lab.GRAPH)
        blob.chmod(0o644)
        blob.write_bytes(b"A graph")
    report = lab.agent().tick()
    assert report.served == {"stable": 2}
    assert report.outcome == ("refused" if is_bucket_tampered else "serving")
    assert path.read_bytes() == (b"A graph" if is_bucket_tampered else b"a graph")


def test_a_version_record_that_was_changed_along_with_its_files_is_not_believed(
    lab: Any, agent_lab: ModuleType
) -> None:
    from artifact_sync.manifest import build_manifest
    from artifact_sync.records import VersionRecord

    lab.agent().tick()
    (lab.model_dir / "2" / agent_lab.GRAPH).write_bytes(b"tampered")
    path = lab.model_dir / ".records" / "000002.json"
    record = VersionRecord.from_json(path.read_bytes())
    path.write_bytes(record.model_copy(update={"manifest": build_manifest(lab.model_dir / "2")}).to_json())
    report = lab.agent().tick()
    assert "PullVersion" in steps(report)
    assert (lab.model_dir / "2" / agent_lab.GRAPH).read_bytes() == b"a graph"
    assert json.loads(path.read_bytes()) == json.loads(record.to_json())
