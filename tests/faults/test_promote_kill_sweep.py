"""kill -9 before and after every effect of approve, reject, revoke, promote and rollback.

A forked child runs the verb and is killed at effect k: a write to the store or to the run folder. After
each kill a fresh host must see exactly the old release or exactly the new one, and a fresh machine exactly
the decisions before or one more; then either the same verb runs again and finishes the job, or another
promoter comes next and must succeed or be told what was in the way.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from artifact_sync.durable import create_durably
from artifact_sync.errors import RefusedError
from artifact_sync.store import ObjectInfo, ObjectStore
from validation.approvals import approval, decisions

MOST_EFFECTS = 100


class Killer:
    """Ends its process before or after the k-th write, counted from 1."""

    def __init__(self, *, effect: int, is_before: bool) -> None:
        self._effect, self._is_before = effect, is_before
        self._count = 0
        self._lock = threading.Lock()

    def around(self, write: Callable[[], None]) -> None:
        with self._lock:
            self._count += 1
            is_it = self._count == self._effect
            if is_it and self._is_before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                write()
            finally:
                if is_it:
                    os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, write: Callable[..., None]) -> Callable[..., None]:
        return lambda *args, **options: self.around(lambda: write(*args, **options))


class KillingStore:
    """A store each of whose writes may be the last thing that its process does."""

    def __init__(self, store: ObjectStore, killer: Killer) -> None:
        self._store, self._killer = store, killer

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        self._killer.around(lambda: self._store.create(key, body, sha256=sha256))

    def replace(self, key: str, body: bytes) -> None:
        self._killer.around(lambda: self._store.replace(key, body))

    def open(self, key: str) -> BinaryIO:
        return self._store.open(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)


def survives(site, verb: Callable[[ObjectStore], object], *, effect: int, is_before: bool) -> bool:
    """Run the verb in a child that is killed at an effect; return whether it ended by itself."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            killer = Killer(effect=effect, is_before=is_before)
            for module in (approval, decisions):
                module.create_durably = killer.wrap(create_durably)
            verb(KillingStore(site.store, killer))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the verb failed"
    return True


@dataclass
class StartingPoint:
    """Bucket and run folders as they are now, to begin from again and again; machines forget what they saw."""

    site: Any

    def __post_init__(self) -> None:
        for name in ("bucket", "runs"):
            shutil.copytree(self.site.path / name, self.site.path / f"start-{name}")

    def restore(self) -> None:
        for name in ("bucket", "runs"):
            shutil.rmtree(self.site.path / name)
            shutil.copytree(self.site.path / f"start-{name}", self.site.path / name)
        for machine in ("training", "alice", "bob"):
            shutil.rmtree(self.site.path / machine, ignore_errors=True)


def visible(site) -> int:
    """Return the newest release number that a host which was set up just now sees, all records checked."""
    view = site.fresh_reader().refresh()
    for number in view.release_numbers:
        view.release(number)
    for number in view.version_numbers:
        view.version(number)
    return view.release_numbers[-1]


def sweep(site, verb: Callable[[ObjectStore | None], object], next_one: Callable[[int], None]) -> int:
    """Kill `verb` at every effect, each time from the same start; return how many kills there were."""
    start = StartingPoint(site)
    before = visible(site)
    kills = 0
    for effect in range(1, MOST_EFFECTS):
        for is_before in (True, False):
            start.restore()
            if survives(site, verb, effect=effect, is_before=is_before):
                assert visible(site) == before + 1
                return kills
            kills += 1
            found = visible(site)
            assert found in (before, before + 1), f"half-visible after effect {effect}"
            next_one(found)
    raise AssertionError("the verb never ended")


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

    return sweep(site, lambda store: site.promote(run, store=store), rerun)


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

    return sweep(site, lambda store: site.promote(run, store=store), another)


def refused(action: Callable[[], object]) -> str:
    """Return the text with which the action was refused, "" when it was done."""
    try:
        action()
    except RefusedError as error:
        return str(error)
    return ""


def sweep_rollback_and_rerun(site) -> int:
    prepared(site)

    def rerun(found: int) -> None:
        done = site.roll_back()
        assert (done.release.number, done.release.stable) == (3, 1)
        assert found == 2 or done.was_there
        assert visible(site) == 3

    return sweep(site, lambda store: site.roll_back(store=store), rerun)


def sweep_rollback_and_another(site) -> int:
    run, _ = prepared(site)

    def another(found: int) -> None:
        refusal = refused(lambda: site.promote(run, by="bert"))
        assert not refusal or "rolled back to version 1 with release 3" in refusal
        assert found == 2 or refusal
        assert visible(site) == 3

    return sweep(site, lambda store: site.roll_back(store=store), another)


def sweep_decision(site, run, verb: Callable[[ObjectStore | None], object], holds: Callable[[Any], bool]) -> int:
    """Kill a decision at every effect: it is there or not, and the same verb finishes it, once.

    `holds` says of a standing whether the decision is in force.
    """
    start = StartingPoint(site)
    before = site.standing(run)
    assert not holds(before)
    kills = 0
    for effect in range(1, MOST_EFFECTS):
        for is_before in (True, False):
            start.restore()
            if survives(site, verb, effect=effect, is_before=is_before):
                assert holds(site.standing(run))
                return kills
            kills += 1
            found = site.standing(run)
            added = len(found.log.entries) - len(before.log.entries)
            assert added in (0, 1), f"{added} decisions after effect {effect}"
            assert holds(found) == bool(added), f"half a decision after effect {effect}"
            verb(None)
            after = site.standing(run)
            assert holds(after)
            assert len(after.log.entries) == len(before.log.entries) + 1
            assert not [sentence for sentence in after.refused if "took it back" not in sentence]
    raise AssertionError("the verb never ended")


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

    return sweep(site, lambda store: site.promote(run, store=store), reject_it)


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
    assert kills >= 10


@pytest.mark.parametrize("name", DECISION_SWEEPS)
def test_killed_at_every_write_a_decision_is_there_or_not(name: str, site) -> None:
    kills = DECISION_SWEEPS[name](site)
    print(f"{name}: {kills} kills")
    assert kills >= 4
