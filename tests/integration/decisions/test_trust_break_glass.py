"""What the break-glass key may do, what neither it nor the releaser's key can do alone, and how it is changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import ValidationError
from tuf.api.metadata import TargetFile

from artifact_sync.errors import LostRaceError, NotFoundError, RefusedError, SettingsError, TrustError
from artifact_sync.records import Emergency, ReleaseRecord, TrafficShare, VersionRecord
from artifact_sync.trust.ceremony import publish_rotation, rotate_trust
from artifact_sync.trust.change import draft_change, sign_change
from artifact_sync.trust.emergencies import list_emergency
from artifact_sync.trust.lists import emergencies_document, target_file
from artifact_sync.trust.roles import Roles
from artifact_sync.trust.signing import sign

YEAR = timedelta(days=365)


@pytest.fixture
def served(emergency_site):
    """Release 1 serves approved version 1; run-b has no verdict that counts."""
    site = emergency_site
    site.promote(site.approved_run("run-a"))
    site.other = site.run("run-b", outcome="not better")
    return site


def release_after(site, **changes: object) -> ReleaseRecord:
    """What the holder of the releaser's key could write as the next release."""
    view = site.publisher().view()
    number = view.release_numbers[-1] + 1
    fields = {
        "model": site.model,
        "number": number,
        "kind": "rollback",
        "stable": 1,
        "reason": "because",
        "by": "mallory",
        "previous_sha256": view.release_sha256(number - 1),
        "created_at": site.now,
    }
    return ReleaseRecord(**{**fields, **changes})


def forge(site, **changes: object) -> None:
    """Publish that release past every check of this program, as a stolen releaser's key can."""
    record = release_after(site, **changes)
    publisher, state = site.publisher(), site.publisher().state()
    site.registry.put_blob(record.to_json(), sha256=record.sha256)
    path = f"releases/{record.number:06d}.json"
    listed = {**state.releases.targets, path: target_file(path, record.to_json())}
    publisher._create_releases(state, listed, now=site.now)
    publisher.complete(now=site.now)


def refusal(site) -> str:
    """The words in which a host refuses the newest release."""
    view = site.fresh_reader().refresh()
    with pytest.raises(TrustError) as caught:
        view.latest_release()
    return str(caught.value)


def role_of(site) -> str:
    role = site.roles.break_glass_role
    assert role is not None
    return role


def put_list(site, listed: dict[str, TargetFile], *, by: str) -> None:
    """Put a list of emergencies in its place, signed by whomever, and have the snapshot name it."""
    document = emergencies_document(listed, number=1, expires=site.now + YEAR)
    site.registry.create_metadata(role_of(site), 1, sign(document, [site.keys[by]]))


# What is there without it stays as it was.


def test_a_site_without_the_key_has_the_lists_that_it_always_had(site) -> None:
    state = site.publisher().state()
    assert state.targets.delegations is not None
    assert list(state.targets.delegations.roles or {}) == ["releases"]
    assert sorted(state.snapshot.meta) == ["releases.json", "targets.json"]
    assert site.publisher().view().roles.break_glass is None


def test_without_the_key_there_is_no_such_way(site) -> None:
    record = emergency_version(site, release=1)
    with pytest.raises(RefusedError, match=r"no break-glass key.*keys rotate --break-glass"):
        list_emergency(site.registry, site.publisher().state(), record, site.keys["mallory"], now=site.now, period=YEAR)


def emergency_version(site, *, release: int, version: int = 900_000, reason: str = "fire") -> VersionRecord:
    run = site.run(f"run-{release}-{version}", outcome="not better")
    record = run.read_run()
    return VersionRecord(
        model=site.model,
        version=version,
        manifest=run.read_manifest(),
        lineage=record.lineage(),
        input_contract=record.input_contract,
        labels=record.labels,
        emergency=Emergency(release=release, by="gail", reason=reason, verdict="none"),
        created_at=site.now,
    )


def test_a_version_rests_on_evidence_or_on_an_emergency_and_its_number_says_which(served) -> None:
    record = emergency_version(served, release=2)
    approved = served.publisher().view().version(1)
    for wrong in (
        {"version": 2},
        {"emergency": None},
        {"evidence": approved.evidence},
    ):
        with pytest.raises(ValidationError):
            VersionRecord.model_validate({**record.model_dump(), **wrong})
    with pytest.raises(ValidationError):
        VersionRecord.model_validate({**approved.model_dump(), "version": 900_000})


def test_records_from_before_there_were_emergencies_keep_their_bytes(served) -> None:
    text = served.publisher().view().version(1).to_json()
    assert b"emergency" not in text
    assert VersionRecord.from_json(text).to_json() == text


def test_a_release_cannot_hide_or_pretend_an_emergency(served) -> None:
    with pytest.raises(ValidationError, match="version of an emergency"):
        release_after(served, kind="break-glass")
    with pytest.raises(ValidationError, match="not a canary"):
        release_after(served, canary=TrafficShare(version=900_000, percent=1))


# What hosts take.


def test_hosts_take_what_both_keys_signed(served) -> None:
    done = served.break_glass(served.other)
    for reader in (served.fresh_reader(), served.reader("host")):
        view = reader.refresh()
        latest = view.latest_release()
        assert latest == done.release
        assert (latest.kind, latest.stable, latest.is_emergency) == ("break-glass", 900_000, True)
        assert view.version(900_000) == done.version
        assert view.version_numbers == (1, 900_000)
        assert (view.next_version, view.next_emergency_version) == (2, 900_001)


def test_a_host_that_was_there_before_follows(served) -> None:
    host = served.reader("host")
    assert host.refresh().version_numbers == (1,)
    served.break_glass(served.other)
    assert host.refresh().version_numbers == (1, 900_000)


def test_people_find_a_readable_copy(served) -> None:
    served.break_glass(served.other)
    keys = [info.key for info in served.store.list(f"{served.model}/versions/")]
    assert keys == [f"{served.model}/versions/000001.json", f"{served.model}/versions/900000.json"]


# What one key alone cannot do.


def test_the_releasers_key_alone_cannot_name_a_version_that_nobody_listed(served) -> None:
    with pytest.raises(LostRaceError):
        served.publisher().publish_release(release_after(served, kind="break-glass", stable=900_000), now=served.now)
    forge(served, kind="break-glass", stable=900_000)
    assert "names version 900000, which the approvers did not sign" in refusal(served)


def test_the_releasers_key_alone_cannot_list_a_version(served) -> None:
    record = emergency_version(served, release=2)
    path = f"versions/{record.version:06d}.json"
    put_list(served, {path: target_file(path, record.to_json())}, by="releaser")
    with pytest.raises(TrustError, match=r"1\.break-glass-.* has 0 of the 1 signatures"):
        served.publisher().complete(now=served.now)
    assert served.fresh_reader().refresh().version_numbers == (1,)


def test_a_snapshot_with_a_list_of_the_wrong_key_is_refused_by_hosts(served) -> None:
    served.break_glass(served.other)
    name = f"{served.model}/metadata/1.{role_of(served)}.json"
    document = emergencies_document({}, number=1, expires=served.now + YEAR)
    served.store.replace(name, sign(document, [served.keys["releaser"]]))
    with pytest.raises(TrustError, match="is not the file that the signed list names"):
        served.fresh_reader().refresh()


def test_a_removed_list_is_noticed(served) -> None:
    served.break_glass(served.other)
    served.store.delete(f"{served.model}/metadata/1.{role_of(served)}.json")
    with pytest.raises(TrustError, match=r"1\.break-glass-.*is not in the bucket"):
        served.fresh_reader().refresh()
    with pytest.raises(TrustError, match="is signed but not in the bucket"):
        served.publisher().view()


def test_the_break_glass_key_alone_changes_nothing_that_is_served(served) -> None:
    record = emergency_version(served, release=2)
    list_emergency(
        served.registry, served.publisher().state(), record, served.keys["glass"], now=served.now, period=YEAR
    )
    assert served.fresh_reader().refresh().version_numbers == (1,)
    assert served.publisher().complete(now=served.now) == ("versions/900000", "timestamp 3")
    assert served.fresh_reader().refresh().latest_release().stable == 1


def test_a_number_that_somebody_was_quicker_to_list_is_not_listed_again(served) -> None:
    first, second = emergency_version(served, release=2), emergency_version(served, release=3, reason="flood")
    assert first.version == second.version
    key, registry = served.keys["glass"], served.registry
    list_emergency(registry, served.publisher().state(), first, key, now=served.now, period=YEAR)
    stale = served.publisher().state()
    with pytest.raises(LostRaceError, match=r"1\.break-glass-.*created by somebody else"):
        list_emergency(registry, stale, second, key, now=served.now, period=YEAR)
    served.publisher().complete(now=served.now)
    with pytest.raises(LostRaceError, match="listed by somebody else"):
        list_emergency(registry, served.publisher().state(), second, key, now=served.now, period=YEAR)
    assert served.fresh_reader().refresh().version(900_000) == first


def test_the_break_glass_key_cannot_publish(served) -> None:
    with pytest.raises(RefusedError, match="not the releaser's"):
        served.break_glass(served.other, releaser=served.keys["glass"])


def test_another_key_is_told_whose_is_needed(served) -> None:
    for name in ("releaser", "alice", "mallory", "other-glass"):
        with pytest.raises(RefusedError, match=f"the key of {name} is not the trusted break-glass key"):
            served.break_glass(served.other, key=served.keys[name])
    assert served.publisher().view().version_numbers == (1,)


@pytest.mark.parametrize("path", ["versions/000002.json", "versions/000001.json", "releases/000002.json", "x"])
def test_the_break_glass_key_cannot_list_what_is_not_its_to_list_nor_stop_anybody(served, path: str) -> None:
    put_list(served, {path: target_file(path, b"whatever")}, by="glass")
    with pytest.raises(TrustError, match=r"may sign (those from 900000 on|versions/NNNNNN\.json)"):
        served.publisher().complete(now=served.now)
    assert served.fresh_reader().refresh().version_numbers == (1,)
    served.store.delete(f"{served.model}/metadata/1.{role_of(served)}.json")
    assert served.publisher().complete(now=served.now) == ()


def test_a_listed_version_whose_record_cannot_be_read_stops_nobody(served) -> None:
    path = "versions/900000.json"
    put_list(served, {path: target_file(path, b"whatever")}, by="glass")
    with pytest.raises(TrustError, match="not in the bucket"):
        served.publisher().complete(now=served.now)
    served.registry.put_blob(b"whatever", sha256=target_file(path, b"whatever").hashes["sha256"])
    with pytest.raises(TrustError, match="refused although it is signed"):
        served.publisher().complete(now=served.now)
    assert served.fresh_reader().refresh().version_numbers == (1,)


def test_a_list_that_lets_go_of_a_version_is_not_taken_in(served) -> None:
    served.break_glass(served.other)
    document = emergencies_document({}, number=2, expires=served.now + YEAR)
    served.registry.create_metadata(role_of(served), 2, sign(document, [served.keys["glass"]]))
    with pytest.raises(TrustError, match="leaves out or changes a version"):
        served.publisher().complete(now=served.now)
    assert served.fresh_reader().refresh().latest_release().stable == 900_000


def test_the_releasers_key_alone_cannot_bring_an_emergency_back(served) -> None:
    served.break_glass(served.other)
    served.roll_back()
    forge(served, stable=900_000)
    assert "may stay from there on, but not come back" in refusal(served)


def test_nor_by_pretending_that_it_is_the_emergency_again(served) -> None:
    done = served.break_glass(served.other)
    served.roll_back()
    forge(served, kind="break-glass", stable=900_000, by=done.release.by, reason=done.release.reason)
    assert "went past the gate for release 2 only" in refusal(served)


def test_nor_an_emergency_whose_release_was_lost(served) -> None:
    record = emergency_version(served, release=2)
    list_emergency(
        served.registry, served.publisher().state(), record, served.keys["glass"], now=served.now, period=YEAR
    )
    served.publisher().complete(now=served.now)
    forge(served, reason="first", canary=None)
    forge(served, kind="break-glass", stable=900_000, by="gail", reason="fire")
    assert "went past the gate for release 2 only" in refusal(served)


@pytest.mark.parametrize("change", [{"kind": "promotion"}, {"by": "somebody"}, {"reason": "all is well"}])
def test_the_release_says_what_the_break_glass_key_signed(served, change: dict[str, str]) -> None:
    record = emergency_version(served, release=2)
    list_emergency(
        served.registry, served.publisher().state(), record, served.keys["glass"], now=served.now, period=YEAR
    )
    served.publisher().complete(now=served.now)
    forge(served, **{"kind": "break-glass", "stable": 900_000, "by": "gail", "reason": "fire", **change})
    assert "went past the gate for release 2 only" in refusal(served)


def test_it_may_stay_beside_a_canary_and_after_it(served) -> None:
    served.break_glass(served.other)
    forge(served, kind="promotion", stable=900_000, canary=TrafficShare(version=1, percent=5))
    forge(served, kind="rollback", stable=900_000)
    view = served.fresh_reader().refresh()
    assert [view.release(number).stable for number in view.release_numbers] == [1, 900_000, 900_000, 900_000]


# Naming, changing and removing the key.


@pytest.mark.parametrize("name", ["root-1", "alice", "releaser"])
def test_it_must_be_a_key_of_its_own(emergency_site, name: str) -> None:
    with pytest.raises(SettingsError, match=f"break-glass key is also the .* key of {name}"):
        replace(emergency_site.roles, break_glass=emergency_site.keys[name].public)


def test_a_site_that_was_there_before_can_name_one(site) -> None:
    host, mallory = site.reader("host"), site.keys["mallory"]
    site.promote(site.approved_run("run-a"))
    host.refresh()
    signers = [site.keys[name] for name in ("root-1", "alice", "releaser")]
    rotate_trust(site.reader(), replace(site.roles, break_glass=mallory.public), signers, now=site.now)
    assert host.refresh().roles.break_glass == mallory.public
    assert site.fresh_reader().refresh().latest_release().stable == 1


@pytest.mark.parametrize("successor", ["other-glass", None])
def test_after_a_change_of_the_key_all_that_was_served_can_be_read(served, successor: str | None) -> None:
    host = served.reader("host")
    done = served.break_glass(served.other)
    host.refresh()
    served.rotate(served.keys[successor] if successor else None)
    for reader in (host, served.fresh_reader()):
        view = reader.refresh()
        assert view.latest_release() == done.release
        assert view.version(900_000) == done.version
    with pytest.raises(RefusedError):
        served.break_glass(served.other, reason="again")


def test_a_new_key_goes_on_where_the_former_one_ended(served) -> None:
    served.break_glass(served.other)
    served.rotate(served.keys["other-glass"])
    third = served.run("run-c", outcome="not better")
    done = served.break_glass(third, key=served.keys["other-glass"])
    assert (done.version.version, done.release.number) == (900_001, 3)
    served.rotate(served.keys["glass"])
    fourth = served.run("run-d", outcome="not better")
    assert served.break_glass(fourth).version.version == 900_002
    view = served.fresh_reader().refresh()
    assert view.version_numbers == (1, 900_000, 900_001, 900_002)
    assert [view.release(number).kind for number in view.release_numbers] == ["promotion", *["break-glass"] * 3]


def test_a_list_of_a_former_key_is_not_looked_at(served) -> None:
    served.rotate(served.keys["other-glass"])
    record = emergency_version(served, release=2)
    path = f"versions/{record.version:06d}.json"
    put_list(served, {path: target_file(path, record.to_json())}, by="glass")
    assert served.publisher().complete(now=served.now) == ()
    assert served.fresh_reader().refresh().version_numbers == (1,)


def test_a_version_that_was_listed_after_the_draft_is_not_lost(served) -> None:
    view = served.publisher().view()
    roles = replace(served.roles, break_glass=None)
    change = draft_change(roles, model=served.model, now=served.now, view=view)
    for name in ("root-1", "alice"):
        change = sign_change(change, served.keys[name], view=view)
    served.break_glass(served.other)
    with pytest.raises(LostRaceError, match="glass was broken after it was drafted"):
        publish_rotation(change, served.reader(), [served.keys["releaser"]], view=view, now=served.now)
    assert served.fresh_reader().refresh().latest_release().stable == 900_000


def test_even_where_it_was_lost_naming_the_former_key_again_heals_it(served, monkeypatch) -> None:
    view = served.publisher().view()
    roles = replace(served.roles, break_glass=None)
    change = draft_change(roles, model=served.model, now=served.now, view=view)
    for name in ("root-1", "alice"):
        change = sign_change(change, served.keys[name], view=view)
    done = served.break_glass(served.other)
    # As if both had happened between the look and the write.
    monkeypatch.setattr("artifact_sync.trust.ceremony._check_emergencies_kept", lambda *_: None)
    publish_rotation(change, served.reader(), [served.keys["releaser"]], view=view, now=served.now)
    assert "which the approvers did not sign" in refusal(served)
    served.rotate(served.keys["glass"])
    assert served.fresh_reader().refresh().latest_release() == done.release
    assert served.promote(served.approved_run("run-c")).version.version == 2


def test_a_change_of_keys_cannot_smuggle_in_a_version(served) -> None:
    view = served.publisher().view()
    roles = replace(served.roles, break_glass=None)
    honest = draft_change(roles, model=served.model, now=served.now, view=view)
    record = emergency_version(served, release=2)
    path = f"versions/{record.version:06d}.json"
    targets = roles.targets_document(
        {**view.targets.targets, path: target_file(path, record.to_json())},
        number=honest.targets.version,
        expires=honest.targets.expires,
    )
    forged = honest.model_copy(update={"targets_file": sign(targets, []).decode()})
    with pytest.raises(RefusedError, match="holds more than a change of keys"):
        sign_change(forged, served.keys["alice"], view=view)


def test_the_next_approved_version_keeps_to_its_own_numbers(served) -> None:
    served.break_glass(served.other)
    done = served.promote(served.approved_run("run-c"))
    assert (done.version.version, done.release.number, done.release.is_emergency) == (2, 3, False)
    assert done.version.evidence.champion_version == 900_000
    with pytest.raises(NotFoundError, match="there is 1 to 900000"):
        served.fresh_reader().refresh().version(3)


def test_a_document_with_two_such_roles_is_refused(served) -> None:
    state = served.publisher().state()
    first = replace(served.roles, break_glass=served.keys["glass"].public)
    second = replace(served.roles, break_glass=served.keys["other-glass"].public)
    documents = [roles.targets_document({}, number=9, expires=served.now + YEAR) for roles in (first, second)]
    documents[0].delegations.roles.update(documents[1].delegations.roles)
    documents[0].delegations.keys.update(documents[1].delegations.keys)
    with pytest.raises(TrustError, match="not laid out as Liftgate's is"):
        Roles.of(state.root, documents[0])
