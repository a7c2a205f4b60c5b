"""kill -9 before and after every effect of approve, reject, revoke, promote and rollback.

A forked child runs the verb and is killed at effect k: a write to the store or to the run folder. After
each kill a fresh host must see exactly the old release or exactly the new one, and a fresh machine exactly
the decisions before or one more; then either the same verb runs again and finishes the job, or another
promoter comes next and must succeed or be told what was in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import soak
from site_sweep import STEP, Verb, kills, refused, sweep, visible


def prepared(site):
    """Release 1, release 2, and two approved candidates for what comes third."""
    site.promote(site.approved_run("run-one"))
    site.promote(site.approved_run("run-two"))
    return site.approved_run("run-three"), site.approved_run("run-four")


def sweep_promotion_and_rerun(site) -> int:
    run, _ = prepared(site)

    def rerun(found: int) -> None:
        done = site.promote(run)
        assert done.release.number == 3
        assert found == 2 or done.was_there
        assert visible(site) == 3

    return sweep(site, lambda store: site.promote(run, store=store), rerun, ends_at=3)


def sweep_promotion_and_another(site) -> int:
    run, other = prepared(site)

    def another(found: int) -> None:
        refusal = refused(lambda: site.promote(other, by="bert"))
        if not refusal:
            assert found == 2
            assert site.publisher().view().release(3).by == "bert"
        else:
            # The killed one had got far enough to count. The other is told, and the first can be finished.
            assert "run-three" in refusal
            assert site.promote(run).release.number == 3
        assert visible(site) == 3

    return sweep(site, lambda store: site.promote(run, store=store), another, ends_at=3)


def sweep_rollback_and_rerun(site) -> int:
    prepared(site)

    def rerun(found: int) -> None:
        done = site.roll_back()
        assert (done.release.number, done.release.stable) == (3, 1)
        assert found == 2 or done.was_there
        assert visible(site) == 3

    return sweep(site, lambda store: site.roll_back(store=store), rerun, ends_at=3)


def sweep_rollback_and_another(site) -> int:
    run, _ = prepared(site)

    def another(found: int) -> None:
        refusal = refused(lambda: site.promote(run, by="bert"))
        assert not refusal or "rolled back to version 1 with release 3" in refusal
        assert found == 2 or refusal
        assert visible(site) == 3

    return sweep(site, lambda store: site.roll_back(store=store), another, ends_at=3)


def sweep_decision(site, run, verb: Verb, holds: Callable[[Any], bool]) -> int:
    """Kill a decision at every effect: it is there or not, and the same verb finishes it, once.

    `holds` says of a standing whether the decision is in force.
    """
    before, count = site.standing(run), 0
    assert not holds(before)
    for effect in kills(site, verb):
        count += 1
        found = site.standing(run)
        added = len(found.log.entries) - len(before.log.entries)
        assert added in (0, 1), f"{added} decisions after effect {effect}"
        assert holds(found) == bool(added), f"half a decision after effect {effect}"
        verb(None)
        after = site.standing(run)
        assert holds(after)
        assert len(after.log.entries) == len(before.log.entries) + 1
        assert not [sentence for sentence in after.refused if "took it back" not in sentence]
    assert holds(site.standing(run))
    return count


def sweep_approval(site) -> int:
    run = site.run("run-one")
    return sweep_decision(site, run, lambda store: site.approve(run, store=store), lambda now: len(now.approvals) == 1)


def sweep_approval_given_again(site) -> int:
    run = site.approved_run("run-one")
    site.revoke(run, "alice")
    return sweep_decision(site, run, lambda store: site.approve(run, store=store), lambda now: len(now.approvals) == 1)


def sweep_rejection(site) -> int:
    run = site.approved_run("run-one")
    return sweep_decision(site, run, lambda store: site.reject(run, store=store), lambda now: len(now.rejections) == 1)


def sweep_revocation_of_an_approval(site) -> int:
    run = site.approved_run("run-one")
    return sweep_decision(
        site, run, lambda store: site.revoke(run, "alice", store=store), lambda now: not now.approvals
    )


def sweep_revocation_of_a_rejection(site) -> int:
    run = site.approved_run("run-one")
    site.reject(run)
    return sweep_decision(site, run, lambda store: site.revoke(run, store=store), lambda now: not now.rejections)


def sweep_promotion_and_a_rejection(site) -> int:
    run, _ = prepared(site)

    def reject_it(found: int) -> None:
        if refusal := refused(lambda: site.reject(run)):
            # It came too late: the promotion had been settled, and is finished by the same verb.
            assert "its promotion began" in refusal or "it is what is served" in refusal
            assert site.promote(run).release.number == 3
            assert visible(site) == 3
        else:
            assert found == 2
            assert "is rejected (bob on" in refused(lambda: site.promote(run))
            assert visible(site) == 2

    return sweep(site, lambda store: site.promote(run, store=store), reject_it, ends_at=3)


DECISION_SWEEPS = {
    "approval": sweep_approval,
    "approval given again": sweep_approval_given_again,
    "rejection": sweep_rejection,
    "revocation of an approval": sweep_revocation_of_an_approval,
    "revocation of a rejection": sweep_revocation_of_a_rejection,
}

SWEEPS = {
    "promotion, then again": sweep_promotion_and_rerun,
    "promotion, then another": sweep_promotion_and_another,
    "promotion, then a rejection": sweep_promotion_and_a_rejection,
    "rollback, then again": sweep_rollback_and_rerun,
    "rollback, then a promotion": sweep_rollback_and_another,
}


@pytest.mark.parametrize("name", SWEEPS)
def test_killed_at_every_write_the_state_is_the_old_or_the_new_one(name: str, site) -> None:
    kills = SWEEPS[name](site)
    print(f"{name}: {kills} kills")
    assert kills >= soak.fewest(10, step=STEP)


@pytest.mark.parametrize("name", DECISION_SWEEPS)
def test_killed_at_every_write_a_decision_is_there_or_not(name: str, site) -> None:
    kills = DECISION_SWEEPS[name](site)
    print(f"{name}: {kills} kills")
    assert kills >= 4
