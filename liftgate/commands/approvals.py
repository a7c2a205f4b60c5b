"""`liftgate approvals RUN`: who approved or rejected a run, what does not count and why, and what is missing."""

from __future__ import annotations

from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from liftgate.composition import Site
from liftgate.decision_text import standing_document, standing_text
from liftgate.output import json_option, print_result


@click.command("approvals")
@click.argument("run_id", metavar="RUN")
@json_option
@click.pass_obj
def command(config_path: Path | None, run_id: str, as_json: bool) -> None:
    """Show who approved, rejected or took back what, and what is missing before RUN can be promoted."""
    from validation.approvals.approval import approvals

    site = Site.load(config_path)
    standing = approvals(site.run(run_id), trust=site.trusted, now=SystemClock().now())
    print_result(standing_text(run_id, standing), {"run_id": run_id, **standing_document(standing)}, as_json=as_json)
