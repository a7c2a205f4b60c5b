"""`liftgate approvals RUN`: who approved a run, what does not count and why, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from liftgate.composition import Site
from liftgate.output import json_option, print_result

if TYPE_CHECKING:
    from validation.standing import Standing


@click.command("approvals")
@click.argument("run_id", metavar="RUN")
@json_option
@click.pass_obj
def command(config_path: Path | None, run_id: str, as_json: bool) -> None:
    """Show who approved RUN, and what is missing before it can be promoted."""
    from validation.approval import approvals

    site = Site.load(config_path)
    standing = approvals(site.run(run_id), trust=site.trusted)
    document = {
        "run_id": run_id,
        "approvals": [signed.approval.model_dump(mode="json") for signed in standing.approvals],
        "refused": list(standing.refused),
        "threshold": standing.threshold,
        "missing": list(standing.missing),
        "is_published": standing.is_published,
        "can_be_promoted": standing.is_met,
    }
    lines = [
        f"{signed.approval.approver}, {signed.approval.approved_at:%Y-%m-%d %H:%M} UTC: {signed.approval.reason}"
        for signed in standing.approvals
    ]
    print_result("\n".join([*lines, describe_standing(run_id, standing)]), document, as_json=as_json)


def describe_standing(run_id: str, standing: Standing) -> str:
    """Return in words what stands, and what to do next."""
    lines = list(standing.refused)
    if standing.is_published:
        lines.append(f"Run {run_id} is published as version {standing.version.version if standing.version else '?'}.")
    elif standing.is_overtaken:
        lines.append(f"Another version was published meanwhile: run `liftgate approve {run_id} --because …` again.")
    elif standing.is_met:
        lines.append(f"{len(standing.approvals)} of {standing.threshold} approvals: run `liftgate promote {run_id}`.")
    else:
        missing = ", ".join(standing.missing)
        lines.append(
            f"{len(standing.approvals)} of {standing.threshold} approvals; "
            f"missing {standing.threshold - len(standing.approvals)} of: {missing}."
        )
    return "\n".join(lines)
