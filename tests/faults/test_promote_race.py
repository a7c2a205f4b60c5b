"""16 promoters at once, round after round: exactly one wins, the others are told who.

The suite runs a few rounds, in parts that workers can share. As a program (`make soak`) it runs as many as asked,
promotions against rollbacks too, and prints the figures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import soak
from race_lab import promotion_of, race
from signed_site import SignedSite

from artifact_sync.errors import LostRaceError, RefusedError
from validation.releases.promote import Promotion, Rollback

PROMOTERS = 16
PARTS, ROUNDS = 2, soak.rounds(8, soak=25)


def run_promotion_races(site, *, rounds: int) -> Counter[str]:
    """Race `rounds` times and return how many won, lost in the race, and came when it was over."""
    counts: Counter[str] = Counter()
    for number in range(1, rounds + 1):
        runs = [site.approved_run(f"run-{number:03d}-{index:02d}") for index in range(PROMOTERS)]
        outcomes = race([promotion_of(site, run) for run in runs])
        winners = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        assert len(winners) == 1, outcomes
        winner = runs[winners[0]].run_id
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                # Who first looks when the race is over is refused, being stale, and told who won just the same.
                assert isinstance(outcome, LostRaceError | RefusedError), outcome
                assert winner in str(outcome), outcome
            counts[type(outcome).__name__] += 1
        view = site.reader("witness").refresh()
        latest = view.latest_release()
        assert latest is not None
        assert (latest.number, latest.by) == (number, f"rita-of-{winner}")
        assert view.version(latest.stable).lineage.run_id == winner
    assert site.fresh_reader().refresh().release_numbers == tuple(range(1, rounds + 1))
    return counts


def run_promotions_against_rollbacks(site, *, rounds: int) -> Counter[str]:
    """Race promotions and rollbacks: each success is a release of its own, and the chain is whole."""
    counts: Counter[str] = Counter()
    site.promote(site.approved_run("run-first"))
    site.promote(site.approved_run("run-second"))
    for number in range(rounds):
        before = site.publisher().view().release_numbers[-1]
        runs = [site.approved_run(f"run-{number:03d}-{index:02d}") for index in range(PROMOTERS // 2)]
        actions = [promotion_of(site, run) for run in runs]
        actions += [rollback_of(site, f"rob-{number}-{index}") for index in range(PROMOTERS // 2)]
        outcomes = race(actions)
        created = [outcome.release.number for outcome in outcomes if isinstance(outcome, Promotion | Rollback)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert created, outcomes
        assert all(isinstance(outcome, LostRaceError | RefusedError) for outcome in refused), refused
        view = site.fresh_reader().refresh()
        assert sorted(created) == list(range(before + 1, view.release_numbers[-1] + 1)), outcomes
        # Reading each release checks that it follows from the one before.
        assert [view.release(number).number for number in view.release_numbers] == list(view.release_numbers)
        counts.update(type(outcome).__name__ for outcome in outcomes)
    return counts


def rollback_of(site, by: str) -> Callable[[], object]:
    return lambda: site.roll_back(by=by)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_of_16_promoters_exactly_one_wins_and_the_others_are_told_who(site, part: int) -> None:
    counts = run_promotion_races(site, rounds=ROUNDS)
    assert counts["Promotion"] == ROUNDS


def test_promotions_and_rollbacks_at_once_leave_one_whole_chain(site) -> None:
    rounds = soak.rounds(5, soak=10)
    counts = run_promotions_against_rollbacks(site, rounds=rounds)
    assert counts.total() == rounds * PROMOTERS
    assert counts["Promotion"] + counts["Rollback"] >= rounds


def test_one_run_promoted_by_16_people_is_one_release(site) -> None:
    run = site.approved_run("run-a")
    outcomes = race([lambda by=f"rita-{index}": site.promote(run, by=by) for index in range(PROMOTERS)])
    done = [outcome for outcome in outcomes if isinstance(outcome, Promotion)]
    assert len([promotion for promotion in done if not promotion.was_there]) == 1
    assert all(isinstance(outcome, LostRaceError) for outcome in outcomes if outcome not in done), outcomes
    assert site.fresh_reader().refresh().release_numbers == (1,)


def main() -> None:
    """Run the races as many times as asked, in memory where the machine has /dev/shm."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    memory = Path("/dev/shm")
    for races in (run_promotion_races, run_promotions_against_rollbacks):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
            began = time.monotonic()
            counts = races(SignedSite(Path(directory)).initialise(), rounds=rounds)
            print(f"{races.__name__}: {rounds} rounds of {PROMOTERS}, {dict(counts)}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
