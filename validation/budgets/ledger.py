"""The ledger of a holdout's error budget: in the bucket, create-only, one entry before each look.

Its place in the flow: `liftgate validate` admits the attempt before anything is measured, begins a
try before the sealed photos' answers are looked at, and concludes it before anybody is told. What a
process that was killed, a second machine or two people at once can do to it, docs/gate.md lists.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from artifact_sync.errors import AlreadyExistsError, IntegrityError, LostRaceError, RefusedError
from artifact_sync.registry import Registry
from validation.budgets.budget import Terms, is_spent, level_of, tries_left
from validation.budgets.ledger_reading import LedgerReader
from validation.budgets.ledger_records import (
    OUTCOME,
    TERMS,
    TRY,
    Entries,
    LedgerOutcome,
    LedgerTerms,
    LedgerTry,
    Spending,
    outcomes_digest,
)
from validation.budgets.ledger_refusals import Attempt, check_terms, spent_refusal
from validation.checks.verdict import BudgetUse
from validation.photos.holdout import HoldoutRecord

_ROUNDS = 10_000


@dataclass(frozen=True)
class Admission:
    """What an attempt may do.

    Attributes:
        known: the try that this very attempt began before; a repetition finishes it and costs nothing.
        level: the level of that try, or of the one that would begin now.
        ended: holdouts that decide nothing any more, since this one shows photos that they seal.
    """

    known: Spending | None
    level: float
    ended: tuple[str, ...] = ()


class BudgetLedger:
    """One holdout's ledger.

    Args:
        registry: the model's part of the bucket.
        holdout: the record of the frozen holdout.
        seen_path: this machine's memory of what it has seen of the model's ledgers; None for none.
    """

    def __init__(self, registry: Registry, holdout: HoldoutRecord, *, seen_path: Path | None) -> None:
        self._registry = registry
        self._sha256 = holdout.sha256
        self._open = frozenset(item.sha256 for item in holdout.items if item.is_open)
        self._sealed = frozenset(item.sha256 for item in holdout.items) - self._open
        self.reader = LedgerReader(registry, seen_path=seen_path)

    def state(self) -> Entries:
        """Return all entries, checked.

        Raises:
            IntegrityError: some are missing, changed, or not what this machine has seen before.
        """
        return self.reader.read(self._sha256)

    def admit(self, attempt: Attempt, *, now: datetime) -> Admission:
        """Bind the terms at the first use, and refuse early what `begin` would refuse; no try is spent.

        It comes before the open photos are shown, so that other holdouts know that they are.

        Raises:
            BudgetSpentError: no try is left.
            RefusedError: other terms than those of the first use, or photos of another holdout.
            IntegrityError: see `state`.
        """
        entries = self.state()
        known = _find(entries, attempt)
        if known is not None:
            return Admission(known, known.level)
        check_terms(entries.terms, attempt, holdout_sha256=self._sha256)
        if entries.terms is not None and is_spent(entries.terms.terms, entries.history):
            raise spent_refusal(entries, attempt, open_share=self._open_share)
        if not self._sealed:
            raise RefusedError(
                f"Validation refused: all {len(self._open):,} photos of holdout {self._sha256[:12]} are open, so none "
                "can decide. Freeze one with photos that were not shown yet."
            )
        ended = self.reader.check_photos(self._sha256, sealed=self._sealed, opened=self._open)
        if entries.terms is None:
            self._bind(attempt, now=now)
        level = level_of(Terms.of(attempt.policy), entries.history, is_first=attempt.is_first)
        return Admission(None, level, ended)

    def begin(self, attempt: Attempt, *, now: datetime) -> Spending:
        """Return the try of this attempt, after writing it unless it was there.

        The same candidate, champion and policy have one try only: its outcome, once there, is the answer.

        Raises:
            as `admit`.
        """
        spending = self.admit(attempt, now=now).known or self._create(attempt, now=now)
        if spending.outcome is None:
            # Once more, now that others can see this try: of two holdouts that share photos, one at most goes on.
            self.reader.check_asked_once(self._sha256, sealed=self._sealed)
        return spending

    def conclude(
        self,
        spending: Spending,
        *,
        is_confirmed: bool,
        sealed_photos: int,
        open_disagreement: float | None,
        now: datetime,
    ) -> BudgetUse:
        """Write the try's outcome, before anybody is told; the first one written counts.

        Args:
            spending: what `begin` returned.
            is_confirmed: whether every check holds on the sealed photos at the try's level.
            sealed_photos: how many these were.
            open_disagreement: the share of open photos on which exactly one model is right; None without champion.
            now: the time.

        Raises:
            LostRaceError: another process concluded the same try, with another outcome.
            IntegrityError: see `state`.
        """
        number = spending.number
        outcome = LedgerOutcome(
            number=number,
            try_sha256=spending.entry.sha256,
            is_confirmed=is_confirmed,
            sealed_photos=sealed_photos,
            open_disagreement=open_disagreement,
            at=now,
        )
        self._check_own(spending)
        with suppress(AlreadyExistsError):
            self._registry.create_budget_entry(self._sha256, number, outcome.to_json(), kind=OUTCOME)
        stored = self.state().spendings[number - 1].outcome
        if stored is None or stored.is_confirmed != is_confirmed:
            raise LostRaceError(
                f"Try {number} of holdout {self._sha256[:12]} was concluded by another process, with the other "
                f"outcome: the models do not answer twice alike. The first outcome counts; run `liftgate validate "
                f"{spending.entry.run_id}` again to have it."
            )
        return self.use_of(Spending(spending.entry, stored))

    def use_of(self, spending: Spending) -> BudgetUse:
        """Return what a concluded try spent, with what is left now.

        Raises:
            RefusedError: the try has no outcome.
        """
        entries = self.state()
        if spending.outcome is None or entries.terms is None:
            raise RefusedError(f"Try {spending.number} refused: it has no outcome yet. Conclude it first.")
        terms, history = entries.terms.terms, entries.history
        return BudgetUse(
            number=spending.number,
            entry_sha256=spending.outcome.sha256,
            level=spending.level,
            sealed_photos=spending.outcome.sealed_photos,
            is_confirmed=spending.outcome.is_confirmed,
            tries_left=tries_left(terms, history),
            is_opened=is_spent(terms, history),
        )

    def _check_own(self, spending: Spending) -> None:
        begun = [one.entry for one in self.state().spendings]
        if spending.entry not in begun:
            raise IntegrityError(
                f"Try {spending.number} refused: it is not one that began with holdout {self._sha256[:12]}. Look who "
                "writes into the bucket's budgets."
            )

    @property
    def _open_share(self) -> float:
        return len(self._open) / (len(self._open) + len(self._sealed))

    def _bind(self, attempt: Attempt, *, now: datetime) -> None:
        record = LedgerTerms(
            model=self._registry.model,
            holdout_sha256=self._sha256,
            terms=Terms.of(attempt.policy),
            sealed_sha256s=tuple(sorted(self._sealed)),
            open_sha256s=tuple(sorted(self._open)),
            by=attempt.by,
            at=now,
        )
        try:
            self._registry.create_budget_entry(self._sha256, 0, record.to_json(), kind=TERMS)
        except AlreadyExistsError:
            check_terms(self.state().terms, attempt, holdout_sha256=self._sha256)

    def _create(self, attempt: Attempt, *, now: datetime) -> Spending:
        for _ in range(_ROUNDS):
            entries = self.state()
            assert entries.terms is not None, "admit has bound the terms"
            known = _find(entries, attempt)
            if known is not None:
                return known
            if is_spent(entries.terms.terms, entries.history):
                raise spent_refusal(entries, attempt, open_share=self._open_share)
            entry = self._next_try(entries, entries.terms, attempt, now=now)
            try:
                self._registry.create_budget_entry(self._sha256, entry.number, entry.to_json(), kind=TRY)
            except AlreadyExistsError:
                continue
            return Spending(entry)
        raise LostRaceError(f"Others began {_ROUNDS:,} tries meanwhile; look at who does that, and validate again.")

    def _next_try(self, entries: Entries, bound: LedgerTerms, attempt: Attempt, *, now: datetime) -> LedgerTry:
        history, before = entries.history, entries.spendings
        return LedgerTry(
            model=self._registry.model,
            holdout_sha256=self._sha256,
            number=len(before) + 1,
            run_id=attempt.run_id,
            candidate_manifest_sha256=attempt.candidate_manifest_sha256,
            champion_manifest_sha256=attempt.champion_manifest_sha256,
            policy_sha256=attempt.policy.sha256,
            level=level_of(bound.terms, history, is_first=attempt.is_first),
            previous_sha256=before[-1].entry.sha256 if before else bound.sha256,
            pending=history.pending,
            outcomes_sha256=outcomes_digest(before, pending=history.pending),
            by=attempt.by,
            at=now,
        )


def _find(entries: Entries, attempt: Attempt) -> Spending | None:
    """Return the try of the same candidate, champion and policy."""
    wanted = (attempt.candidate_manifest_sha256, attempt.champion_manifest_sha256, attempt.policy.sha256)
    for spending in entries.spendings:
        entry = spending.entry
        if (entry.candidate_manifest_sha256, entry.champion_manifest_sha256, entry.policy_sha256) == wanted:
            return spending
    return None
