"""The verdict in words: one sentence, which photos decided it, and its reasons in the order of their weight.

Its place in the flow: report_page.py puts them at the top of the page.
"""

from __future__ import annotations

from dataclasses import dataclass

from validation.checks.policy import Policy
from validation.checks.verdict import BudgetUse, Outcome, Reason, Verdict
from validation.reports.report import Report
from validation.reports.report_text import counted, percent

MAX_REASONS = 40
"""How many reasons of one outcome the page lists; verdict.json has all."""

MAX_DRAWN_TRIES = 60
"""More tries than this are told and not drawn."""


@dataclass(frozen=True)
class ReasonGroup:
    """The reasons of one outcome; `hidden` more are not listed."""

    outcome: Outcome
    title: str
    reasons: tuple[Reason, ...]
    hidden: int

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.reasons) + self.hidden


def sentence(report: Report, verdict: Verdict) -> str:
    """Return the verdict in one sentence."""
    figures = percent(report.candidate_accuracy)
    among = "of the open photos" if report.scope == "open" else "of the photos"
    if report.paired is None or report.champion_reference is None:
        subject = f"Run {report.run_id}, a first model, answers {figures} {among} rightly"
        endings = {
            "better": "and keeps every floor and limit of the policy.",
            "not better": "and does not keep what the policy demands.",
            "cannot tell": "but there is not enough to say whether it keeps what the policy demands.",
        }
        return f"{subject} {endings[verdict.outcome]}"
    rival = f"version {report.champion_reference.version}"
    figures = f"{figures} right against {percent(report.champion_accuracy or 0.0)}"
    figures += " on the open photos" if report.scope == "open" else ""
    return {
        "better": f"Run {report.run_id} is shown to be better than {rival}: {figures}.",
        "not better": f"Run {report.run_id} is not better than {rival} in all that the policy demands: {figures}.",
        "cannot tell": f"These photos do not tell whether run {report.run_id} is better than {rival}: {figures}.",
    }[verdict.outcome]


def deciding(report: Report, verdict: Verdict) -> tuple[str, ...]:
    """Return the sentences on which photos the page shows, and which decided."""
    shown, sealed, budget = counted(report.photos, "photo"), counted(report.sealed_photos, "photo"), verdict.budget
    if report.scope == "open":
        sentences = [
            f"Every figure and picture here is of the {shown} of the holdout that are open. The other {sealed} are "
            "sealed: only they can find a candidate better, and no figure of them is shown, since what is shown "
            "can be trained towards."
        ]
        if budget is None:
            sentences.append(_unasked(verdict.outcome))
    else:
        sentences = [f"Every figure and picture here is of all {shown} of the holdout; none is sealed any more."]
    if budget is not None:
        sentences += _asked(budget)
    return tuple(sentences)


def _unasked(outcome: Outcome) -> str:
    if outcome == "not better":
        return "The open photos and the checks of the program already decide, so nothing of the budget was spent."
    return "The sealed photos were not asked, so nothing of the budget was spent."


def _asked(budget: BudgetUse) -> list[str]:
    answer = "they do" if budget.is_confirmed else "they do not show that"
    sentences = [
        f"Try {budget.number} asked the {counted(budget.sealed_photos, 'sealed photo')} one question, whether all "
        f"checks hold at level {budget.level:.2g} (a candidate that is not better passes at most one time in "
        f"{1 / budget.level:,.0f}), and the answer is one word: {answer}."
    ]
    if budget.is_opened:
        sentences.append(
            "With that the budget is used up and the holdout is opened: it decides nothing any more. "
            "Freeze a new one before the next candidate."
        )
    else:
        verb = "is" if budget.tries_left == 1 else "are"
        tries = counted(budget.tries_left, "try", "tries")
        sentences.append(f"{tries} {verb} left before a new holdout is needed.")
    return sentences


def drawn_tries(verdict: Verdict) -> tuple[str, ...]:
    """Return one of "used", "this" and "left" for each try; nothing when there are none or too many to draw."""
    budget = verdict.budget
    if budget is None or budget.number + budget.tries_left > MAX_DRAWN_TRIES:
        return ()
    return ("used",) * (budget.number - 1) + ("this",) + ("left",) * budget.tries_left


def reason_groups(verdict: Verdict) -> tuple[ReasonGroup, ...]:
    """Return the reasons, what fails first, then what cannot be told, then what holds."""
    titles: dict[Outcome, str] = {"not better": "Fails", "cannot tell": "Cannot tell", "better": "Holds"}
    groups = []
    for outcome, title in titles.items():
        found = [reason for reason in verdict.reasons if reason.outcome == outcome]
        if found:
            hidden = max(0, len(found) - MAX_REASONS)
            groups.append(ReasonGroup(outcome, title, reasons=tuple(found[:MAX_REASONS]), hidden=hidden))
    return tuple(groups)


def needed_labels(verdict: Verdict) -> tuple[tuple[str | None, int], ...]:
    """Return (class, slice or None for any, how many more labels) for what would decide the undecided."""
    needed: dict[str | None, int] = {}
    if verdict.outcome == "cannot tell":
        for reason in verdict.reasons:
            if reason.more_labels is not None:
                group = reason.label or reason.slice
                needed[group] = max(needed.get(group, 0), reason.more_labels)
    return tuple(sorted(needed.items(), key=lambda item: (item[0] is not None, -item[1], item[0] or "")))


def suspects_sentence(report: Report, verdict: Verdict, *, policy: Policy) -> str:
    """Return what the disputed labels mean for the verdict."""
    if not report.suspects:
        return f"No label is disputed with a score of {policy.suspect_labels.confidence:g} or more."
    count = counted(len(report.suspects), "label")
    said = f"{count} may be wrong: the models give one other answer with confidence. Look at these photos."
    if verdict.without_suspects is None:
        return said
    if verdict.without_suspects == verdict.outcome:
        return f"{said} Without them the outcome is the same, {verdict.outcome}."
    return (
        f"{said} Without them the outcome would be “{verdict.without_suspects}”, with them it is "
        f"“{verdict.outcome}”: a person must settle these labels first."
    )
