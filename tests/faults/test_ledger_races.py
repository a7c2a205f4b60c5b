"""The ledger against kill -9 at every effect, and against sixteen processes at once.

A forked child begins and concludes a try over a store that kills it before or after its k-th write.
Whatever was written, the same attempt finishes afterwards as the same try, at the same level, and
nobody else's try is told otherwise.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kill_lab import Killer, KillingStore, in_child, was_killed

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import LostRaceError
from artifact_sync.store import ObjectStore

EFFECTS = 3  # terms, try, outcome


@pytest.fixture
def store(memory_path: Path) -> DirectoryStore:
    return DirectoryStore(memory_path / "bucket")


class AppendingStore(KillingStore):
    """Refuses what the ledger has no need of."""

    def replace(self, key: str, body: bytes) -> None:
        raise AssertionError("the ledger overwrites nothing")

    def delete(self, key: str) -> None:
        raise AssertionError("the ledger deletes nothing")


def judge(lab, store: ObjectStore, name: str, *, is_confirmed: bool = True):
    own = lab.ledger(store)
    return lab.conclude(own, own.begin(lab.attempt(name), now=lab.NOW), is_confirmed=is_confirmed)


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("effect", range(1, EFFECTS + 1))
@pytest.mark.parametrize("comes_between", [False, True])
def test_a_kill_at_any_effect_leaves_one_try_that_the_same_attempt_finishes(
    ledger_lab, store: DirectoryStore, *, effect: int, is_before: bool, comes_between: bool
) -> None:
    killing = AppendingStore(store, Killer(effect=effect, is_before=is_before))
    assert was_killed(in_child(lambda: judge(ledger_lab, killing, "killed")))
    alone = ledger_lab.ledger(store).state().spendings
    if comes_between:
        judge(ledger_lab, store, "other", is_confirmed=False)
    use = judge(ledger_lab, store, "killed")
    assert use.is_confirmed
    # Once the try is written it keeps its number and its level, whoever comes in between.
    had_begun = (effect, is_before) not in {(1, True), (1, False), (2, True)}
    assert len(alone) == had_begun
    assert use.number == (1 if had_begun or not comes_between else 2)
    assert use.level == pytest.approx(0.025 if use.number == 1 else 0.025 / 199)
    runs = [spending.entry.run_id for spending in ledger_lab.ledger(store).state().spendings]
    assert sorted(runs) == (["run-killed", "run-other"] if comes_between else ["run-killed"])
    assert judge(ledger_lab, store, "killed") == use


def test_there_are_no_more_effects_than_those(ledger_lab, store: DirectoryStore) -> None:
    killing = AppendingStore(store, Killer(effect=EFFECTS + 1, is_before=True))
    assert not was_killed(in_child(lambda: judge(ledger_lab, killing, "killed")))


def test_of_sixteen_processes_each_has_its_own_try_and_its_own_answer(ledger_lab, store: DirectoryStore) -> None:
    names = [f"{number:02d}" for number in range(16)]
    children = [in_child(lambda name=name: judge(ledger_lab, store, name, is_confirmed=name == "07")) for name in names]
    killed = [was_killed(child) for child in children]
    assert not any(killed)
    spendings = ledger_lab.ledger(store).state().spendings
    assert sorted(one.entry.run_id for one in spendings) == [f"run-{name}" for name in names]
    confirmed = [one.entry.run_id for one in spendings if one.outcome is not None and one.outcome.is_confirmed]
    assert confirmed == ["run-07"]


def test_one_run_judged_by_sixteen_processes_is_one_try_with_one_answer(ledger_lab, store: DirectoryStore) -> None:
    # Half of them measured otherwise, as on machines that round differently: the first answer counts for all.
    def act(index: int) -> None:
        try:
            judge(ledger_lab, store, "same", is_confirmed=bool(index % 2))
        except LostRaceError as error:
            assert "first outcome counts" in str(error)  # noqa: PT017 - in a child

    children = [in_child(lambda index=index: act(index)) for index in range(16)]
    killed = [was_killed(child) for child in children]
    assert not any(killed)
    (spending,) = ledger_lab.ledger(store).state().spendings
    assert spending.outcome is not None
