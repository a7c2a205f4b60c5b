from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import ExpiredError, IntegrityError, RefusedError, TrustError
from artifact_sync.manifest import build_manifest
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries
from validation.programs.model_scan import scan_export
from validation.releases.history import history, trace
from validation.releases.promote import Beside


@pytest.fixture
def served(emergency_site):
    """Release 1 serves version 1, release 2 version 2; run-c is not better."""
    site = emergency_site
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"))
    site.emergency = site.run("run-c", outcome="not better")
    return site


def latest(site):
    return site.fresh_reader().refresh().latest_release()


def test_a_run_that_is_not_better_is_served_and_every_record_says_how(served) -> None:
    done = served.break_glass(served.emergency)
    release, emergency = latest(served), done.version.emergency
    assert release == done.release
    assert (release.number, release.kind, release.stable, release.by) == (3, "break-glass", 900_000, "gail")
    assert (release.canary, release.shadow, release.approval_sha256s) == (None, None, ())
    assert (emergency.release, emergency.by, emergency.verdict) == (3, "gail", "not better")
    assert emergency.reason == release.reason == "the model answers cat to everything"
    assert done.version.evidence is None
    assert done.replaced.number == 2
    assert done.pushed.uploaded_files == 1
    for entry in done.version.manifest.files:
        served.registry.open_blob(entry.sha256).close()


def test_a_run_that_was_never_judged_is_served_too(served) -> None:
    served.emergency.verdict_json.unlink()
    assert served.break_glass(served.emergency).version.emergency.verdict == "none"


def test_a_verdict_about_other_files_is_not_repeated(served) -> None:
    (served.emergency.export / "saved_model.pb").write_bytes(b"another graph")
    served.emergency.manifest_json.write_bytes(build_manifest(served.emergency.export).to_json())
    assert served.break_glass(served.emergency).version.emergency.verdict == "none"


def test_it_can_be_the_first_release(emergency_site) -> None:
    done = emergency_site.break_glass(emergency_site.run("run-a", outcome="cannot tell"))
    assert (done.release.number, done.replaced) == (1, None)
    assert latest(emergency_site).stable == 900_000


def test_again_it_was_there_already(served) -> None:
    first = served.break_glass(served.emergency)
    again = served.break_glass(served.emergency)
    assert (again.release, again.version, again.pushed) == (first.release, first.version, None)
    assert again.replaced == first.replaced
    assert latest(served).number == 3


def test_for_another_reason_nothing_would_change(served) -> None:
    served.break_glass(served.emergency)
    with pytest.raises(RefusedError, match="is what release 3 serves already, as version 900000"):
        served.break_glass(served.emergency, reason="once more")


def test_a_half_published_promotion_is_finished_first(served) -> None:
    run = served.approved_run("run-d")
    served.promote(run)
    served.store.delete(f"{served.model}/metadata/timestamp.json")
    done = served.break_glass(served.emergency)
    assert done.completed[0].startswith("timestamp")
    assert done.release.number == 4


# What it refuses.


def test_what_is_more_than_a_classifier_is_refused(served) -> None:
    with pytest.raises(RefusedError, match=r"labels\.json"):
        served.break_glass(served.emergency, scan=scan_export)
    assert latest(served).number == 2
    assert served.publisher().view().version_numbers == (1, 2)


def test_files_that_are_not_the_manifests_are_refused(served) -> None:
    (served.emergency.export / "saved_model.pb").write_bytes(b"changed")
    with pytest.raises(IntegrityError):
        served.break_glass(served.emergency)
    assert served.publisher().view().version_numbers == (1, 2)


def relabelled(site, run, labels: tuple[str, ...]) -> None:
    run.run_json.write_bytes(run.read_run().model_copy(update={"labels": labels}).to_json())


def test_other_labels_than_the_served_ones_are_refused(served) -> None:
    relabelled(served, served.emergency, ("cat", "frog"))
    with pytest.raises(RefusedError, match=r"labels than version 2, .*\(different: 'dog', 'frog'\)"):
        served.break_glass(served.emergency)


def test_the_same_labels_in_another_order_are_fine(served) -> None:
    relabelled(served, served.emergency, ("dog", "cat"))
    assert served.break_glass(served.emergency).version.labels == ("dog", "cat")


def test_an_export_with_its_own_mind_about_labels_is_refused(served) -> None:
    folder = served.emergency.export / "assets.extra"
    folder.mkdir()
    for text in ('["dog","cat"]', "[", "\xff"):
        (folder / "labels.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(RefusedError, match="under the wrong names"):
            served.break_glass(served.emergency)


def test_a_run_of_another_model_is_refused(served) -> None:
    record = served.emergency.read_run().model_copy(update={"model": "birds"})
    served.emergency.run_json.write_bytes(record.to_json())
    with pytest.raises(RefusedError, match="of model 'birds'"):
        served.break_glass(served.emergency)


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 10_001, "fire\x1b[2J", "\u202efire"])
def test_a_reason_that_is_none_or_plays_with_the_terminal_is_refused(served, reason: str) -> None:
    with pytest.raises(RefusedError, match="reason"):
        served.break_glass(served.emergency, reason=reason)
    assert latest(served).number == 2


def test_a_name_that_plays_with_the_terminal_is_refused(served) -> None:
    with pytest.raises(RefusedError, match="the name"):
        served.break_glass(served.emergency, by="gail\x1b[2J")


@pytest.mark.parametrize("name", ["root", "targets"])
def test_lists_that_hosts_do_not_believe_any_more_are_refused_before_anything_is_written(memory_path, name) -> None:
    from emergency_site import EmergencySite

    site = EmergencySite(memory_path, expiries=replace(Expiries(), **{name: timedelta(seconds=-1)})).initialise()
    run = site.run("run-a", outcome="not better")
    before = sorted(info.key for info in site.store.list(""))
    with pytest.raises(ExpiredError, match=f"the signed list {name} has expired"):
        site.break_glass(run)
    assert sorted(info.key for info in site.store.list("")) == before


def test_a_machine_that_has_seen_more_refuses_an_old_state(served) -> None:
    served.reader().refresh()
    served.store.delete(f"{served.model}/metadata/{served.publisher().state().snapshot.version}.snapshot.json")
    with pytest.raises(TrustError):
        served.break_glass(served.emergency)


# What comes after it.


def test_rollback_leads_back_to_what_was_served_before(served) -> None:
    served.break_glass(served.emergency)
    done = served.roll_back()
    assert (done.release.stable, done.release.kind, done.release.is_emergency) == (2, "rollback", False)
    assert latest(served).stable == 2


def test_rollback_does_not_bring_an_emergency_back(served) -> None:
    served.break_glass(served.emergency)
    served.promote(served.approved_run("run-d"))
    for to in (None, 900_000):
        with pytest.raises(RefusedError, match=r"break-glass run-c --because …`\. Approved versions .*: 1, 2, 3\."):
            served.roll_back(to=to)
    assert served.roll_back(to=1).release.stable == 1


def test_the_same_run_comes_back_only_through_the_glass(served) -> None:
    served.break_glass(served.emergency)
    served.roll_back()
    done = served.break_glass(served.emergency, reason="it was the lesser evil")
    assert (done.version.version, done.release.number) == (900_001, 5)
    assert latest(served) == done.release


def test_rollback_of_a_first_emergency_has_nowhere_to_go(emergency_site) -> None:
    emergency_site.break_glass(emergency_site.run("run-a", outcome="cannot tell"))
    with pytest.raises(RefusedError, match="first that was ever stable"):
        emergency_site.roll_back()


def test_a_candidate_is_compared_with_the_emergency_as_its_champion(served) -> None:
    stale = served.approved_run("run-d")
    served.break_glass(served.emergency)
    with pytest.raises(RefusedError, match=r"gail BROKE THE GLASS for run run-c \(version 900000\) with release 3"):
        served.promote(stale)
    done = served.promote(served.approved_run("run-e"))
    assert (done.version.version, done.version.evidence.champion_version) == (3, 900_000)
    assert latest(served).stable == 3


def test_a_canary_runs_beside_an_emergency_and_can_be_taken_away(served) -> None:
    served.break_glass(served.emergency)
    run = served.approved_run("run-d")
    served.promote(run, beside=Beside("canary", 5.0))
    release = latest(served)
    assert (release.stable, release.canary.version, release.is_emergency) == (900_000, 3, True)
    assert served.roll_back().release.stable == 900_000
    assert latest(served).canary is None


def test_a_canary_is_gone_when_the_glass_is_broken(served) -> None:
    served.promote(served.approved_run("run-d"), beside=Beside("canary", 5.0))
    served.break_glass(served.emergency)
    assert latest(served).versions == (900_000,)
    assert served.roll_back().release.stable == 2


def test_history_and_trace_read_it_from_the_bucket_alone(served) -> None:
    done = served.break_glass(served.emergency)
    view = served.fresh_reader().refresh()
    entry = next(history(view, served.registry))
    assert (entry.release, entry.version, entry.approvals) == (done.release, done.version, ())
    for identifier in ("run-c", "900000", "release 3", done.version.manifest.sha256[:8]):
        (found,) = trace(view, served.registry, identifier)
        assert found.version == done.version
        assert found.documents == ()


def test_only_both_keys_together_do_it(served) -> None:
    with pytest.raises(RefusedError, match="not the releaser's"):
        served.break_glass(served.emergency, releaser=served.keys["alice"])
    with pytest.raises(RefusedError, match="not the trusted break-glass key"):
        served.break_glass(served.emergency, key=served.keys["releaser"])
    assert served.publisher().view().version_numbers == (1, 2)


def test_a_site_without_the_key_says_how_it_could_have_one(served) -> None:
    served.rotate(None)
    with pytest.raises(RefusedError, match=r"no break-glass key.*keys rotate --break-glass KEY"):
        served.break_glass(served.emergency)


def test_a_list_that_was_never_released_is_used_by_the_next_attempt(served, monkeypatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(Publisher, "publish_release", _fails)
        with pytest.raises(RuntimeError):
            served.break_glass(served.emergency)
    done = served.break_glass(served.emergency)
    assert (done.version.version, done.completed) == (900_000, ("versions/900000", "timestamp 4"))
    assert served.publisher().view().version_numbers == (1, 2, 900_000)


def test_a_version_whose_release_went_to_somebody_else_is_left_lying(served, monkeypatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(Publisher, "publish_release", _fails)
        with pytest.raises(RuntimeError):
            served.break_glass(served.emergency)
    served.roll_back()
    done = served.break_glass(served.emergency)
    assert (done.version.version, done.release.number) == (900_001, 4)
    assert latest(served) == done.release


def _fails(*_: object, **__: object) -> None:
    raise RuntimeError


def test_the_digest_of_the_version_is_what_both_lists_rest_on(served) -> None:
    done = served.break_glass(served.emergency)
    assert served.fresh_reader().refresh().version_sha256(900_000) == sha256_hex(done.version.to_json())
