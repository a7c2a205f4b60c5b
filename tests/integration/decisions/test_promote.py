from __future__ import annotations

from datetime import timedelta

import pytest

from artifact_sync.errors import InputError, IntegrityError, RefusedError
from artifact_sync.pull import pull_version
from artifact_sync.trust.ceremony import rotate_trust
from artifact_sync.trust.roles import Expiries, Roles
from validation.releases.promote import Beside, promote, roll_back


def test_a_first_promotion_is_release_1_and_can_be_pulled(site) -> None:
    run = site.approved_run("run-a")
    done = site.promote(run)
    view = site.fresh_reader().refresh()
    assert view.latest_release() == done.release
    version = view.version(1)
    assert (done.release.number, done.release.stable, version.lineage.run_id) == (1, 1, "run-a")
    assert done.release.reason == "alice: fewer mistakes at night"
    pulled = pull_version(site.registry, version, models_dir=site.path / "host", reserve_bytes=0)
    assert (pulled / "saved_model.pb").read_bytes() == b"graph of run-a"


def test_people_find_readable_copies(site) -> None:
    done = site.promote(site.approved_run("run-a"))
    with (
        site.store.open("photos/releases/000001.json") as release,
        site.store.open("photos/versions/000001.json") as copy,
    ):
        assert release.read() == done.release.to_json()
        assert copy.read() == done.version.to_json()


def test_the_evidence_is_in_the_bucket(site) -> None:
    run = site.approved_run("run-a")
    holdout = site.path / "holdout.json"
    holdout.write_bytes(b"holdout of run-a")
    reader, key = site.reader(), site.keys["releaser"]
    done = promote(run, trust=reader, signer=key, by="rita", now=site.now, documents=(holdout,), reason="because")
    evidence = done.version.evidence
    named = (evidence.report_sha256, evidence.verdict_sha256, evidence.policy_sha256, evidence.holdout_sha256)
    for sha256 in (*named, *done.release.approval_sha256s):
        site.registry.open_blob(sha256).close()
    assert done.release.reason == "because"


def test_a_document_that_the_verdict_does_not_name_is_refused(site) -> None:
    run = site.approved_run("run-a")
    stray = site.path / "stray.json"
    stray.write_bytes(b"stray")
    reader, key = site.reader(), site.keys["releaser"]
    with pytest.raises(InputError, match=r"stray.json has the SHA-256 .* which the verdict on run run-a does not name"):
        promote(run, trust=reader, signer=key, by="rita", now=site.now, documents=(stray,))


def test_an_unapproved_run_is_refused_and_says_who_can_approve(site) -> None:
    with pytest.raises(
        RefusedError,
        match=r"^Promotion refused: run run-a has 0 of 1 approvals \(missing: 1 of alice, bob\)\. "
        r"Run `liftgate approve run-a --because …`\.$",
    ):
        site.promote(site.run("run-a"))


def test_one_of_two_approvals_is_not_enough(strict_site) -> None:
    run = strict_site.approved_run("run-a")
    with pytest.raises(RefusedError, match=r"run run-a has 1 of 2 approvals \(missing: 1 of bob\)"):
        strict_site.promote(run)
    assert strict_site.fresh_reader().refresh().version_numbers == ()
    strict_site.approve(run, "bob")
    assert strict_site.promote(run).release.number == 1


def test_a_forged_approval_is_named_in_the_refusal(site) -> None:
    run = site.approved_run("run-a")
    (path,) = run.approvals.glob("alice.*")
    path.write_bytes(b"{}")
    with pytest.raises(RefusedError, match=r"has 0 of 1 approvals .* alice\.2\.[0-9a-f]{12}\.json does not count"):
        site.promote(run)


def test_a_worse_candidate_is_refused(site) -> None:
    with pytest.raises(RefusedError, match=r"Promotion refused: the verdict on run run-a is 'not better'"):
        site.promote(site.run("run-a", outcome="not better"))


def test_a_candidate_whose_champion_moved_is_refused(site) -> None:
    run = site.approved_run("run-b")
    site.promote(site.approved_run("run-a"))
    with pytest.raises(RefusedError, match=r"refused: the verdict on run run-b is stale.*liftgate validate run-b"):
        site.promote(run)


def test_a_candidate_whose_number_was_taken_says_by_which_run(site) -> None:
    site.promote(site.approved_run("run-a"))
    canary, other = site.approved_run("run-b"), site.approved_run("run-c")
    site.promote(canary, beside=Beside("canary", 5))
    with pytest.raises(RefusedError, match=r"run-c was approved as version 2, but that number went to run run-b"):
        site.promote(other)
    site.approve(other)
    assert site.promote(other).release.stable == 3


def test_a_candidate_that_was_approved_before_keys_changed_says_so(site) -> None:
    run = site.approved_run("run-a")
    rotate_trust(site.reader(), site.roles, list(site.keys.values()), now=site.now)
    with pytest.raises(RefusedError, match=r"approved as version 1, but the keys were changed since"):
        site.promote(run)
    site.approve(run)
    assert site.promote(run).release.number == 1


def test_an_export_that_was_changed_after_approval_is_refused_before_anything_is_published(site) -> None:
    run = site.approved_run("run-a")
    (run.export / "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(IntegrityError, match=r"saved_model\.pb"):
        site.promote(run)
    assert site.fresh_reader().refresh().version_numbers == ()


def test_promoting_again_says_that_it_was_there(site) -> None:
    run = site.approved_run("run-a")
    first, second = site.promote(run), site.promote(run, by="somebody else")
    assert (first.was_there, second.was_there) == (False, True)
    assert first.release == second.release


def test_only_the_releaser_promotes(site) -> None:
    run = site.approved_run("run-a")
    with pytest.raises(RefusedError, match=r"the key of alice is not the releaser's"):
        promote(run, trust=site.reader(), signer=site.keys["alice"], by="alice", now=site.now)


def test_a_canary_keeps_the_champion_and_can_be_promoted_in_full(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.approved_run("run-b")
    canary = site.promote(run, beside=Beside("canary", 5)).release
    assert (canary.stable, canary.canary.version, canary.canary.percent) == (1, 2, 5)
    wider = site.promote(run, beside=Beside("canary", 20)).release
    assert (wider.number, wider.canary.percent) == (3, 20)
    full = site.promote(run).release
    assert (full.number, full.stable, full.canary) == (4, 2, None)
    assert site.fresh_reader().refresh().version_numbers == (1, 2)


def test_a_shadow_changes_nobodys_answers_and_can_become_the_champion(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.approved_run("run-b")
    shadow = site.promote(run, beside=Beside("shadow", 100)).release
    assert (shadow.stable, shadow.canary, shadow.shadow.version, shadow.about) == (1, None, 2, 2)
    assert site.promote(run, beside=Beside("shadow", 100)).release == shadow
    full = site.promote(run).release
    assert (full.stable, full.canary, full.shadow) == (2, None, None)


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_a_shadow_is_a_part_of_the_requests_or_all(percent: float) -> None:
    with pytest.raises(RefusedError, match=rf"a shadow of {percent} % is none"):
        Beside("shadow", percent)


def test_a_first_promotion_cannot_be_a_canary(site) -> None:
    with pytest.raises(RefusedError, match="a canary needs a champion beside it"):
        site.promote(site.approved_run("run-a"), beside=Beside("canary", 5))


@pytest.mark.parametrize("percent", [0, -1, 100, 250])
def test_a_canary_is_a_part_of_the_users(site, percent: float) -> None:
    site.promote(site.approved_run("run-a"))
    with pytest.raises(RefusedError, match=rf"a canary of {percent} % is none"):
        site.promote(site.approved_run("run-b"), beside=Beside("canary", percent))


def test_rollback_names_the_version_before_and_copies_nothing(site) -> None:
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"))
    blobs = sum(1 for _ in site.store.list("photos/blobs/"))
    done = site.roll_back()
    assert (done.release.kind, done.release.stable, done.replaced.stable) == ("rollback", 1, 2)
    assert sum(1 for _ in site.store.list("photos/blobs/")) == blobs + 1, "the release's own record"
    assert site.fresh_reader().refresh().latest_release() == done.release


def test_rollback_goes_back_further_and_not_forward_to_what_was_taken_back(site) -> None:
    for name in ("run-a", "run-b", "run-c"):
        site.promote(site.approved_run(name))
    assert site.roll_back(reason="c is bad").release.stable == 2
    assert site.roll_back(reason="b is bad too").release.stable == 1
    with pytest.raises(RefusedError, match="version 1 is the first that was ever stable"):
        site.roll_back(reason="a is bad too")
    assert site.roll_back(to=3, reason="c was not that bad").release.stable == 3


def test_rollback_again_with_the_same_words_is_the_same_rollback(site) -> None:
    for name in ("run-a", "run-b", "run-c"):
        site.promote(site.approved_run(name))
    first, second = site.roll_back(), site.roll_back()
    assert (first.was_there, second.was_there) == (False, True)
    assert first.release == second.release


def test_rollback_takes_a_canary_away_first(site) -> None:
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"))
    site.promote(site.approved_run("run-c"), beside=Beside("canary", 5))
    done = site.roll_back().release
    assert (done.stable, done.canary) == (2, None)


def test_rollback_refuses_a_version_that_was_never_stable(site) -> None:
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"), beside=Beside("canary", 5))
    for version in (2, 9):
        with pytest.raises(RefusedError, match=rf"version {version} was never the stable version .*\(those were 1\)"):
            site.roll_back(to=version)


def test_rollback_refuses_what_is_served_already(site) -> None:
    site.promote(site.approved_run("run-a"))
    with pytest.raises(RefusedError, match="version 1 is what release 1 serves already"):
        site.roll_back(to=1)


def test_rollback_needs_a_reason_and_a_release(site) -> None:
    with pytest.raises(RefusedError, match="it has no reason"):
        site.roll_back(reason=" ")
    with pytest.raises(RefusedError, match="photos has no release yet"):
        site.roll_back()


def test_a_version_that_was_taken_back_is_not_promoted_again_by_a_retry(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.approved_run("run-b")
    site.promote(run)
    site.roll_back()
    with pytest.raises(
        RefusedError,
        match=r"run run-b \(version 2\) was taken back by release 3 \(rita: users complain\).*rollback --to 2",
    ):
        site.promote(run)
    assert site.roll_back(to=2, reason="users came round").release.stable == 2


def test_a_canary_that_was_taken_back_is_not_promoted_either(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.approved_run("run-b")
    site.promote(run, beside=Beside("canary", 5))
    site.roll_back()
    with pytest.raises(RefusedError, match="was taken back by release 3"):
        site.promote(run)


def test_a_rollback_makes_other_verdicts_stale(site) -> None:
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"))
    run = site.approved_run("run-c")
    site.roll_back()
    with pytest.raises(RefusedError, match=r"with version 2, but version 1 is served now: rita rolled"):
        site.promote(run)


def test_an_expired_state_is_renewed_by_whoever_releases(site) -> None:
    site.promote(site.approved_run("run-a"))
    site.promote(site.approved_run("run-b"))
    site.expiries = Expiries(timestamp=timedelta(seconds=-1))
    site.publisher().renew(now=site.now, is_forced=True)
    site.expiries = Expiries()
    assert site.roll_back().release.stable == 1
    assert site.fresh_reader().refresh().release_numbers == (1, 2, 3)


def test_a_new_releaser_promotes_and_the_old_one_does_not(site) -> None:
    site.promote(site.approved_run("run-a"))
    carol = site.keys["carol"]
    roles = Roles(site.roles.root, 1, site.roles.approvers, 1, carol.public)
    rotate_trust(site.reader(), roles, list(site.keys.values()), now=site.now)
    run = site.approved_run("run-b")
    with pytest.raises(RefusedError, match="the key of releaser is not the releaser's"):
        site.promote(run)
    assert promote(run, trust=site.reader(), signer=carol, by="carol", now=site.now).release.number == 2
    assert roll_back(trust=site.reader(), signer=carol, reason="bad", by="carol", now=site.now).release.stable == 1
