"""`liftgate keys`: makes key files, shows who may sign, keeps signatures fresh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.clock import SystemClock
from artifact_sync.errors import ExpiredError, SettingsError
from liftgate.commands import key_changes
from liftgate.commands.key_changes import describe, signed_view
from liftgate.composition import Site, passphrase
from liftgate.output import json_option, print_result, say, table

if TYPE_CHECKING:
    from artifact_sync.trust.keys import PublicKey

_KEY_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("keys")
def command() -> None:
    """Create, show and rotate signing keys.

    docs/operations.md says which key belongs to whom, and what to do when one is lost.
    """


for verb in (key_changes.init, key_changes.rotate, key_changes.sign, key_changes.publish):
    command.add_command(verb)


@command.command("new")
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where to put it.")
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unencrypted (mode 0600).")
def new(name: str, directory: Path, no_passphrase: bool) -> None:
    """Make the key pair NAME: the private file NAME, and NAME.public.json to hand to others."""
    from artifact_sync.trust.keys import KeyFile

    ask = None if no_passphrase else passphrase()
    if ask is None and not no_passphrase:
        raise SettingsError("There is no terminal to ask for a passphrase. Set LIFTGATE_KEY_PASSPHRASE.")
    file = KeyFile(directory / name)
    key = file.create(name=name, ask_passphrase=ask)
    click.echo(f"{file.path}\n{file.public_path}\nkey id {key.public.key_id}")


@command.command("show")
@json_option
@click.pass_obj
def show(config_path: Path | None, as_json: bool) -> None:
    """Show who may sign what, and until when the signatures are good."""
    site = Site.load(config_path)
    try:
        view = site.trusted.refresh()
    except ExpiredError as error:
        say(str(error))
        view = signed_view(site)
    document = {
        "model": view.model,
        "root": {"threshold": view.roles.root_threshold, "keys": _names(view.roles.root)},
        "approvers": {"threshold": view.roles.approval_threshold, "keys": _names(view.roles.approvers)},
        "releaser": _names([view.roles.releaser]),
        "expires": {name: moment.isoformat() for name, moment in view.expires.items()},
    }
    expiry = [(name, f"{moment:%Y-%m-%d}") for name, moment in view.expires.items()]
    text = f"{describe(view.roles)}\n\n{table(expiry, header=('signed list', 'good until'))}"
    print_result(text, document, as_json=as_json)


@command.command("refresh")
@click.option("--key", type=_KEY_FILE, help="The releaser's key; default: [keys] releaser.")
@click.pass_obj
def refresh(config_path: Path | None, key: Path | None) -> None:
    """Renew the signatures that the releaser gives and that expire; run it daily on the promoting machine."""
    from artifact_sync.trust.publisher import Publisher

    site = Site.load(config_path)
    signer = site.signing_key(key or site.settings.keys.releaser, role="releaser")
    done = Publisher(site.trusted, signer).renew(now=SystemClock().now())
    click.echo("\n".join(done) or "Nothing needed renewing.")


def _names(keys: Sequence[PublicKey]) -> list[dict[str, str]]:
    return [{"name": key.name, "key_id": key.key_id} for key in keys]
