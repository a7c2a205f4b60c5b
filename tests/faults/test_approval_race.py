"""Approvers, rejecters, revokers and promoters at once, each a process: one order, one winner, nobody's word lost.

The suite runs a part. As a program (`make soak`) it runs as many rounds as asked and prints the figures.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import soak
from signed_site import SignedSite

from artifact_sync.errors import LostRaceError, RefusedError
from validation.approvals.approval_records import SignedApproval
from validation.approvals.decisions import DecisionBook
from validation.approvals.rejection import Said
from validation.releases.promote import Promotion

APPROVERS = ("alice", "bob", "chen", "dana", "emil", "fay")
ROUNDS_A_SITE = 20
_CONTEXT = multiprocessing.get_context("fork")

Action = Callable[[], object]


def race(actions: list[Action]) -> list[Any]:
    """Run the actions at once, each in a process of its own; return what each returned or raised."""
    barrier = _CONTEXT.Barrier(len(actions))
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in actions]
    children = [
        _CONTEXT.Process(target=_run, args=(action, barrier, sender), daemon=True)
        for action, (_, sender) in zip(actions, pipes, strict=True)
    ]
    for child in children:
        child.start()
    outcomes = [receiver.recv() for receiver, _ in pipes]
    for child in children:
        child.join()
    return outcomes


def later(action: Action, random: Random, *, most_seconds: float = 0.1) -> Action:
    """Let the action start a little later: a promotion has more to do before it settles."""
    seconds = random.uniform(0, most_seconds)

    def act() -> object:
        time.sleep(seconds)
        return action()

    return act


def _run(action: Action, barrier: Any, sender: Any) -> None:
    barrier.wait()
    try:
        outcome = action()
    except (RefusedError, LostRaceError) as error:
        outcome = error
    except BaseException:  # noqa: BLE001 - told to the parent, which fails with it
        outcome = traceback.format_exc()
    sender.send(outcome)
    sender.close()
    # Nothing of the parent's may run here: no finalizers, no temporary directories.
    os._exit(0)


def log_of(site, run):
    """The record of decisions as a machine that was set up just now reads it from the bucket alone."""
    verdict_sha256 = site.standing(run).log.entries[0].decision.verdict_sha256
    folder = type(run)(site.path / "nothing" / run.run_id)
    return DecisionBook(site.registry, folder, verdict_sha256).read(site.fresh_view())


def check_order(log) -> None:
    """Every number was given once, and each entry follows from the one before."""
    assert [entry.decision.number for entry in log.entries] == list(range(1, len(log.entries) + 1))
    before = [None, *(entry.sha256 for entry in log.entries)]
    assert [entry.decision.previous_sha256 for entry in log.entries] == before[:-1]
    assert log.refused == ()


def race_approvers(site, number: int) -> Counter[str]:
    """Everybody approves at once: all are counted, on the same bytes."""
    run = site.run(f"run-{number:04d}")
    outcomes = race([lambda name=name: site.approve(run, name) for name in APPROVERS])
    assert all(isinstance(outcome, SignedApproval) for outcome in outcomes), outcomes
    standing = site.standing(run)
    assert {signed.sha256 for signed in standing.approvals} == {outcome.sha256 for outcome in outcomes}
    assert len({outcome.approval.targets_sha256 for outcome in outcomes}) == 1
    assert (standing.refused, standing.missing, standing.unrecorded) == ((), (), ())
    log = log_of(site, run)
    check_order(log)
    assert sorted(entry.decision.by for entry in log.entries) == sorted(APPROVERS)
    return Counter({"approved": len(outcomes)})


def race_against_promotion(site, number: int) -> Counter[str]:
    """Promoters against one who rejects, one who takes back the approval, and one who approves only now."""
    run = site.run(f"run-{number:04d}")
    random = Random(number)
    given = {name: site.approve(run, name) for name in ("alice", "bob")}
    promoters = [lambda by=by: site.promote(run, by=by, machine=by) for by in ("rita", "rob", "rosa")]
    outcomes = race(
        [
            *promoters,
            later(lambda: site.reject(run, "chen"), random, most_seconds=0.4),
            later(lambda: site.revoke(run, "bob"), random, most_seconds=0.4),
            later(lambda: site.approve(run, "dana"), random, most_seconds=0.4),
        ]
    )
    assert all(isinstance(outcome, Exception | Promotion | Said | SignedApproval) for outcome in outcomes), outcomes
    promoted, (rejected, revoked, approved) = outcomes[:3], outcomes[3:]
    log = log_of(site, run)
    check_order(log)
    winners = [outcome for outcome in promoted if isinstance(outcome, Promotion)]
    begun = [entry for entry in log.entries if entry.decision.kind == "promotion"]
    assert len(begun) == (1 if winners else 0), outcomes
    if winners:
        assert isinstance(rejected, RefusedError), outcomes
        assert "its promotion began" in str(rejected) or "it is what is served" in str(rejected), rejected
        assert len({winner.release.sha256 for winner in winners}) == 1
        assert len([winner for winner in winners if not winner.was_there]) == 1, outcomes
        # The release rests on just what stood when its promotion began.
        before = log.until(begun[0])
        stood = {word.decision.about_sha256 for key in _keys(before) if (word := before.word_of(key))}
        assert set(winners[0].release.approval_sha256s) == stood
        assert (given["bob"].sha256 in stood) == isinstance(revoked, RefusedError), outcomes
        assert isinstance(approved, RefusedError) or approved.sha256 in stood, outcomes
    else:
        assert isinstance(rejected, Said), outcomes
        assert all("is rejected (chen on" in str(outcome) for outcome in promoted), promoted
        assert isinstance(revoked, Said), outcomes
        assert isinstance(approved, SignedApproval), outcomes
    return Counter({"promoted" if winners else "rejected": 1, "told": sum(isinstance(o, Exception) for o in outcomes)})


def race_of_two_runs(site, number: int) -> Counter[str]:
    """Two approved candidates, a promoter and a rejecter of each: never both, and never one that was rejected."""
    runs = [site.run(f"run-{number:04d}-{which}") for which in "xy"]
    for run in runs:
        site.approve(run, "alice")
    before = len(site.fresh_view().release_numbers)
    promoters = [lambda run=run: site.promote(run, by=f"rita-of-{run.run_id}", machine=run.run_id) for run in runs]
    random = Random(number)
    outcomes = race([*promoters, *(later(lambda run=run: site.reject(run, "bob"), random) for run in runs)])
    assert all(isinstance(outcome, Exception | Promotion | Said) for outcome in outcomes), outcomes
    winners = [run for run, outcome in zip(runs, outcomes, strict=False) if isinstance(outcome, Promotion)]
    assert len(winners) <= 1, outcomes
    view = site.fresh_view()
    assert len(view.release_numbers) == before + len(winners)
    for run, rejected in zip(runs, outcomes[2:], strict=True):
        check_order(log_of(site, run))
        assert not (run in winners and isinstance(rejected, Said)), outcomes
    if winners:
        latest = view.latest_release()
        assert view.version(latest.stable).lineage.run_id == winners[0].run_id
    return Counter({"promoted": len(winners), "rejected": sum(isinstance(outcome, Said) for outcome in outcomes)})


def _keys(log) -> set[str]:
    return {entry.decision.key_id for entry in log.entries if entry.decision.kind != "promotion"}


RACES = {
    "approvers": race_approvers,
    "promoters and others": race_against_promotion,
    "two runs": race_of_two_runs,
}


def run_races(make_site: Callable[[Path], Any], name: str, *, rounds: int, directory: Path) -> Counter[str]:
    """Race `rounds` times, on a new site every now and then, and count what happened."""
    counts: Counter[str] = Counter()
    for number in range(rounds):
        if number % ROUNDS_A_SITE == 0:
            site = make_site(directory / f"{name.replace(' ', '-')}-{number}")
        counts += RACES[name](site, number)
    return counts


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RACES)
def test_whoever_decides_at_once_is_counted_or_told(memory_path: Path, many_approvers_site, name: str) -> None:
    rounds = soak.rounds(5, soak=20)
    counts = run_races(many_approvers_site, name, rounds=rounds, directory=memory_path)
    print(f"{name}: {dict(counts)}")
    assert counts.total() >= rounds


@pytest.fixture
def many_approvers_site() -> Callable[[Path], Any]:
    """Make a site where one of six approvers must approve."""
    return make_site


def make_site(path: Path) -> Any:
    """Make a site where one of six approvers must approve."""
    path.mkdir(parents=True)
    return SignedSite(path, approver_names=APPROVERS).initialise()


def main() -> None:
    """Run the races as many times as asked in all, in memory where the machine has /dev/shm."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    memory = Path("/dev/shm")
    for name in RACES:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
            began = time.monotonic()
            count = -(-rounds // len(RACES))
            counts = run_races(make_site, name, rounds=count, directory=Path(directory))
            print(f"{name}: {count} rounds, {dict(counts)}, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
