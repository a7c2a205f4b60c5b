"""`liftgate status`: the newest release, what each host says of it, and how fresh the signatures are."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.clock import SystemClock
from liftgate.composition import Site
from liftgate.output import json_option, print_result, table
from liftgate.plain_text import one_line, quoted
from liftgate.release_text import emergency_document, emergency_text, kind_text, served_text

if TYPE_CHECKING:
    from artifact_sync.records import Acknowledgement, ReleaseRecord

HOST_REFUSES_EXIT_CODE = 3
_SOON = timedelta(days=2)


@click.command("status")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show the newest release and the last acknowledgement of each host.

    As long as a version is stable that went past the gate, the first line says so in capitals.

    Exit code 3 when a host refuses the release or failed to serve it.
    """
    config_path: Path | None = context.obj
    site = Site.load(config_path)
    view = site.trusted.refresh()
    release = view.latest_release()
    if release is None:
        print_result("Nothing is released yet.", {"release": None, "emergency": None, "hosts": []}, as_json=as_json)
        return
    # A host's last word counts; the records come in the order in which they were written.
    hosts = {record.host: record for record in site.registry.acknowledgements(release.number)}
    stable = view.version(release.stable)
    lines = [_describe(release)]
    if stable.emergency is not None:
        lines.insert(0, emergency_text(stable))
        lines.append(
            "Until an approved version is stable again: validate, approve and promote a run, or `liftgate rollback`."
        )
    if hosts:
        rows = [_row(record) for record in hosts.values()]
        lines.append(table(rows, header=("host", "outcome", "serves", "in memory", "since (UTC)", "detail")))
    else:
        lines.append("No host has acknowledged it yet.")
    now = SystemClock().now()
    expiring = [f"{name} on {moment:%Y-%m-%d}" for name, moment in view.expires.items() if moment - now < _SOON]
    if expiring:
        lines.append(f"Signatures expire soon: {', '.join(expiring)}. Run `liftgate keys refresh`.")
    document = {
        "release": release.model_dump(mode="json"),
        "emergency": emergency_document(stable),
        "hosts": [record.model_dump(mode="json") for record in hosts.values()],
        "expires": {name: moment.isoformat() for name, moment in view.expires.items()},
    }
    print_result("\n".join(lines), document, as_json=as_json)
    if any(record.outcome != "serving" for record in hosts.values()):
        context.exit(HOST_REFUSES_EXIT_CODE)


def _describe(release: ReleaseRecord) -> str:
    return (
        f"Release {release.number} of {release.model} ({kind_text(release)} by {one_line(release.by)}, "
        f"{release.created_at:%Y-%m-%d %H:%M} UTC): {served_text(release)}.\n"
        f"Because: {quoted(release.reason, indent='  ')}"
    )


def _row(record: Acknowledgement) -> tuple[str, ...]:
    loaded = ", ".join(str(version) for version in record.loaded_versions) or "-"
    serves = str(record.serving_version) if record.serving_version is not None else "-"
    return (record.host, record.outcome, serves, loaded, f"{record.at:%Y-%m-%d %H:%M:%S}", record.detail)
