"""`liftgate history`: what was released when, by whom, why and on whose approval, newest first."""

from __future__ import annotations

from pathlib import Path

import click

from liftgate.composition import Site
from liftgate.output import json_option, print_result
from liftgate.release_text import emergency_document, emergency_text, kind_text, served_text


@click.command("history")
@click.option("--newest", type=click.IntRange(min=1), default=20, show_default=True, help="How many releases.")
@json_option
@click.pass_obj
def command(config_path: Path | None, newest: int, as_json: bool) -> None:
    """Show the releases, verified as they are read from the bucket."""
    from validation.history import history

    site = Site.load(config_path)
    entries = tuple(history(site.trusted.refresh(), site.registry, newest=newest))
    lines = []
    for entry in entries:
        release = entry.release
        lines.append(
            f"release {release.number}  {release.created_at:%Y-%m-%d %H:%M} UTC  {kind_text(release)} by {release.by}"
        )
        lineage = entry.version.lineage
        lines.append(f"  {served_text(release)} (run {lineage.run_id}, trained by {lineage.trained_by})")
        lines.append(f"  because: {release.reason}")
        if entry.version.emergency is not None:
            lines.append(f"  {emergency_text(entry.version)}")
        for approval in entry.approvals:
            who = approval.signed.approval.approver
            note = "" if approval.is_by_present_approver else ", with a key that is not trusted any more"
            lines.append(f"  approved by {who}{note}: {approval.signed.approval.reason}")
    document = [
        {
            "release": entry.release.model_dump(mode="json"),
            "run_id": entry.version.lineage.run_id,
            "emergency": emergency_document(entry.version),
            "approvals": [approval.signed.approval.model_dump(mode="json") for approval in entry.approvals],
        }
        for entry in entries
    ]
    print_result("\n".join(lines) or "Nothing is released yet.", document, as_json=as_json)
