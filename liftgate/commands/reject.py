"""`liftgate reject RUN`: an approver's signed no."""

from __future__ import annotations

from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from liftgate.commands.approve import show_evidence
from liftgate.composition import Site
from liftgate.decision_text import decision_text
from liftgate.output import json_option, print_result


@click.command("reject")
@click.argument("run_id", metavar="RUN")
@click.option("--because", "reason", required=True, help="Why, in a sentence; it is signed with the rest.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key; default: [keys] approver.")
@json_option
@click.pass_obj
def command(config_path: Path | None, run_id: str, reason: str, key: Path | None, as_json: bool) -> None:
    """Sign that RUN must not be promoted on its verdict, whoever else approves.

    It holds, on every machine, until you take it back with `liftgate revoke`. It replaces an approval of yours.
    Refused when the promotion has begun or RUN is served: then roll back.
    """
    from validation.approvals.rejection import reject

    site = Site.load(config_path)
    run = site.run(run_id)
    show_evidence(run)
    said = reject(
        run,
        trust=site.trusted,
        signer=site.signing_key(key or site.settings.keys.approver, role="approver"),
        reason=reason,
        now=SystemClock().now(),
    )
    lines = [decision_text(said.signed)]
    if said.was_there:
        lines.append("That stood already, from an earlier time; nothing was added.")
    elif said.takes_back is not None:
        lines.append("It replaces your approval, which counts no more.")
    lines.append(f"Run {run_id} is not promoted unless you run `liftgate revoke {run_id} --because …`.")
    document = {"decision": said.signed.decision.model_dump(mode="json"), "was_there": said.was_there}
    print_result("\n".join(lines), document, as_json=as_json)
