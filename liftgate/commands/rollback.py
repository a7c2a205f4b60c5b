"""`liftgate rollback`: creates a release that names an earlier version."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from liftgate.composition import Site
from liftgate.output import json_option, print_result


@click.command("rollback")
@click.option("--to", type=click.IntRange(min=1), help="The version; default: the stable one before the present one.")
@click.option("--because", "reason", required=True, help="Why.")
@click.option("--by", help="Who rolls back, for the record; default: your user name.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The key; default: [keys] releaser.")
@json_option
@click.pass_obj
def command(
    config_path: Path | None, to: int | None, reason: str, by: str | None, key: Path | None, as_json: bool
) -> None:
    """Create a release that names an earlier version; no byte is copied."""
    from validation.releases.promote import roll_back

    site = Site.load(config_path)
    done = roll_back(
        trust=site.trusted,
        signer=site.signing_key(key or site.settings.keys.releaser, role="releaser"),
        reason=reason,
        by=by or getpass.getuser(),
        now=SystemClock().now(),
        to=to,
    )
    was_there = " It was there already, from an earlier attempt." if done.was_there else ""
    text = (
        f"Release {done.release.number}: stable is version {done.release.stable}, "
        f"it was version {done.replaced.stable}.{was_there}"
    )
    print_result(text, {"release": done.release.model_dump(mode="json")}, as_json=as_json)
