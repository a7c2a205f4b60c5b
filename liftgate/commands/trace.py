"""`liftgate trace ID`: where a version came from, what it rests on, and which releases served it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from liftgate.composition import Site
from liftgate.output import json_option, print_result
from liftgate.release_text import emergency_text, kind_text

if TYPE_CHECKING:
    from validation.history import VersionTrace


@click.command("trace")
@click.argument("identifier", metavar="ID", nargs=-1, required=True)
@json_option
@click.pass_obj
def command(config_path: Path | None, identifier: tuple[str, ...], as_json: bool) -> None:
    """Show where ID came from, verified as it is read from the bucket.

    ID is a run, "version 3" or 3, "release 7", or at least 8 digits of a digest.
    """
    from validation.history import trace

    site = Site.load(config_path)
    traces = trace(site.trusted.refresh(), site.registry, " ".join(identifier))
    document = [
        {
            "version": entry.version.model_dump(mode="json"),
            "sha256": entry.sha256,
            "releases": [release.number for release in entry.releases],
            "approvals": [approval.signed.approval.model_dump(mode="json") for approval in entry.approvals],
            "documents": [
                {"name": name, "sha256": sha256, "is_there": is_there} for name, sha256, is_there in entry.documents
            ],
        }
        for entry in traces
    ]
    print_result("\n\n".join(_describe(entry) for entry in traces), document, as_json=as_json)


def _describe(entry: VersionTrace) -> str:
    record, lineage = entry.version, entry.version.lineage
    released = ", ".join(f"{release.number} ({kind_text(release)})" for release in entry.releases) or "none"
    champion = None if record.evidence is None else record.evidence.champion_version
    against = "no champion" if champion is None else f"version {champion}"
    if record.emergency is not None:
        against = f"NOTHING. {emergency_text(record)}"
    files = f"{len(record.manifest.files)}, {record.manifest.size_bytes:,} bytes"
    lines = [
        f"version {record.version} of {record.model}  {entry.sha256}",
        f"  released in     {released}",
        f"  run             {lineage.run_id}, trained by {lineage.trained_by}, {lineage.trained_at:%Y-%m-%d %H:%M} UTC",
        f"  code            {lineage.code_commit}{' with uncommitted changes' if lineage.code_dirty else ''}",
        f"  data manifest   {lineage.data_manifest_sha256}",
        f"  configuration   {lineage.config_sha256}",
        f"  files           {files}: {record.manifest.sha256}",
        f"  judged against  {against}",
    ]
    lines += [
        f"  {name:<15} {sha256}{'' if there else ' (not in the bucket)'}" for name, sha256, there in entry.documents
    ]
    lines += [
        f"  approved by     {approval.signed.approval.approver}: {approval.signed.approval.reason}"
        for approval in entry.approvals
    ]
    return "\n".join(lines)
