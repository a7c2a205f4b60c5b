from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from artifact_sync.errors import RefusedError
from artifact_sync.trust.ceremony import rotate_trust
from artifact_sync.trust.roles import Roles
from validation.approvals.rejection import earlier_rejections
from validation.releases.promote import Beside


def test_one_rejection_stops_a_promotion_however_many_approve(strict_site) -> None:
    run = strict_site.approved_run("run-a", by=("alice", "bob"))
    strict_site.reject(run, "bob")
    standing = strict_site.standing(run)
    assert (standing.is_met, [entry.decision.by for entry in standing.rejections]) == (False, ["bob"])
    with pytest.raises(RefusedError, match=r"run run-a is rejected \(bob on .* UTC: 'it fails on my photos'\)"):
        strict_site.promote(run)
    assert strict_site.fresh_reader().refresh().version_numbers == ()


def test_a_rejection_is_seen_where_the_run_folder_was_copied_before(site) -> None:
    run = site.approved_run("run-a")
    elsewhere = site.path / "elsewhere" / run.run_id
    shutil.copytree(run.path, elsewhere)
    site.reject(run)
    with pytest.raises(RefusedError, match="is rejected"):
        site.promote(type(run)(elsewhere), machine="elsewhere-trust")


@pytest.mark.parametrize("gone", ["bucket", "approvals"])
def test_a_rejection_outlives_the_removal_of_one_of_its_two_places(site, gone: str) -> None:
    run = site.approved_run("run-a")
    site.reject(run)
    if gone == "bucket":
        (info,) = [info for info in site.store.list("photos/decisions/") if "/000002." in info.key]
        site.store.delete(info.key)
    else:
        for path in run.approvals.glob("decision.*"):
            path.unlink()
    with pytest.raises(RefusedError, match="is rejected"):
        site.promote(run)


def test_only_who_rejected_takes_it_back_and_then_the_others_approvals_count_again(site) -> None:
    run = site.approved_run("run-a")
    site.reject(run, "bob")
    taken = site.revoke(run, "alice", reason="let me look again").takes_back
    assert taken.decision.kind == "approval"
    assert [entry.decision.by for entry in site.standing(run).rejections] == ["bob"]
    site.approve(run, "alice")
    assert site.revoke(run, "bob").takes_back.decision.kind == "rejection"
    assert site.promote(run).release.number == 1


def test_rejecting_replaces_the_own_approval(site) -> None:
    run = site.approved_run("run-a")
    said = site.reject(run, "alice")
    assert said.takes_back.decision.kind == "approval"
    assert site.standing(run).approvals == ()
    with pytest.raises(RefusedError, match=r"alice rejected it on .* Take that back first: `liftgate revoke run-a"):
        site.approve(run, "alice")
    site.revoke(run, "alice")
    assert site.standing(run).approvals == (), "an approval does not come back by itself"
    site.approve(run, "alice")
    assert site.promote(run).release.number == 1


def test_an_approval_that_was_taken_back_does_not_count_and_can_be_given_again(site) -> None:
    run = site.run("run-a")
    first = site.approve(run, reason="same words")
    site.revoke(run, "alice")
    standing = site.standing(run)
    assert (standing.approvals, standing.missing) == ((), ("alice", "bob"))
    assert "does not count: alice took it back" in standing.refused[0]
    with pytest.raises(RefusedError, match=r"run-a has 0 of 1 approvals"):
        site.promote(run)
    second = site.approve(run, reason="same words")
    assert second.sha256 != first.sha256
    assert site.standing(run).approvals == (second,)


def test_doing_it_again_returns_what_was_signed_before(site) -> None:
    run = site.approved_run("run-a")
    first, second = site.reject(run), site.reject(run, reason="other words")
    assert (first.was_there, second.was_there, first.signed) == (False, True, second.signed)
    first, second = site.revoke(run), site.revoke(run, reason="other words")
    assert (first.was_there, second.was_there, first.signed) == (False, True, second.signed)


def test_there_must_be_something_to_take_back(site) -> None:
    with pytest.raises(RefusedError, match=r"bob has neither approved nor rejected its verdict"):
        site.revoke(site.approved_run("run-a"), "bob")


@pytest.mark.parametrize("verb", ["reject", "revoke"])
def test_only_an_approver_with_a_reason_can_say_no(site, verb: str) -> None:
    run = site.approved_run("run-a")
    with pytest.raises(RefusedError, match=r"the key of mallory is not a trusted approver's"):
        getattr(site, verb)(run, "mallory")
    with pytest.raises(RefusedError, match=rf"it has no reason.*liftgate {verb} run-a --because"):
        getattr(site, verb)(run, "alice", reason=" \n")
    assert [entry.decision.kind for entry in site.standing(run).log.entries] == ["approval"]


def test_what_nobody_can_promote_needs_no_rejection(site) -> None:
    with pytest.raises(RefusedError, match=r"its verdict is 'not better', so that nobody can approve"):
        site.reject(site.run("run-a", outcome="not better"))


def test_a_rejection_does_not_need_the_report_to_be_intact(site) -> None:
    run = site.approved_run("run-a")
    run.report_html.write_text("another page")
    assert not site.reject(run).was_there


def test_what_is_served_is_rolled_back_not_rejected(site) -> None:
    run = site.approved_run("run-a")
    site.promote(run)
    with pytest.raises(RefusedError, match=r"it is what is served: rita promoted version 1 .*liftgate rollback"):
        site.reject(run)
    with pytest.raises(RefusedError, match=r"it is published as version 1, and the approval is a part of its history"):
        site.revoke(run, "alice")


def test_a_canary_can_be_kept_from_becoming_stable(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.approved_run("run-b")
    site.promote(run, beside=Beside("canary", 5))
    site.reject(run)
    with pytest.raises(RefusedError, match="run-b is rejected"):
        site.promote(run)
    site.revoke(run)
    assert site.promote(run).release.stable == 2


def test_a_rejection_is_about_one_verdict_and_the_next_one_says_so(site) -> None:
    run = site.approved_run("run-a")
    rejected = site.reject(run).signed
    site.now += timedelta(seconds=5)
    verdict = site.judge(run, champion=None)
    assert site.standing(run).rejections == ()
    assert earlier_rejections(run, verdict_sha256=verdict.sha256) == (rejected,)


def test_a_rejection_of_a_key_that_was_rotated_out_is_named_and_does_not_bind(site) -> None:
    run = site.approved_run("run-a")
    site.reject(run, "bob")
    keys = site.keys
    roles = Roles(site.roles.root, 1, (keys["alice"].public, keys["carol"].public), 1, keys["releaser"].public)
    rotate_trust(site.reader(), roles, list(keys.values()), now=site.now)
    standing = site.standing(run)
    assert standing.rejections == ()
    assert any("bob's is not a trusted approver's (now)" in sentence for sentence in standing.refused)
