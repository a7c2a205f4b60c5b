"""Sweeps over a signed site: a verb is killed at every write, and what is visible then is looked at.

Its place in the flow: the sweeps of promotions, decisions and broken glass say which verb is killed and who comes next.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

from kill_lab import Killer, KillingStore, in_child, was_killed
from soak import Places, every

from artifact_sync.durable import create_durably
from artifact_sync.errors import RefusedError
from artifact_sync.store import ObjectStore
from validation.approvals import approval, decisions

_MOST_EFFECTS = 100
EVERY = Places(first=1, step=1)
STEP = 3

Verb = Callable[[ObjectStore | None], object]


def kills(site, verb: Verb, *, places: Places = EVERY) -> Iterator[int]:
    """Kill `verb` before and after its effects, each time from the same start; yield the effect after each kill.

    An effect is a write to the store or to the run folder, before and after it are two places. It ends when the verb
    ends by itself.
    """
    _keep_start(site)
    for place in range(places.first, 2 * _MOST_EFFECTS, places.step):
        _restore_start(site)
        effect, is_before = (place + 1) // 2, place % 2 == 1
        if not was_killed(in_child(_killed(site, verb, Killer(effect=effect, is_before=is_before)))):
            return
        yield effect
    raise AssertionError("the verb never ended")


def sweep(site, verb: Verb, next_one: Callable[[int], None], *, ends_at: int) -> int:
    """Kill `verb` at every third place, in a soak at every one; return how many kills there were.

    After each kill the newest release is the one from before or `ends_at`, and `next_one` is called with it.
    """
    before, count = visible(site), 0
    for effect in kills(site, verb, places=every(STEP)):
        count += 1
        found = visible(site)
        assert found in (before, ends_at), f"half-visible after effect {effect}"
        next_one(found)
    assert visible(site) == ends_at
    return count


def visible(site) -> int:
    """Return the newest release number that a host which was set up just now sees, all records checked."""
    view = site.fresh_reader().refresh()
    for number in view.release_numbers:
        view.release(number)
    for number in view.version_numbers:
        view.version(number)
    return view.release_numbers[-1]


def refused(action: Callable[[], object]) -> str:
    """Return the text with which the action was refused, "" when it was done."""
    try:
        action()
    except RefusedError as error:
        return str(error)
    return ""


def _killed(site, verb: Verb, killer: Killer) -> Callable[[], object]:
    def act() -> object:
        for module in (approval, decisions):
            module.create_durably = killer.wrap(create_durably)
        return verb(KillingStore(site.store, killer))

    return act


def _keep_start(site) -> None:
    for name in ("bucket", "runs"):
        shutil.copytree(site.path / name, site.path / f"start-{name}")


def _restore_start(site) -> None:
    """Set bucket and run folders back; machines forget what they saw."""
    for name in ("bucket", "runs"):
        shutil.rmtree(site.path / name)
        shutil.copytree(site.path / f"start-{name}", site.path / name)
    for machine in ("training", "alice", "bob"):
        shutil.rmtree(site.path / machine, ignore_errors=True)
