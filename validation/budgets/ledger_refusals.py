"""What the ledger says when it refuses: why, and how many new labels to bring.

Its place in the flow: ledger.py raises these before anything is measured or spent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from artifact_sync.errors import BudgetSpentError, RefusedError
from validation.budgets.budget import History, Terms, level_of
from validation.budgets.ledger_records import Entries, LedgerTerms
from validation.checks.policy import Policy
from validation.figures.power import labels_for_non_inferiority, labels_for_superiority


@dataclass(frozen=True)
class Attempt:
    """Who wants to ask the sealed photos about what; `champion_manifest_sha256` is None for a first model."""

    run_id: str
    candidate_manifest_sha256: str
    champion_manifest_sha256: str | None
    policy: Policy
    by: str

    @property
    def is_first(self) -> bool:
        """Whether there is no champion to compare with."""
        return self.champion_manifest_sha256 is None


def check_terms(bound: LedgerTerms | None, attempt: Attempt, *, holdout_sha256: str) -> None:
    """Refuse another budget than the one that the holdout's first use has bound.

    Raises:
        RefusedError: alpha, tries or promotions differ.
    """
    if bound is None or bound.terms == Terms.of(attempt.policy):
        return
    raise RefusedError(
        f"Validation refused: the first use of holdout {holdout_sha256[:12]} ({bound.by}, {bound.at:%Y-%m-%d}) bound "
        f"it to {_said(bound.terms)}, and the policy now says {_said(Terms.of(attempt.policy))}. A budget that can be "
        "raised bounds nothing: set the policy back, or freeze a new holdout of photos that were not used."
    )


def photos_refusal(own: str, other: str, *, shown: int, asked: int) -> RefusedError:
    """Return the refusal of a holdout whose sealed photos another one shows (`shown`) or has asked (`asked`)."""
    found = f"reports on holdout {other[:12]} show {shown:,} of its sealed photos"
    if not shown:
        found = f"{asked:,} of its sealed photos were asked by holdout {other[:12]} already"
    return RefusedError(
        f"Validation refused: {found}, so the budget of holdout {own[:12]} would promise too much. Use holdout "
        f"{other[:12]}, or freeze a new one with `liftgate dataset freeze-holdout --open-from` and both folders, so "
        "that photos which were used are open in it."
    )


def spent_refusal(entries: Entries, attempt: Attempt, *, open_share: float) -> BudgetSpentError:
    """Return the refusal of a try when nothing is left, with the labels that a new holdout needs."""
    history, terms = entries.history, entries.terms
    assert terms is not None
    rule = attempt.policy.accuracy
    unfinished = [entries.spendings[number - 1].entry.run_id for number in history.pending]
    disagreements = [
        spending.outcome.open_disagreement
        for spending in entries.spendings
        if spending.outcome is not None and spending.outcome.open_disagreement is not None
    ]
    text = (
        f"Validation refused: holdout {terms.holdout_sha256[:12]} has decided {history.comparisons} of "
        f"{terms.terms.tries} tries and confirmed {history.confirmed} of {terms.terms.promotions} promotions; its "
        "budget is spent, and its photos are open."
    )
    if unfinished:
        text += f" What was begun can be finished: `liftgate validate {unfinished[0]}`."
    disagreement = sum(disagreements) / len(disagreements) if disagreements else None
    needed = None if disagreement is None else fresh_labels(attempt.policy, disagreement, open_share=open_share)
    if disagreement is None or needed is None:
        return BudgetSpentError(f"{text} Freeze a new holdout of photos that nobody has seen results on.")
    aim = f"a gain of {rule.smallest_gain:g}" if rule.margin is None else f"that no more than {rule.margin:g} is lost"
    return BudgetSpentError(
        f"{text} Bring about {needed:,} new labelled photos: with {disagreement:.1%} of answers differing, as here, "
        f"they show {aim} at the first try with {rule.power:.0%} power. Freeze them as a new holdout; `--open-from` "
        "keeps the old photos in its reports."
    )


def fresh_labels(policy: Policy, disagreement: float, *, open_share: float) -> int | None:
    """Return how many labels, open and sealed, decide the first comparison on a new holdout; None for no number."""
    rule = policy.accuracy
    level = level_of(Terms.of(policy), History(), is_first=False)
    if rule.margin is None:
        # Where models hardly differ, what is asked for is still that they differ by the gain.
        differing = max(disagreement, rule.smallest_gain)
        sealed = labels_for_superiority(gain=rule.smallest_gain, disagreement=differing, alpha=level, power=rule.power)
    else:
        sealed = labels_for_non_inferiority(
            gain=0.0, disagreement=disagreement, margin=rule.margin, alpha=level, power=rule.power
        )
    return None if sealed is None else math.ceil(max(sealed, rule.minimum_photos) / (1 - open_share))


def _said(terms: Terms) -> str:
    return f"alpha {terms.alpha:g}, {terms.tries} tries and {terms.promotions} promotions"
