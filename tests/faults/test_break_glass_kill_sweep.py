"""kill -9 before and after every effect of breaking the glass, and of taking its key away, on the store.

A forked child runs the verb over a store that kills it at effect k. After each kill a host that was set
up just now must see the old release or the new one, with every record checked; then the same verb runs
again and finishes the job, or a promoter comes next and must succeed or be told what was in the way.
"""

from __future__ import annotations

import shutil

import pytest
import soak
from site_sweep import STEP, refused, sweep, visible


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
    assert kills >= soak.fewest(8, step=STEP)
