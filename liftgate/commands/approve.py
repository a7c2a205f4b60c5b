"""`liftgate approve RUN`: shows the evidence, then signs that the candidate may be served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.clock import SystemClock
from artifact_sync.errors import LiftgateError, RefusedError
from liftgate.composition import Site
from liftgate.decision_text import decision_text, evidence_lines, standing_document, standing_text
from liftgate.output import json_option, print_result, say

if TYPE_CHECKING:
    from artifact_sync.run_folder import RunFolder


@click.command("approve")
@click.argument("run_id", metavar="RUN")
@click.option("--because", "reason", required=True, help="Why, in a sentence; it is signed with the rest.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key; default: [keys] approver.")
@json_option
@click.pass_obj
def command(config_path: Path | None, run_id: str, reason: str, key: Path | None, as_json: bool) -> None:
    """Sign that RUN may be promoted, bound to its verdict, report, holdout, policy and champion.

    Shows the evidence first, on stderr. Refused when the verdict is not "better", when the report is missing or
    another one, when the champion moved since, when you trained it, or when you rejected it.
    """
    from validation.approvals.approval import ApprovalTerms, approvals, approve
    from validation.reports.report import Report

    site = Site.load(config_path)
    run, settings = site.run(run_id), site.settings.validation
    show_evidence(run)
    if run.report_json.is_file():
        # Whoever signs must have been shown figures: what is no report is refused here, with its reason.
        Report.from_json(run.report_json.read_bytes())
    now = SystemClock().now()
    signed = approve(
        run,
        trust=site.trusted,
        signer=site.signing_key(key or site.settings.keys.approver, role="approver"),
        reason=reason,
        now=now,
        terms=ApprovalTerms(days=settings.approval_days, may_approve_own=settings.may_approve_own),
    )
    text = f"{signed.approval.approver} approved run {run_id} as version {signed.approval.version}."
    document: dict[str, object] = {**signed.approval.model_dump(mode="json"), "standing": None}
    try:
        standing = approvals(run, trust=site.trusted, now=now)
    except LiftgateError as error:
        # It is signed and counts; that it cannot be shown is another matter.
        say(f"The approval was given; what else stands cannot be shown: {error}")
    else:
        text = f"{text}\n{standing_text(run_id, standing)}"
        document["standing"] = standing_document(standing)
    print_result(text, document, as_json=as_json)


def show_evidence(run: RunFolder) -> None:
    """Print on stderr what the gate found, and what people said of the run before.

    Raises:
        RefusedError: nobody can read it, so nobody can have looked at it.
    """
    from validation.approvals.rejection import earlier_rejections
    from validation.checks.verdict import Verdict

    try:
        for line in evidence_lines(run):
            say(line)
        if run.verdict_json.is_file():
            verdict = Verdict.from_json(run.verdict_json.read_bytes())
            for entry in earlier_rejections(run, verdict_sha256=verdict.sha256):
                say(f"On an earlier verdict on this run: {decision_text(entry)}")
    except BrokenPipeError:
        raise RefusedError(
            "Refused: the evidence could not be shown (stderr is closed), so nothing was done."
        ) from None
