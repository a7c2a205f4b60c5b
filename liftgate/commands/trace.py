"""`liftgate trace ID`: where a version came from, what it rests on, and which releases served it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from liftgate.composition import Site
from liftgate.decision_text import approval_text, log_document, objection_lines
from liftgate.output import json_option, print_result
from liftgate.plain_text import one_line
from liftgate.release_text import emergency_text, kind_text

if TYPE_CHECKING:
    from validation.releases.history import VersionTrace


@click.command("trace")
@click.argument("identifier", metavar="ID", nargs=-1, required=True)
@json_option
@click.pass_obj
def command(config_path: Path | None, identifier: tuple[str, ...], as_json: bool) -> None:
    """Show where ID came from, verified as it is read from the bucket.

    ID is a run, "version 3" or 3, "release 7", or at least 8 digits of a digest.
    """
    from validation.releases.history import trace

    site = Site.load(config_path)
    traces = trace(site.trusted.refresh(), site.registry, " ".join(identifier))
    document = [_document(entry) for entry in traces]
    print_result("\n\n".join(_describe(entry) for entry in traces), document, as_json=as_json)


def _document(entry: VersionTrace) -> dict[str, object]:
    return {
        "version": entry.version.model_dump(mode="json"),
        "sha256": entry.sha256,
        "releases": [release.number for release in entry.releases],
        "approvals": [
            {**given.signed.approval.model_dump(mode="json"), "is_by_present_approver": given.is_by_present_approver}
            for given in entry.approvals
        ],
        "documents": [
            {"name": name, "sha256": sha256, "is_there": is_there} for name, sha256, is_there in entry.documents
        ],
        "is_spending_there": entry.is_spending_there,
        **log_document(entry.decisions),
    }


def _describe(entry: VersionTrace) -> str:
    record, lineage = entry.version, entry.version.lineage
    trainer = one_line(lineage.trained_by)
    released = ", ".join(f"{release.number} ({kind_text(release)})" for release in entry.releases) or "none"
    champion = None if record.evidence is None else record.evidence.champion_version
    against = "no champion" if champion is None else f"version {champion}"
    if record.emergency is not None:
        against = f"NOTHING. {one_line(emergency_text(record))}"
    files = f"{len(record.manifest.files)}, {record.manifest.size_bytes:,} bytes"
    lines = [
        f"version {record.version} of {record.model}  {entry.sha256}",
        f"  released in     {released}",
        f"  run             {lineage.run_id}, trained by {trainer}, {lineage.trained_at:%Y-%m-%d %H:%M} UTC",
        f"  code            {one_line(lineage.code_commit)}{' with uncommitted changes' if lineage.code_dirty else ''}",
        f"  data manifest   {lineage.data_manifest_sha256}",
        f"  configuration   {lineage.config_sha256}",
        f"  files           {files}: {record.manifest.sha256}",
        f"  judged against  {against}",
    ]
    lines += [
        f"  {name:<15} {sha256}{'' if there else ' (not in the bucket)'}" for name, sha256, there in entry.documents
    ]
    if record.evidence is not None and entry.is_spending_there is not None:
        lost = "" if entry.is_spending_there else " (NOT IN THE BUCKET: the ledger was cut)"
        lines.append(f"  budget          try {record.evidence.ledger_number}, {record.evidence.ledger_sha256}{lost}")
    lines += [f"  approval        {approval_text(given.signed)}" for given in entry.approvals]
    lines += [f"  decision        {line}" for line in objection_lines(entry.decisions)]
    return "\n".join(lines)
