"""The ledger's entries, and whether they follow from each other.

Their place in the flow: ledger.py writes them to the bucket and reads them back through
`read_entries`, which believes nothing that is missing, changed or spends more than there was:

    budgets/<holdout>/000000.terms.json   000001.try.json   000001.outcome.json   000002.try.json …
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from artifact_sync.canonical import Record, Sha256, Timestamp, sha256_hex
from artifact_sync.errors import IntegrityError, RecordError
from artifact_sync.records import ModelName, Number, RunId
from validation.budgets.budget import History, Terms, Try, is_spent, remaining

TERMS, TRY, OUTCOME = "terms", "try", "outcome"


class LedgerTerms(Record):
    """Entry 0: what the holdout may spend, and its photos, so that no other holdout asks them too."""

    schema_name: ClassVar[str] = "liftgate.budget-terms/1"
    model: ModelName
    holdout_sha256: Sha256
    terms: Terms
    sealed_sha256s: tuple[Sha256, ...]
    open_sha256s: tuple[Sha256, ...]
    by: str
    at: Timestamp


class LedgerTry(Record):
    """One question to the sealed photos, written before any answer to it is looked at.

    Attributes:
        previous_sha256: the digest of the try before, or of the terms.
        pending: the numbers of earlier tries that had no outcome then.
        outcomes_sha256: the digest of the digests of all other earlier tries' outcomes.
    """

    schema_name: ClassVar[str] = "liftgate.budget-try/1"
    model: ModelName
    holdout_sha256: Sha256
    number: Number
    run_id: RunId
    candidate_manifest_sha256: Sha256
    champion_manifest_sha256: Sha256 | None
    policy_sha256: Sha256
    level: Annotated[float, Field(gt=0, lt=1)]
    previous_sha256: Sha256
    pending: tuple[Number, ...]
    outcomes_sha256: Sha256
    by: str
    at: Timestamp

    @property
    def is_first(self) -> bool:
        """Whether there was no champion to compare with."""
        return self.champion_manifest_sha256 is None


class LedgerOutcome(Record):
    """The one bit that a try is answered with, written before anybody is told.

    `open_disagreement` is the share of the open photos on which exactly one model was right: it says how
    many labels the next holdout needs.
    """

    schema_name: ClassVar[str] = "liftgate.budget-outcome/1"
    number: Number
    try_sha256: Sha256
    is_confirmed: bool
    sealed_photos: Annotated[int, Field(ge=1)]
    open_disagreement: Annotated[float, Field(ge=0, le=1)] | None
    at: Timestamp


@dataclass(frozen=True)
class Spending:
    """A try and, once it has one, its outcome."""

    entry: LedgerTry
    outcome: LedgerOutcome | None = None

    @property
    def number(self) -> int:
        """The try's number, from 1."""
        return self.entry.number

    @property
    def level(self) -> float:
        """The level at which every check is tested on the sealed photos."""
        return self.entry.level

    @cached_property
    def outcome_sha256(self) -> str | None:
        """The digest of the outcome."""
        return None if self.outcome is None else self.outcome.sha256


@dataclass(frozen=True)
class Entries:
    """A whole ledger whose entries follow from each other; `terms` is None before the holdout's first use."""

    terms: LedgerTerms | None = None
    spendings: tuple[Spending, ...] = ()

    @property
    def history(self) -> History:
        """The tries as the budget's arithmetic sees them."""
        return history_of(self.spendings)

    @property
    def digests(self) -> dict[tuple[int, str], str]:
        """The digest of every entry by number and kind."""
        found = {} if self.terms is None else {(0, TERMS): self.terms.sha256}
        for spending in self.spendings:
            found[spending.number, TRY] = spending.entry.sha256
            if spending.outcome is not None:
                found[spending.number, OUTCOME] = spending.outcome.sha256
        return found


def history_of(spendings: Sequence[Spending]) -> History:
    """Return the tries as the budget's arithmetic sees them."""
    return History(
        tuple(
            Try(
                level=spending.level,
                is_first=spending.entry.is_first,
                is_confirmed=None if spending.outcome is None else spending.outcome.is_confirmed,
                pending=spending.entry.pending,
            )
            for spending in spendings
        )
    )


def outcomes_digest(spendings: Sequence[Spending], *, pending: Sequence[int]) -> str:
    """Return the digest that a try keeps of all outcomes that were there before it."""
    known = (one.outcome_sha256 for one in spendings if one.number not in pending)
    return sha256_hex("\n".join(sha256 for sha256 in known if sha256 is not None).encode())


def read_entries(found: Sequence[tuple[int, str, bytes]], *, model: str, holdout_sha256: str) -> Entries:
    """Return the ledger that the bucket's objects make up.

    Args:
        found: number, kind and bytes of every object.
        model: the model that they must be about.
        holdout_sha256: the holdout that they must be about.

    Raises:
        IntegrityError: an entry is missing, does not follow from those before, or is none.
    """
    objects = {(number, kind): data for number, kind, data in found}
    if not objects:
        return Entries()
    try:
        if (0, TERMS) not in objects:
            raise _BrokenChainError("entry 0 with the terms is missing")
        terms = LedgerTerms.from_json(objects.pop((0, TERMS)))
        _check_place(terms, 0, model=model, holdout_sha256=holdout_sha256)
        spendings: list[Spending] = []
        while objects:
            spendings.append(_next(objects, terms, spendings))
    except (RecordError, _BrokenChainError) as error:
        raise IntegrityError(
            f"The budget of holdout {holdout_sha256[:12]} is refused: {error}. Somebody removed or changed objects "
            f"under {model}/budgets/{holdout_sha256}/ in the bucket. Restore them from a backup; until then this "
            "holdout decides nothing."
        ) from None
    return Entries(terms, tuple(spendings))


class _BrokenChainError(Exception):
    """What is wrong with the entries, in a clause."""


def _next(objects: dict[tuple[int, str], bytes], terms: LedgerTerms, before: list[Spending]) -> Spending:
    number = len(before) + 1
    if (number, TRY) not in objects:
        stray = min(objects)
        raise _BrokenChainError(f"try {number} is missing, and there is {stray[0]:06d}.{stray[1]}")
    entry = LedgerTry.from_json(objects.pop((number, TRY)))
    _check_place(entry, number, model=terms.model, holdout_sha256=terms.holdout_sha256, found=entry.number)
    if entry.previous_sha256 != (before[-1].entry if before else terms).sha256:
        raise _BrokenChainError(f"try {number} does not follow from the entry before it")
    _check_view(entry, terms, before)
    data = objects.pop((number, OUTCOME), None)
    outcome = None if data is None else LedgerOutcome.from_json(data)
    if outcome is not None and (outcome.number, outcome.try_sha256) != (number, entry.sha256):
        raise _BrokenChainError(f"the outcome of try {number} is of another try")
    return Spending(entry, outcome)


def _check_view(entry: LedgerTry, terms: LedgerTerms, before: list[Spending]) -> None:
    """Check that what the try knew when it began is still there, and that it spent what it might."""
    if list(entry.pending) != sorted(set(entry.pending) & {one.number for one in before}):
        raise _BrokenChainError(f"try {entry.number} names pending tries that were not there before it")
    lost = [one.number for one in before if one.outcome is None and one.number not in entry.pending]
    if lost:
        raise _BrokenChainError(f"the outcome of try {lost[0]} is missing, and try {entry.number} knew it")
    if entry.outcomes_sha256 != outcomes_digest(before, pending=entry.pending):
        raise _BrokenChainError(f"an outcome is not the one that try {entry.number} knew")
    seen = history_of([Spending(one.entry, None if one.number in entry.pending else one.outcome) for one in before])
    # Not to the last bit: another machine may sum in another order.
    if is_spent(terms.terms, seen) or entry.level > remaining(terms.terms, seen) * (1 + 1e-9):
        raise _BrokenChainError(f"try {entry.number} spent {entry.level:g}, which was not there to be spent")


def _check_place(
    entry: LedgerTerms | LedgerTry, number: int, *, model: str, holdout_sha256: str, found: int = 0
) -> None:
    if (entry.model, entry.holdout_sha256, found) != (model, holdout_sha256, number):
        raise _BrokenChainError(f"entry {number} is of another model, holdout or number")
