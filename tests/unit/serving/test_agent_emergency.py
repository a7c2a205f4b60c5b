"""A serving host and a version that went past the gate: taken like any other, watched, and never let in by one key."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync.manifest import build_manifest
from artifact_sync.push import push_export
from artifact_sync.records import Emergency, ReleaseRecord, VersionRecord
from artifact_sync.trust.ceremony import rotate_trust
from artifact_sync.trust.emergencies import list_emergency
from artifact_sync.trust.keys import KeyFile
from artifact_sync.trust.lists import target_file
from artifact_sync.trust.publisher import Publisher

NUMBER = 900_000


class EmergencyLab:
    """A lab whose site has named a break-glass key; version 1 is served."""

    def __init__(self, agent_lab: ModuleType, root: Path) -> None:
        self.agent_lab = agent_lab
        self.lab = lab = agent_lab.Lab(root, settings={"probe_seconds": 60})
        lab.initialise()
        self.key = KeyFile(root / "keys" / "glass").create(name="glass", ask_passphrase=None)
        signers = [KeyFile(root / "keys" / name).load(ask_passphrase=None) for name in ("root", "approver", "releaser")]
        self.releaser = signers[-1]
        roles = replace(self.publisher().view().roles, break_glass=self.key.public)
        rotate_trust(lab.reader("site"), roles, signers, now=lab.clock.now())
        lab.publish(1)
        self.agent = lab.agent()
        assert self.agent.tick().served == {"stable": 1}

    def publisher(self) -> Publisher:
        return Publisher(self.lab.reader("site"), self.lab._releaser)

    def list_version(self) -> VersionRecord:
        """Let the holder of the break-glass key list a version for the next release."""
        lab, view = self.lab, self.publisher().view()
        export = lab.root / "runs" / str(NUMBER)
        self.agent_lab.write_export(export, weight=9.0)
        manifest = lab.manifests[NUMBER] = build_manifest(export)
        lab.server.truth[NUMBER] = manifest
        push_export(lab.registry, export, manifest)
        emergency = Emergency(release=len(view.release_numbers) + 1, by="gail", reason="fire", verdict="none")
        approved = self.agent_lab.version_record(1, manifest)
        record = approved.model_copy(update={"version": NUMBER, "evidence": None, "emergency": emergency})
        state, now = self.publisher().state(), lab.clock.now()
        list_emergency(lab.registry, state, record, self.key, now=now, period=timedelta(days=365))
        return record

    def release(self, **changes: object) -> ReleaseRecord:
        """What the releaser's key makes the next release, whether or not hosts will take it."""
        publisher = self.publisher()
        publisher.complete(now=self.lab.clock.now())
        view = publisher.view()
        number = len(view.release_numbers) + 1
        fields = self.agent_lab.release_record(number, 1, previous=view.release_sha256(number - 1)).model_dump()
        record = ReleaseRecord(**{**fields, **changes})
        path = f"releases/{number:06d}.json"
        state = publisher.state()
        self.lab.registry.put_blob(record.to_json(), sha256=record.sha256)
        listed = {**state.releases.targets, path: target_file(path, record.to_json())}
        publisher._create_releases(state, listed, now=self.lab.clock.now())
        publisher.complete(now=self.lab.clock.now())
        return record

    def break_glass(self) -> ReleaseRecord:
        self.list_version()
        return self.release(kind="break-glass", stable=NUMBER, by="gail", reason="fire")


@pytest.fixture
def emergency(agent_lab: ModuleType, memory_path: Path) -> Any:
    yielded = EmergencyLab(agent_lab, memory_path)
    yield yielded
    assert yielded.lab.server.faults == []


def test_an_emergency_is_pulled_checked_served_and_acknowledged(emergency: Any) -> None:
    lab = emergency.lab
    emergency.break_glass()
    report = emergency.agent.tick()
    assert (report.outcome, report.served) == ("serving", {"stable": NUMBER})
    assert (lab.model_dir / str(NUMBER) / "saved_model.pb").is_file()
    assert "ProbeVersion" in [step.name for step in report.steps]
    word = lab.acknowledgements(2)[-1]
    assert (word.outcome, word.serving_version) == ("serving", NUMBER)


def test_what_nobody_judged_is_watched(emergency: Any) -> None:
    lab = emergency.lab
    lab.traffic.reports = (emergency.agent_lab.traffic_report((1, 5000, 5)),)
    emergency.agent.tick()
    emergency.break_glass()
    assert emergency.agent.tick().served == {"stable": NUMBER}
    assert emergency.agent.is_watching()


def test_after_it_the_version_before_comes_back_by_a_rollback(emergency: Any) -> None:
    emergency.break_glass()
    emergency.agent.tick()
    emergency.release(kind="rollback")
    assert emergency.agent.tick().served == {"stable": 1}


def test_a_list_alone_moves_nothing(emergency: Any) -> None:
    emergency.list_version()
    assert emergency.agent.tick().served == {"stable": 1}
    emergency.publisher().complete(now=emergency.lab.clock.now())
    assert emergency.agent.tick().served == {"stable": 1}


def test_the_releasers_key_alone_moves_nothing(emergency: Any) -> None:
    emergency.release(kind="break-glass", stable=NUMBER, by="mallory", reason="fire")
    report = emergency.lab.agent().tick()
    assert report.served == {"stable": 1}
    assert "names version 900000, which the approvers did not sign" in report.detail


def test_nor_does_it_bring_the_emergency_back(emergency: Any) -> None:
    emergency.break_glass()
    emergency.agent.tick()
    emergency.release(kind="rollback")
    assert emergency.agent.tick().served == {"stable": 1}
    emergency.release(kind="rollback", stable=NUMBER)
    report = emergency.agent.tick()
    assert report.served == {"stable": 1}
    assert "may stay from there on, but not come back" in report.detail
