"""The decision: answers, measurements and a policy in, a verdict out, nothing else touched.

Its place in the flow: validate.py asks it twice. What the open photos and the measurements say is
told in full and costs nothing; if that is no harm, the sealed photos are asked one question:

    not better    if one check shows harm: worse, below a floor, beyond a limit, not worth it
    better        else, if the sealed photos show that every check holds
    cannot tell   else, and how many labels would decide

To be let through, *every* check must hold, so each may be tested at the full level: the chance to
pass a candidate that violates any one of them is at most that level (Berger, Technometrics 24
(1982) 295). To be refused, *one* class is enough, so those tests are corrected by Holm's method.
The level of each question comes from the holdout's error budget (docs/gate.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import numpy as np

from validation.answers import Answers
from validation.checks.accuracy_checks import accuracy_claims, accuracy_findings
from validation.checks.claims import Claim, Finding, Question
from validation.checks.fixed_checks import fixed_reasons
from validation.checks.group_checks import group_claims, group_findings
from validation.checks.groups import Counts, judged_counts, judged_sizes
from validation.checks.metric_checks import metric_demands, metric_findings
from validation.checks.policy import Policy
from validation.checks.shortfall import Shortfall, shortfall
from validation.checks.size_checks import size_reasons
from validation.checks.suspect_checks import SUSPECT_CHECK, weigh_suspects
from validation.checks.verdict import BudgetUse, Outcome, Reason, Verdict
from validation.checks.wording import photos_text
from validation.figures.suspects import disputed
from validation.reports.report import Report

SEALED_CHECK = "sealed photos"
"""The name of the reason that says what the sealed photos decided."""


@dataclass(frozen=True)
class Preliminary:
    """What is known before the sealed photos are asked.

    Attributes:
        sampled: what the open photos say of each check.
        fixed: what the measurements say.
        sizes: what is too small to decide.
        without_suspects: the outcome of all these without the suspect open photos; None without such.
        shortfall: the sealed photos that it takes to show what the open photos suggest.
    """

    sampled: tuple[Finding, ...]
    fixed: tuple[Reason, ...]
    sizes: tuple[Reason, ...]
    without_suspects: Outcome | None
    shortfall: Shortfall

    @property
    def is_settled(self) -> bool:
        """Whether the sealed photos could not make it better, so that asking them would waste a try."""
        asks_a_person = any(finding.check == SUSPECT_CHECK for finding in self.sampled)
        return asks_a_person or combine(self.sampled) == "not better" or combine((*self.fixed, *self.sizes)) != "better"


def preliminary(
    report: Report,
    answers: Answers,
    *,
    policy: Policy,
    fresh_level: float,
) -> Preliminary:
    """Return what the measurements and the open photos say; of the sealed photos only their number is used.

    Args:
        report: the measurements.
        answers: to all photos that may be judged by, near duplicates left out.
        policy: the demands.
        fresh_level: the level of the first try on a new holdout, for the number of labels that is asked for.
    """
    shown = answers.select(answers.is_open)
    sealed_items = [item for item in answers.items if not item.is_open]
    question = Question(
        alpha=policy.accuracy.alpha,
        level=fresh_level,
        power=policy.accuracy.power,
        sealed=judged_sizes(sealed_items, labels=answers.labels, policy=policy),
    )
    sampled, fixed = sampled_findings(shown, policy, question), fixed_reasons(report, policy=policy)
    sizes = size_reasons(answers.items, labels=answers.labels, policy=policy)
    suspects = disputed(shown, rule=policy.suspect_labels)
    outcome_without = None
    if suspects.any():
        without = sampled_findings(shown.select(~suspects), policy, question)
        outcome_without = combine((*without, *fixed, *sizes))
        sampled = weigh_suspects(sampled, without, suspects=int(suspects.sum()))
    return Preliminary(
        sampled=sampled,
        fixed=fixed,
        sizes=sizes,
        without_suspects=outcome_without,
        shortfall=_shortfall(shown, policy, question),
    )


def holds(answers: Answers, *, policy: Policy, level: float) -> bool:
    """Return whether these photos show, at `level`, that every check that rests on a sample holds."""
    finite = np.isfinite(answers.candidate).all(axis=1)
    if len(answers) == 0 or (~finite).mean() > policy.limits.maximum_nan_share:
        return False
    counts = judged_counts(answers, policy=policy)
    kept = (claim.kept_p <= level for claim in _claims(counts, policy))
    shown = (demand.judge(level)[0] == "better" for demand in metric_demands(answers, policy=policy))
    found = _all_of(chain(kept, shown))
    # A policy that wants nothing shown lets nothing through.
    return found is True


def confirms(answers: Answers, *, policy: Policy, level: float) -> bool:
    """Return the one answer of the sealed photos: whether all checks hold at `level`.

    They must hold with and without the photos whose labels both models dispute; which of the two
    fails is not told, for that would be a second answer.

    Args:
        answers: to all photos that may be judged by; the open ones are left out.
        policy: the demands.
        level: what the error budget gives to this try.
    """
    if size_reasons(answers.items, labels=answers.labels, policy=policy):
        return False
    sealed = answers.select(~answers.is_open)
    suspects = disputed(sealed, rule=policy.suspect_labels)
    readings = [sealed, sealed.select(~suspects)] if suspects.any() else [sealed]
    return all(holds(reading, policy=policy, level=level) for reading in readings)


def decide(
    report: Report, *, policy: Policy, preliminary: Preliminary, budget: BudgetUse | None, decided_at: datetime
) -> Verdict:
    """Return the verdict; "better" only if the sealed photos confirm it.

    Args:
        report: the measurements.
        policy: the demands.
        preliminary: what was known before.
        budget: what the sealed photos said and what that cost; None if they were not asked.
        decided_at: the time that is written down.
    """
    reasons = tuple(_reasons(preliminary, budget))
    outcome = combine(reasons)
    without = preliminary.without_suspects
    if without is not None and budget is not None:
        # The sealed photos were asked with and without their own suspects, and told one answer for both.
        without = outcome
    return Verdict(
        run_id=report.run_id,
        model=report.model,
        outcome=outcome,
        reasons=reasons,
        candidate_manifest_sha256=report.candidate.manifest_sha256,
        champion=report.champion_reference,
        budget=budget,
        without_suspects=without,
        holdout_sha256=report.holdout_sha256,
        policy_sha256=policy.sha256,
        report_sha256=report.sha256,
        decided_at=decided_at,
    )


def combine(said: Iterable[Reason | Finding]) -> Outcome:
    """Return the outcome of all checks together: the worst one."""
    outcomes = {one.outcome for one in said}
    if "not better" in outcomes:
        return "not better"
    return "cannot tell" if "cannot tell" in outcomes else "better"


def sampled_findings(answers: Answers, policy: Policy, question: Question) -> tuple[Finding, ...]:
    """Return what these photos say of every check that rests on a sample."""
    counts = judged_counts(answers, policy=policy)
    demands = tuple(metric_demands(answers, policy=policy))
    return (
        *accuracy_findings(counts, policy=policy, question=question),
        *group_findings(counts, policy=policy, question=question),
        *metric_findings(demands, n=len(answers), question=question),
    )


def _claims(counts: Counts, policy: Policy) -> Iterator[Claim]:
    yield from accuracy_claims(counts, policy=policy)
    yield from group_claims(counts, policy=policy)


def _shortfall(shown: Answers, policy: Policy, question: Question) -> Shortfall:
    assert question.sealed is not None, "labels are missing in the sealed part"
    return shortfall(
        _claims(judged_counts(shown, policy=policy), policy),
        metric_demands(shown, policy=policy),
        sealed=question.sealed,
        level=question.level,
        power=question.power,
    )


def _all_of(answers: Iterable[bool]) -> bool | None:
    """Return whether all are true, None for none; the rest is not asked after the first that is not."""
    found = None
    for answer in answers:
        if not answer:
            return False
        found = True
    return found


def _reasons(known: Preliminary, budget: BudgetUse | None) -> Iterator[Reason]:
    others = (*known.fixed, *known.sizes)
    if budget is not None:
        yield _confirmed(budget) if budget.is_confirmed else _unconfirmed(budget, known.shortfall)
    elif combine((*known.sampled, *others)) != "not better":
        yield _not_asked(known)
    for finding in known.sampled:
        is_shown = budget is not None and budget.is_confirmed and finding.check != SUSPECT_CHECK
        yield (finding.confirmed() if is_shown else finding).reason
    yield from others


def _not_asked(known: Preliminary) -> Reason:
    stopped = [finding.check for finding in known.sampled if finding.check == SUSPECT_CHECK]
    stopped += [reason.check for reason in (*known.fixed, *known.sizes) if reason.outcome != "better"]
    because = f" because of {', '.join(dict.fromkeys(stopped))}" if stopped else ""
    statement = f"The sealed photos were not asked{because}, so no try was spent."
    return Reason(check=SEALED_CHECK, outcome="cannot tell", statement=statement)


def _confirmed(budget: BudgetUse) -> Reason:
    return Reason(
        check=SEALED_CHECK,
        outcome="better",
        statement=f"{photos_text(budget.sealed_photos, kind='sealed')} show that every check holds, each tested at "
        f"level {budget.level:.3g} ({_tries(budget)}).",
    )


def _unconfirmed(budget: BudgetUse, missing: Shortfall) -> Reason:
    return Reason(
        check=SEALED_CHECK,
        outcome="cannot tell",
        statement=f"{photos_text(budget.sealed_photos, kind='sealed')} do not show that every check holds at level "
        f"{budget.level:.3g} ({_tries(budget)}). {missing.text}",
        more_labels=missing.labels or None,
    )


def _tries(budget: BudgetUse) -> str:
    return f"try {budget.number} of this holdout, {budget.tries_left} left"
