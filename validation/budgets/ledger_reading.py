"""Reading a model's ledgers: each whole, against this machine's memory, the signed versions and each other.

Its place in the flow: ledger.py reads through it before it writes; `liftgate budget` shows what it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

from artifact_sync.errors import IntegrityError, TrustError
from artifact_sync.records import VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.trust import TrustedView
from validation.budgets.ledger_records import OUTCOME, Entries, read_entries
from validation.budgets.ledger_refusals import photos_refusal
from validation.budgets.seen_entries import SeenEntries

_READINGS = 5


class LedgerReader:
    """All ledgers of one model.

    Args:
        registry: the model's part of the bucket.
        seen_path: this machine's memory of what it has seen of them; None for none.
    """

    def __init__(self, registry: Registry, *, seen_path: Path | None) -> None:
        self._registry = registry
        self._seen = SeenEntries(seen_path)

    def read(self, holdout_sha256: str) -> Entries:
        """Return a holdout's entries, checked.

        Raises:
            IntegrityError: some are missing, changed, or not what this machine has seen before.
        """
        # While others write, a listing may show an entry and not yet the one before; what is really gone stays gone.
        for reading in range(1, _READINGS + 1):
            try:
                found = self._registry.budget_entries(holdout_sha256)
                entries = read_entries(found, model=self._registry.model, holdout_sha256=holdout_sha256)
                self._seen.check(entries.digests, holdout_sha256=holdout_sha256)
                return entries
            except IntegrityError:
                if reading == _READINGS:
                    raise
        raise AssertionError("the last reading returns or raises")

    def check_photos(self, own: str, *, sealed: Set[str], opened: Set[str]) -> tuple[str, ...]:
        """Refuse sealed photos that other holdouts show or have asked.

        Args:
            own: the digest of the holdout that wants to decide.
            sealed: its sealed photos.
            opened: its open photos.

        Returns:
            The holdouts whose sealed photos this one shows: they decide nothing any more.

        Raises:
            RefusedError: another holdout of the model has shown or asked some of them.
        """
        ended = []
        for other in self._others(own):
            assert other.terms is not None
            shown = sealed & set(other.terms.open_sha256s)
            asked = sealed & set(other.terms.sealed_sha256s) if other.spendings else set()
            if shown or asked:
                raise photos_refusal(own, other.terms.holdout_sha256, shown=len(shown), asked=len(asked))
            if opened & set(other.terms.sealed_sha256s):
                ended.append(other.terms.holdout_sha256)
        return tuple(ended)

    def check_asked_once(self, own: str, *, sealed: Set[str]) -> None:
        """Refuse sealed photos that another holdout of the model has asked.

        Raises:
            RefusedError: there are such.
        """
        for other in self._others(own):
            assert other.terms is not None
            asked = sealed & set(other.terms.sealed_sha256s)
            if asked and other.spendings:
                raise photos_refusal(own, other.terms.holdout_sha256, shown=0, asked=len(asked))

    def check_signed(self, view: TrustedView) -> None:
        """Check that every signed version finds in the bucket what it spent, of whatever holdout.

        Raises:
            TrustError: an entry is gone or another.
            IntegrityError: a ledger does not follow from itself.
        """
        known: dict[str, Entries] = {}
        for number in view.version_numbers:
            version = view.version(number)
            evidence = version.evidence
            if evidence is None or evidence.ledger_number is None:
                continue
            holdout = evidence.holdout_sha256
            if holdout not in known:
                known[holdout] = self.read(holdout)
            if known[holdout].digests.get((evidence.ledger_number, OUTCOME)) != evidence.ledger_sha256:
                raise _signed_entry_is_gone(version)

    def _others(self, own: str) -> Iterator[Entries]:
        # Those that this machine remembers too: one whose whole ledger is gone would not be listed.
        for sha256 in sorted({*self._registry.budgeted_holdouts(), *self._seen.holdouts()} - {own}):
            entries = self.read(sha256)
            if entries.terms is not None:
                yield entries


def _signed_entry_is_gone(version: VersionRecord) -> TrustError:
    evidence = version.evidence
    assert evidence is not None
    return TrustError(
        f"The budget of holdout {evidence.holdout_sha256[:12]} is refused: the approvers signed version "
        f"{version.version} with the outcome of try {evidence.ledger_number} (SHA-256 {evidence.ledger_sha256}), and "
        f"the bucket's ledger has no such entry. Somebody set the budget back; restore {version.model}/budgets/ from "
        "a backup."
    )
