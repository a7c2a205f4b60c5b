"""Whether a verdict's claim to have asked the sealed photos is in the budget's ledger.

Its place in the flow: approve and promote ask it. verdict.json is a file in a folder that the trainer can
write to; the ledger in the bucket says whether this candidate was ever confirmed, against which champion.
"""

from __future__ import annotations

from artifact_sync.errors import IntegrityError, RefusedError
from artifact_sync.registry import Registry
from validation.approvals.candidacy import Candidacy
from validation.budgets.ledger_reading import LedgerReader
from validation.budgets.ledger_records import Spending


def check_spent(candidacy: Candidacy, registry: Registry, *, act: str) -> None:
    """Refuse a verdict "better" that no confirmed try of its holdout's ledger bears out.

    Raises:
        RefusedError: the verdict spent nothing, so it rests on photos that the trainer may know.
        IntegrityError: the ledger has no such entry, or it says something else.
    """
    verdict, run_id = candidacy.verdict, candidacy.run.run_id
    budget = verdict.budget
    if budget is None or not budget.is_confirmed:
        raise RefusedError(
            f"{act} refused: the verdict on run {run_id} is 'better' without an answer of the sealed photos, which "
            f"alone can say so. Run `liftgate validate {run_id}` again."
        )
    entries = LedgerReader(registry, seen_path=None).read(verdict.holdout_sha256)
    spending = next((one for one in entries.spendings if one.number == budget.number), None)
    problem = _problem(candidacy, spending)
    if problem:
        raise IntegrityError(
            f"Run {run_id} refused: its verdict names try {budget.number} (entry {budget.entry_sha256}) of the budget "
            f"of holdout {verdict.holdout_sha256[:12]}, but {problem}. The verdict or the ledger was changed; find out "
            f"by whom, and run `liftgate validate {run_id}` again."
        )


def _problem(candidacy: Candidacy, spending: Spending | None) -> str | None:
    verdict = candidacy.verdict
    if spending is None:
        return "the ledger in the bucket has no such try"
    if spending.outcome is None or not spending.outcome.is_confirmed:
        return "the ledger does not say that it was confirmed"
    if verdict.budget is None or spending.outcome.sha256 != verdict.budget.entry_sha256:
        return f"the ledger has {spending.outcome.sha256} there"
    champion = None if verdict.champion is None else verdict.champion.manifest_sha256
    asked = (verdict.candidate_manifest_sha256, champion, verdict.policy_sha256)
    entry = spending.entry
    if asked != (entry.candidate_manifest_sha256, entry.champion_manifest_sha256, entry.policy_sha256):
        return "that try was about another candidate, champion or policy"
    return None
