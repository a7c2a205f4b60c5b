"""`liftgate promote RUN`: pushes an approved run and creates the next release."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from liftgate.composition import Site
from liftgate.output import json_option, print_result
from liftgate.progress import counting


@click.command("promote")
@click.argument("run_id", metavar="RUN")
@click.option("--canary", "canary", type=float, help="Serve it to this per cent of the users beside the champion.")
@click.option(
    "--shadow", "shadow", type=float, help="Copy this per cent of requests to it; users get the champion's answers."
)
@click.option("--because", "reason", help="Why; default: the approvers' reasons.")
@click.option("--by", help="Who promotes, for the record; default: your user name.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The key; default: [keys] releaser.")
@json_option
@click.pass_obj
def command(
    config_path: Path | None,
    run_id: str,
    canary: float | None,
    shadow: float | None,
    reason: str | None,
    by: str | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Push RUN's files and create the release that serves it: one atomic act, exactly one winner.

    When it was cut off, run the same command again: it finishes what it began.
    """
    from validation.releases.promote import Beside, promote

    if canary is not None and shadow is not None:
        raise click.UsageError("--canary and --shadow: a candidate is the one or the other. Begin with --shadow.")
    beside = Beside("canary", canary) if canary is not None else None
    beside = Beside("shadow", shadow) if shadow is not None else beside
    site = Site.load(config_path)
    run = site.run(run_id)
    holdout = site.settings.validation.holdout_dir
    documents = [holdout / "holdout.json"] if holdout is not None and (holdout / "holdout.json").is_file() else []
    signer = site.signing_key(key or site.settings.keys.releaser, role="releaser")
    with counting("bytes") as progress:
        done = promote(
            run,
            trust=site.trusted,
            signer=signer,
            by=by or getpass.getuser(),
            now=SystemClock().now(),
            reason=reason,
            beside=beside,
            documents=documents,
            progress=progress,
        )
    share = ""
    if beside is not None:
        what = "answers" if beside.role == "canary" else "gets copies of"
        whom = "users" if beside.role == "canary" else "requests"
        share = f", version {done.version.version} {what} {beside.percent:g} % of the {whom}"
    lines = [f"Release {done.release.number}: stable is version {done.release.stable}{share}."]
    lines += [f"Finished what had been left half-published: {path}" for path in done.completed]
    if done.pushed is None:
        lines.append("It was there already, from an earlier attempt.")
    else:
        lines.append(
            f"Pushed {done.pushed.uploaded_files} files, {done.pushed.uploaded_bytes} bytes; "
            f"{done.pushed.present_files} files were there."
        )
    document = {"release": done.release.model_dump(mode="json"), "version": done.version.version}
    print_result("\n".join(lines), document, as_json=as_json)
