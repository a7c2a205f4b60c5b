"""`liftgate approve RUN`: shows the evidence, then signs that the candidate may be served."""

from __future__ import annotations

from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from liftgate.commands.approvals import describe_standing
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say


@click.command("approve")
@click.argument("run_id", metavar="RUN")
@click.option("--because", "reason", required=True, help="Why, in a sentence; it is signed with the rest.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key; default: [keys] approver.")
@json_option
@click.pass_obj
def command(config_path: Path | None, run_id: str, reason: str, key: Path | None, as_json: bool) -> None:
    """Sign that RUN may be promoted, bound to its verdict, report, holdout, policy and champion.

    Refused when the verdict is not "better", when the champion moved since, or when you trained it.
    """
    from validation.approval import approvals, approve
    from validation.verdict import Verdict

    site = Site.load(config_path)
    run = site.run(run_id)
    if run.verdict_json.is_file():
        verdict = Verdict.from_json(run.verdict_json.read_bytes())
        say(f"The verdict on {run_id} is {verdict.outcome!r}; its evidence is {run.report_html}")
        for line in verdict.reasons:
            say(f"  {line.outcome:<11} {line.check}: {line.statement}")
    signed = approve(
        run,
        trust=site.trusted,
        signer=site.signing_key(key or site.settings.keys.approver, role="approver"),
        reason=reason,
        now=SystemClock().now(),
        may_approve_own=site.settings.validation.may_approve_own,
    )
    standing = approvals(run, trust=site.trusted)
    text = f"{signed.approval.approver} approved run {run_id} as version {signed.approval.version}."
    document = signed.approval.model_dump(mode="json")
    print_result(f"{text}\n{describe_standing(run_id, standing)}", document, as_json=as_json)
