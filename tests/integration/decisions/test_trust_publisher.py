from __future__ import annotations

from datetime import timedelta

import pytest

from artifact_sync.errors import ExpiredError, LostRaceError, RefusedError
from artifact_sync.records import ReleaseRecord
from artifact_sync.trust.proposal import propose_version
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries
from artifact_sync.trust.signing import payload_of


def rollback_record(site, *, number: int = 2, by: str = "rita") -> ReleaseRecord:
    view = site.publisher().view()
    return ReleaseRecord(
        model=site.model,
        number=number,
        kind="rollback",
        stable=1,
        reason="because",
        by=by,
        previous_sha256=view.release_sha256(number - 1),
        created_at=site.now,
    )


@pytest.fixture
def served(site):
    site.promote(site.approved_run("run-a"))
    return site


def test_there_is_nothing_to_complete_when_all_is_published(served) -> None:
    before = served.publisher().state()
    assert served.publisher().complete(now=served.now) == ()
    assert served.publisher().state() == before


def test_timestamp_and_snapshot_have_one_number(served) -> None:
    state = served.publisher().state()
    assert f'"version":{state.snapshot.version}'.encode() in served.registry.read_metadata("timestamp.json")


def test_a_host_with_the_present_timestamp_takes_the_renewed_one(served) -> None:
    host = served.reader("host")
    host.refresh()
    assert served.publisher().renew(now=served.now, is_forced=True) == ("snapshot 3",)
    assert host.refresh().release_numbers == (1,)
    assert host.seen_snapshot_number() == 3


def test_what_is_fresh_is_not_signed_anew(served) -> None:
    assert served.publisher().renew(now=served.now) == ()
    assert served.publisher().renew(now=served.now + timedelta(days=3)) == ()


@pytest.mark.parametrize("days", [4, 40, 400])
def test_what_is_past_half_of_its_time_is_signed_anew(served, days: int) -> None:
    later = served.now + timedelta(days=days)
    assert served.publisher().renew(now=later) == ("snapshot 3",)
    state = served.publisher().state()
    assert state.snapshot.expires > later + timedelta(days=50)
    assert state.releases.expires > later + timedelta(days=180)
    assert served.reader("host").refresh().release_numbers == (1,)


def test_an_expired_state_is_renewed(site) -> None:
    site.expiries = Expiries(timestamp=timedelta(seconds=-1), snapshot=timedelta(seconds=-1))
    site.publisher().renew(now=site.now, is_forced=True)
    with pytest.raises(ExpiredError):
        site.reader("host").refresh()
    site.expiries = Expiries()
    site.publisher().renew(now=site.now)
    assert site.reader("host").refresh().release_numbers == ()


def test_only_the_releasers_key_publishes(served) -> None:
    publisher = Publisher(served.reader(), served.keys["mallory"])
    for act in (publisher.complete, publisher.renew):
        with pytest.raises(RefusedError, match="the key of mallory is not the releaser's"):
            act(now=served.now)


def test_a_release_number_is_won_once(served) -> None:
    served.publisher().publish_release(rollback_record(served), now=served.now)
    with pytest.raises(LostRaceError, match=r"releases/000002.json was created by somebody else"):
        served.publisher().publish_release(rollback_record(served, by="rob"), now=served.now)


def test_signatures_renewed_in_between_do_not_lose_a_release(served) -> None:
    publisher = served.publisher()
    record = rollback_record(served)
    stale = publisher.state()
    served.publisher().renew(now=served.now, is_forced=True)
    states = iter([stale])
    publisher.state = lambda: next(states, None) or served.publisher().state()
    publisher.publish_release(record, now=served.now)
    assert served.reader("host").refresh().latest_release() == record


def test_the_same_proposal_twice_is_one_version(served) -> None:
    view = served.publisher().view()
    record = view.version(1).model_copy(update={"version": 2})
    proposed = propose_version(view, record, expires=served.now + timedelta(days=9))
    alice = served.keys["alice"]
    signatures = {alice.public.key_id: alice.sign(proposed.payload)}
    served.registry.put_blob(record.to_json(), sha256=record.sha256)
    for _ in range(2):
        served.publisher().publish_version(proposed, signatures, now=served.now)
        served.publisher().complete(now=served.now)
    assert served.reader("host").refresh().version_numbers == (1, 2)
    other = propose_version(view, record, expires=served.now + timedelta(days=10))
    with pytest.raises(LostRaceError, match=r"3.targets.json was created by somebody else"):
        served.publisher().publish_version(other, {alice.public.key_id: alice.sign(other.payload)}, now=served.now)


def test_a_version_is_proposed_under_a_new_number_only(served) -> None:
    view = served.publisher().view()
    with pytest.raises(RefusedError, match="a number is never reused"):
        propose_version(view, view.version(1), expires=served.now)


def test_everybody_makes_the_same_proposal(served) -> None:
    view, other = served.reader("alice").refresh(), served.reader("bob").refresh()
    record = view.version(1).model_copy(update={"version": 2})
    first, second = (propose_version(seen, record, expires=served.now) for seen in (view, other))
    assert first == second
    assert payload_of(first.document()) == first.payload


def test_an_older_timestamp_put_back_by_a_slow_writer_is_repaired_by_the_next(served) -> None:
    old = served.registry.read_metadata("timestamp.json")
    served.publisher().publish_release(rollback_record(served), now=served.now)
    served.registry.replace_timestamp(old)
    assert served.publisher().complete(now=served.now) == ("timestamp 3",)
    assert served.reader("host").refresh().release_numbers == (1, 2)


def test_missing_copies_for_people_are_written_by_the_next(served) -> None:
    served.store.delete("photos/releases/000001.json")
    served.publisher().complete(now=served.now)
    with served.store.open("photos/releases/000001.json") as stream:
        assert stream.read() == served.publisher().view().release(1).to_json()


def test_another_releaser_who_goes_on_meanwhile_is_no_attack_and_is_not_undone(served) -> None:
    publisher = served.publisher()
    stale = publisher.state()
    served.publisher().create_snapshot(stale, now=served.now)
    served.publisher().complete(now=served.now)
    publisher.state = lambda: stale
    assert publisher.complete(now=served.now) == ()
    assert b'"version":3' in served.registry.read_metadata("timestamp.json")
