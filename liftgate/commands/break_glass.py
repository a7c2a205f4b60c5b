"""`liftgate break-glass RUN`: serves a run in an emergency, past the gate and the approvers, and shouts."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from artifact_sync.clock import SystemClock
from artifact_sync.errors import RefusedError, SettingsError
from liftgate.composition import Site
from liftgate.output import is_interactive, json_option, print_result, say
from liftgate.progress import counting
from liftgate.release_text import emergency_document, emergency_text

_KEY_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("break-glass")
@click.argument("run_id", metavar="RUN")
@click.option("--because", "reason", required=True, help="What the emergency is.")
@click.option("--key", type=_KEY_FILE, required=True, help="The break-glass key, which is kept apart from all others.")
@click.option("--releaser", type=_KEY_FILE, help="The releaser's key; default: [keys] releaser.")
@click.option("--by", help="Who does it, for the record; default: your user name.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask for the words; for scripts.")
@json_option
@click.pass_obj
def command(
    config_path: Path | None,
    run_id: str,
    reason: str,
    key: Path,
    releaser: Path | None,
    by: str | None,
    is_sure: bool,
    as_json: bool,
) -> None:
    """Serve RUN to everybody now, whatever its verdict, without approvals.

    For the night when what is served does harm and there is no version to go back to; try `liftgate
    rollback` first. The model must still be a plain classifier with the served labels and the files
    of its manifest. History, status and trace show it in capitals, and it cannot be hidden.

    When it was cut off, run the same command again: it finishes what it began.
    """
    from validation.releases.break_glass import break_glass

    site = Site.load(config_path)
    run = site.run(run_id)
    say(
        f"BREAK-GLASS: this serves run {run_id} of {site.registry.model} TO EVERYBODY, PAST THE GATE, THE APPROVERS "
        "AND THE ERROR BUDGET. It is written down for good, with your name and reason."
    )
    _check_sure(run_id, is_sure=is_sure)
    with counting("bytes") as progress:
        done = break_glass(
            run,
            trust=site.trusted,
            signer=site.signing_key(releaser or site.settings.keys.releaser, role="releaser"),
            break_glass_signer=site.signing_key(key, role="break-glass"),
            reason=reason,
            by=by or getpass.getuser(),
            now=SystemClock().now(),
            progress=progress,
        )
    before = "nothing was released" if done.replaced is None else f"it was version {done.replaced.stable}"
    lines = [
        f"Release {done.release.number}: stable is version {done.release.stable}, {before}.",
        emergency_text(done.version),
    ]
    lines += [f"Finished what had been left half-published: {path}" for path in done.completed]
    if done.pushed is None:
        lines.append("It was there already, from an earlier attempt.")
    document = {
        "release": done.release.model_dump(mode="json"),
        "version": done.release.stable,
        "emergency": emergency_document(done.version),
    }
    print_result("\n".join(lines), document, as_json=as_json)


def _check_sure(run_id: str, *, is_sure: bool) -> None:
    """Have a person type the words: nobody breaks the glass by pressing a key twice."""
    if is_sure:
        return
    words = f"break the glass for {run_id}"
    if not is_interactive():
        raise SettingsError(
            f"Breaking the glass refused: there is no terminal to type the words {words!r} at. In a script, say --yes."
        )
    typed = click.prompt(f'To go on, type "{words}"', default="", show_default=False, err=True)
    if typed.strip() != words:
        raise RefusedError(f"Breaking the glass refused: the words were not {words!r}. Nothing was changed.")
