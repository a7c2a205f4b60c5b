"""kill -9 before and after every effect of promote and of rollback on the store.

A forked child runs the verb over a store that kills it at effect k. After each kill a fresh host must
see exactly the old release or exactly the new one; then either the same verb runs again and finishes
the job, or another promoter comes next and must succeed or be told what was in the way.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from artifact_sync.errors import RefusedError
from artifact_sync.store import ObjectInfo, ObjectStore

MOST_EFFECTS = 100


class KillingStore:
    """A store whose process dies before or after its k-th write, counted from 1."""

    def __init__(self, store: ObjectStore, *, effect: int, is_before: bool) -> None:
        self._store, self._effect, self._is_before = store, effect, is_before
        self._count = 0
        self._lock = threading.Lock()

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        self._killing(lambda: self._store.create(key, body, sha256=sha256))

    def replace(self, key: str, body: bytes) -> None:
        self._killing(lambda: self._store.replace(key, body))

    def open(self, key: str) -> BinaryIO:
        return self._store.open(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def _killing(self, write: Callable[[], None]) -> None:
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


def survives(site, verb: Callable[[ObjectStore], object], *, effect: int, is_before: bool) -> bool:
    """Run the verb in a child that is killed at an effect; return whether it ended by itself."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            verb(KillingStore(site.store, effect=effect, is_before=is_before))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the verb failed"
    return True


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
    start = site.path / "start"
    shutil.copytree(site.path / "bucket", start)
    before = visible(site)
    kills = 0
    for effect in range(1, MOST_EFFECTS):
        for is_before in (True, False):
            shutil.rmtree(site.path / "bucket")
            shutil.rmtree(site.path / "training", ignore_errors=True)
            shutil.copytree(start, site.path / "bucket")
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


SWEEPS = {
    "promotion, then again": sweep_promotion_and_rerun,
    "promotion, then another": sweep_promotion_and_another,
    "rollback, then again": sweep_rollback_and_rerun,
    "rollback, then a promotion": sweep_rollback_and_another,
}


@pytest.mark.parametrize("name", SWEEPS)
def test_killed_at_every_write_the_state_is_the_old_or_the_new_one(name: str, site) -> None:
    kills = SWEEPS[name](site)
    print(f"{name}: {kills} kills")
    assert kills >= 10
