"""`liftgate revoke RUN`: an approver takes back the own approval or rejection."""

from __future__ import annotations

from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from liftgate.composition import Site
from liftgate.decision_text import decision_text
from liftgate.output import json_option, print_result


@click.command("revoke")
@click.argument("run_id", metavar="RUN")
@click.option("--because", "reason", required=True, help="Why, in a sentence; it is signed with the rest.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key; default: [keys] approver.")
@json_option
@click.pass_obj
def command(config_path: Path | None, run_id: str, reason: str, key: Path | None, as_json: bool) -> None:
    """Take back your approval or your rejection of RUN, before it is promoted.

    Nobody else's word is touched. Afterwards you may approve or reject anew.
    """
    from validation.approvals.rejection import revoke

    site = Site.load(config_path)
    said = revoke(
        site.run(run_id),
        trust=site.trusted,
        signer=site.signing_key(key or site.settings.keys.approver, role="approver"),
        reason=reason,
        now=SystemClock().now(),
    )
    lines = [decision_text(said.signed)]
    if said.takes_back is not None:
        lines.append(f"Taken back: {decision_text(said.takes_back)}")
    else:
        lines.append("That was taken back already, at an earlier time; nothing was added.")
    document = {
        "decision": said.signed.decision.model_dump(mode="json"),
        "takes_back": None if said.takes_back is None else said.takes_back.decision.model_dump(mode="json"),
        "was_there": said.was_there,
    }
    print_result("\n".join(lines), document, as_json=as_json)
