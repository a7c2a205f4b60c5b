"""kill -9 before and after every effect of breaking the glass, and of taking its key away, on the store.

A forked child runs the verb over a store that kills it at effect k. After each kill a host that was set
up just now must see the old release or the new one, with every record checked; then the same verb runs
again and finishes the job, or a promoter comes next and must succeed or be told what was in the way.
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


def sweep(site, verb: Callable[[ObjectStore | None], object], next_one: Callable[[int], None], *, ends_at: int) -> int:
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
                assert visible(site) == ends_at
                return kills
            kills += 1
            found = visible(site)
            assert found in (before, ends_at), f"half-visible after effect {effect}"
            next_one(found)
    raise AssertionError("the verb never ended")


def refused(action: Callable[[], object]) -> str:
    """Return the text with which the action was refused, "" when it was done."""
    try:
        action()
    except RefusedError as error:
        return str(error)
    return ""


def prepared(site):
    """Two releases, a run that is not better, and an approved candidate."""
    site.promote(site.approved_run("run-one"))
    site.promote(site.approved_run("run-two"))
    return site.run("run-emergency", outcome="not better"), site.approved_run("run-three")


def sweep_and_rerun(site) -> int:
    run, _ = prepared(site)

    def rerun(found: int) -> None:
        done = site.break_glass(run)
        # The number that an attempt had taken is used by the next one: there is never more than one.
        assert (done.release.number, done.version.version) == (3, 900_000)
        assert site.publisher().view().version_numbers == (1, 2, 900_000)
        assert found == 2 or done.pushed is None
        assert visible(site) == 3

    return sweep(site, lambda store: site.break_glass(run, store=store), rerun, ends_at=3)


def sweep_and_promotion(site) -> int:
    run, candidate = prepared(site)

    def promotion(found: int) -> None:
        refusal = refused(lambda: site.promote(candidate, by="bert"))
        if not refusal:
            assert found == 2
            # Whoever broke the glass decides anew, and gets another number if the first was signed already.
            assert site.break_glass(run).release.number == 4
            assert visible(site) == 4
        else:
            assert "gail BROKE THE GLASS for run run-emergency" in refusal
            assert visible(site) == 3

    return sweep(site, lambda store: site.break_glass(run, store=store), promotion, ends_at=3)


def sweep_and_rollback(site) -> int:
    run, _ = prepared(site)

    def rollback(found: int) -> None:
        done = site.roll_back()
        went_on = done.replaced.kind == "break-glass"
        assert (done.release.number, done.release.stable) == ((4, 2) if went_on else (3, 1))
        assert found == 2 or went_on
        assert visible(site) == done.release.number

    return sweep(site, lambda store: site.break_glass(run, store=store), rollback, ends_at=3)


def sweep_removal_of_the_key(site) -> int:
    run, _ = prepared(site)
    site.break_glass(run)
    host = site.reader("host")
    start = site.path / "start-of-host"
    host.refresh()
    shutil.copytree(site.path / "host", start)

    def again(_: int) -> None:
        shutil.rmtree(site.path / "host")
        shutil.copytree(start, site.path / "host")
        assert site.reader("host").refresh().latest_release().stable == 900_000
        site.rotate(None)
        view = site.reader("host").refresh()
        assert view.roles.break_glass is None
        assert view.latest_release().stable == 900_000
        assert visible(site) == 3

    return sweep(site, lambda store: site.rotate(None, store=store), again, ends_at=3)


SWEEPS = {
    "break-glass, then again": sweep_and_rerun,
    "break-glass, then a promotion": sweep_and_promotion,
    "break-glass, then a rollback": sweep_and_rollback,
    "its key taken away, then again": sweep_removal_of_the_key,
}


@pytest.mark.parametrize("name", SWEEPS)
def test_killed_at_every_write_the_state_is_the_old_or_the_new_one(name: str, emergency_site) -> None:
    kills = SWEEPS[name](emergency_site)
    print(f"{name}: {kills} kills")
    assert kills >= 8
