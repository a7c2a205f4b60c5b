"""People who break the glass against each other, against promoters and against those who roll back, all at once.

Each success is a release of its own, the losers are told who won, and the chain is whole. As a program
(`make soak`) it runs as many rounds as asked and prints the figures.
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
from emergency_site import EmergencySite
from race_lab import promotion_of, race

from artifact_sync.errors import LostRaceError, RefusedError
from artifact_sync.run_folder import RunFolder

PEOPLE = 8
ROUNDS = soak.rounds(6, soak=20)


def emergency_of(site, run: RunFolder, by: str) -> Callable[[], object]:
    return lambda: site.break_glass(run, by=by)


def check_round(site, outcomes: list[object], *, before: int) -> Counter[str]:
    """Every success is one release, every record follows from what both keys or the approvers signed."""
    done = [outcome.release for outcome in outcomes if not isinstance(outcome, Exception)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert done, outcomes
    assert all(isinstance(outcome, LostRaceError | RefusedError) for outcome in refused), refused
    view = site.fresh_reader().refresh()
    assert sorted(release.number for release in done) == list(range(before + 1, view.release_numbers[-1] + 1))
    releases = [view.release(number) for number in view.release_numbers]
    for release in done:
        assert releases[release.number - 1] == release
    brought = [release.stable for release in releases if release.kind == "break-glass"]
    assert len(brought) == len(set(brought)), "a number was used twice"
    assert all((release.stable >= 900_000) == release.is_emergency for release in releases)
    return Counter(type(outcome).__name__ for outcome in outcomes)


def run_emergencies_against_each_other(site, *, rounds: int) -> Counter[str]:
    """Race `rounds` times over one next release."""
    counts: Counter[str] = Counter()
    before = 0
    for number in range(1, rounds + 1):
        runs = [site.run(f"run-{number:03d}-{index:02d}", outcome="not better") for index in range(PEOPLE)]
        outcomes = race([emergency_of(site, run, f"gail-of-{run.run_id}") for run in runs])
        counts += check_round(site, outcomes, before=before)
        before = site.publisher().view().release_numbers[-1]
        for outcome in outcomes:
            if isinstance(outcome, LostRaceError):
                assert "BROKE THE GLASS for run" in str(outcome) or "came first" in str(outcome), outcome
    return counts


def run_emergencies_against_all(site, *, rounds: int) -> Counter[str]:
    """Race emergencies, promotions and rollbacks."""
    counts: Counter[str] = Counter()
    site.promote(site.approved_run("run-first"))
    site.promote(site.approved_run("run-second"))
    for number in range(rounds):
        before = site.publisher().view().release_numbers[-1]
        emergencies = [site.run(f"bad-{number:03d}-{index}", outcome="not better") for index in range(PEOPLE // 2)]
        candidates = [site.approved_run(f"run-{number:03d}-{index}") for index in range(PEOPLE // 2)]
        actions = [emergency_of(site, run, f"gail-{number}") for run in emergencies]
        actions += [promotion_of(site, run) for run in candidates]
        actions += [lambda by=f"rob-{number}-{index}": site.roll_back(by=by, to=1) for index in range(2)]
        counts += check_round(site, race(actions), before=before)
    return counts


@pytest.mark.timeout(600)
def test_each_broken_glass_is_a_release_of_its_own_and_losers_are_told(emergency_site) -> None:
    counts = run_emergencies_against_each_other(emergency_site, rounds=ROUNDS)
    assert counts["BrokenGlass"] >= ROUNDS
    assert counts.total() == ROUNDS * PEOPLE


@pytest.mark.timeout(600)
def test_against_promoters_and_rollbacks_the_chain_stays_whole(emergency_site) -> None:
    counts = run_emergencies_against_all(emergency_site, rounds=ROUNDS)
    assert counts.total() == ROUNDS * (PEOPLE + 2)


def test_one_run_by_one_person_at_many_terminals_is_one_release(emergency_site) -> None:
    run = emergency_site.run("run-a", outcome="not better")
    outcomes = race([emergency_of(emergency_site, run, "gail") for _ in range(PEOPLE)])
    check = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len([done for done in check if done.pushed is not None]) == 1, outcomes
    assert {done.release.number for done in check} == {1}
    assert emergency_site.fresh_reader().refresh().release_numbers == (1,)


def main() -> None:
    """Run the races as many times as asked, in memory where the machine has /dev/shm."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    memory = Path("/dev/shm")
    for races in (run_emergencies_against_each_other, run_emergencies_against_all):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
            began = time.monotonic()
            counts = races(EmergencySite(Path(directory)).initialise(), rounds=rounds)
            print(f"{races.__name__}: {rounds} rounds, {dict(counts)}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
