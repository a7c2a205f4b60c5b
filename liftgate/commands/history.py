"""`liftgate history`: what was released when, by whom, why and on whose approval, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from liftgate.composition import Site
from liftgate.decision_text import approval_text, log_document, objection_lines, spending_text
from liftgate.output import json_option, print_result
from liftgate.plain_text import one_line, quoted
from liftgate.release_text import emergency_document, emergency_text, kind_text, served_text

if TYPE_CHECKING:
    from validation.releases.history import HistoryEntry

_INDENT = "    "


@click.command("history")
@click.option("--newest", type=click.IntRange(min=1), default=20, show_default=True, help="How many releases.")
@json_option
@click.pass_obj
def command(config_path: Path | None, newest: int, as_json: bool) -> None:
    """Show the releases, verified as they are read from the bucket."""
    from validation.releases.history import history

    site = Site.load(config_path)
    entries = tuple(history(site.trusted.refresh(), site.registry, newest=newest))
    document = [_document(entry) for entry in entries]
    lines = [line for entry in entries for line in _lines(entry)]
    print_result("\n".join(lines) or "Nothing is released yet.", document, as_json=as_json)


def _lines(entry: HistoryEntry) -> Iterator[str]:
    release, lineage, evidence = entry.release, entry.version.lineage, entry.version.evidence
    when, by = f"{release.created_at:%Y-%m-%d %H:%M} UTC", one_line(release.by)
    yield f"release {release.number}  {when}  {kind_text(release)} by {by}"
    yield f"  {served_text(release)} (run {lineage.run_id}, trained by {one_line(lineage.trained_by)})"
    yield f"  because: {quoted(release.reason, indent=_INDENT)}"
    if entry.version.emergency is not None:
        yield f"  {one_line(emergency_text(entry.version))}"
    for given in entry.approvals:
        note = "" if given.is_by_present_approver else " (with a key that is not trusted any more)"
        yield f"  {approval_text(given.signed)}{note}"
    if release.kind == "promotion":
        yield from (f"  {line}" for line in objection_lines(entry.decisions))
        if evidence is not None:
            yield f"  on the verdict {evidence.verdict_sha256[:12]}, report {evidence.report_sha256[:12]}, holdout " + (
                f"{evidence.holdout_sha256[:12]}{spending_text(evidence)}"
            )
    yield from (f"  WARNING: {warning}" for warning in entry.warnings)


def _document(entry: HistoryEntry) -> dict[str, object]:
    evidence = entry.version.evidence
    return {
        "release": entry.release.model_dump(mode="json"),
        "run_id": entry.version.lineage.run_id,
        "version_sha256": entry.version.sha256,
        "trained_by": entry.version.lineage.trained_by,
        "evidence": None if evidence is None else evidence.model_dump(mode="json"),
        "emergency": emergency_document(entry.version),
        "approvals": [
            {**given.signed.approval.model_dump(mode="json"), "is_by_present_approver": given.is_by_present_approver}
            for given in entry.approvals
        ],
        **log_document(entry.decisions),
        "warnings": list(entry.warnings),
    }
