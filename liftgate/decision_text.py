"""Approvals, rejections and the evidence for them in words, the same in every verb that shows them.

Its place in the flow: approve, approvals, reject and revoke print these, history and trace a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from liftgate.plain_text import one_line, quoted

if TYPE_CHECKING:
    from artifact_sync.records import Evidence
    from artifact_sync.run_folder import RunFolder
    from validation.approvals.approval_records import SignedApproval, SignedDecision
    from validation.approvals.decisions import DecisionLog
    from validation.approvals.standing import Standing
    from validation.checks.verdict import BudgetUse, Verdict

_INDENT = "    "


def approval_text(signed: SignedApproval, *, is_open: bool = False) -> str:
    """Return who approved when and why, and until when that counts while nothing is published."""
    approval = signed.approval
    until = f" (counts until {approval.expires_at:%Y-%m-%d})" if is_open and approval.expires_at else ""
    who = f"{approval.approver} approved, {approval.approved_at:%Y-%m-%d %H:%M} UTC{until}"
    return f"{who}: {quoted(approval.reason, indent=_INDENT)}"


def decision_text(entry: SignedDecision) -> str:
    """Return who decided what when, and why."""
    decision = entry.decision
    word = {"approval": "approved", "rejection": "REJECTED", "revocation": "took it back", "promotion": "promoted"}
    who = f"{decision.by} {word[decision.kind]}, {decision.decided_at:%Y-%m-%d %H:%M} UTC"
    return f"{who}: {quoted(decision.reason, indent=_INDENT)}"


def objection_lines(log: DecisionLog) -> list[str]:
    """Return the rejections, and what was taken back: all that approvals alone do not tell."""
    standing = {entry.sha256 for entry in log.rejections}
    told = [entry for entry in log.entries if entry.decision.kind in ("rejection", "revocation")]
    return [
        f"{'' if entry.sha256 in standing or entry.decision.kind == 'revocation' else '(taken back) '}"
        f"{decision_text(entry)}"
        for entry in told
    ]


def log_document(log: DecisionLog) -> dict[str, object]:
    """Return the record of decisions for programs."""
    return {
        "decisions": [{**entry.decision.model_dump(mode="json"), "sha256": entry.sha256} for entry in log.entries],
        "rejected_by": [entry.decision.by for entry in log.rejections],
        "refused_decisions": list(log.refused),
    }


def spending_text(evidence: Evidence) -> str:
    """Return which try of the holdout's budget a version rests on."""
    return "" if evidence.ledger_number is None else f" (try {evidence.ledger_number} of its budget)"


def evidence_lines(run: RunFolder) -> list[str]:
    """Return what the gate found: the verdict, its reasons, the budget, and where the report lies.

    Nothing is shown of a run without verdict, and only the verdict where the report cannot be read: an
    approval is refused then.
    """
    from artifact_sync.errors import LiftgateError
    from validation.checks.verdict import Verdict
    from validation.reports.report import Report
    from validation.reports.report_summary import deciding, sentence

    try:
        verdict = Verdict.from_json(run.verdict_json.read_bytes())
    except (LiftgateError, OSError):
        return []
    lines = [f"The verdict on {run.run_id} is {verdict.outcome!r}, decided {verdict.decided_at:%Y-%m-%d %H:%M} UTC."]
    try:
        report = Report.from_json(run.report_json.read_bytes())
        lines += [one_line(sentence(report, verdict)), *map(one_line, deciding(report, verdict))]
    except (LiftgateError, OSError):
        lines.append(f"NO FIGURES: {run.report_json} cannot be read.")
    lines += _reason_lines(verdict)
    if verdict.without_suspects is not None:
        lines.append(f"Without the photos whose labels both models dispute: {verdict.without_suspects!r}.")
    lines.append(budget_text(verdict.budget))
    lines.append(f"The report to look at: {run.report_html}")
    return lines


def budget_text(budget: BudgetUse | None) -> str:
    """Return what a verdict spent, and what is left."""
    if budget is None:
        return "Budget: nothing of the holdout's error budget was spent."
    left = "none is left: the holdout is opened" if budget.is_opened else f"{budget.tries_left} left"
    return (
        f"Budget: try {budget.number} of the holdout, at level {budget.level:.3g} on {budget.sealed_photos:,} sealed "
        f"photos; {left}."
    )


def standing_text(run_id: str, standing: Standing) -> str:
    """Return in words what stands, and what to do next."""
    is_open = not standing.is_published
    lines = [approval_text(signed, is_open=is_open) for signed in standing.approvals]
    lines += objection_lines(standing.log)
    lines += map(one_line, standing.refused)
    lines.append(_next_step(run_id, standing))
    return "\n".join(lines)


def standing_document(standing: Standing) -> dict[str, object]:
    """Return the same for programs."""
    return {
        "approvals": [signed.approval.model_dump(mode="json") for signed in standing.approvals],
        **log_document(standing.log),
        "refused": list(standing.refused),
        "threshold": standing.threshold,
        "missing": list(standing.missing),
        "is_published": standing.is_published,
        "is_overtaken": standing.is_overtaken,
        "promotion_begun": standing.begun is not None,
        "can_be_promoted": standing.is_met,
    }


def _reason_lines(verdict: Verdict) -> list[str]:
    return [f"  {reason.outcome:<11} {one_line(f'{reason.check}: {reason.statement}')}" for reason in verdict.reasons]


def _next_step(run_id: str, standing: Standing) -> str:
    if standing.rejections:
        who = " and ".join(entry.decision.by for entry in standing.rejections)
        return f"Run {run_id} is rejected by {who}, and is not promoted unless they run `liftgate revoke {run_id} …`."
    if standing.begun is not None:
        return f"Its promotion has begun and is not finished: run `liftgate promote {run_id}` again."
    if standing.is_published:
        return f"Run {run_id} is published as version {standing.version.version if standing.version else '?'}."
    if standing.is_overtaken:
        return f"Another version was published meanwhile: run `liftgate approve {run_id} --because …` again."
    counted = f"{len(standing.approvals)} of {standing.threshold} approvals"
    if standing.has_enough:
        return f"{counted}: run `liftgate promote {run_id}`."
    return f"{counted}; missing {standing.threshold - len(standing.approvals)} of: {', '.join(standing.missing)}."
