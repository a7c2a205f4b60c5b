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
    from artifact_sync.trust.key_reference import KeyReference
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
@click.option("--ssh-agent", "comment", help="Refer to the Ed25519 key with this comment in ssh-agent.")
@click.option("--pkcs11-module", "module", type=_KEY_FILE, help="Refer to an Ed25519 key on a token, by this library.")
@click.option("--token", help="With --pkcs11-module: the token's label.")
@click.option("--object", "label", help="With --pkcs11-module: the key's label on the token; default: NAME.")
def new(
    name: str,
    directory: Path,
    no_passphrase: bool,
    comment: str | None,
    module: Path | None,
    token: str | None,
    label: str | None,
) -> None:
    """Make the key pair NAME: the private file NAME, and NAME.public.json to hand to others.

    With --ssh-agent or --pkcs11-module nothing secret is made: the file NAME only says where the key
    is, and every verb takes it like a key file.
    """
    from artifact_sync.trust.keys import KeyFile

    file = KeyFile(directory / name)
    if comment is not None or module is not None:
        public = file.create_reference(_reference(comment, module, token=token, label=label or name), name=name)
        click.echo(f"{file.path}\n{file.public_path}\nkey id {public.key_id}")
        return
    ask = None if no_passphrase else passphrase()
    if ask is None and not no_passphrase:
        raise SettingsError("There is no terminal to ask for a passphrase. Set LIFTGATE_KEY_PASSPHRASE.")
    key = file.create(name=name, ask_passphrase=ask)
    click.echo(f"{file.path}\n{file.public_path}\nkey id {key.public.key_id}")


def _reference(comment: str | None, module: Path | None, *, token: str | None, label: str) -> KeyReference:
    from artifact_sync.trust.key_reference import KeyReference

    if comment is not None and module is not None:
        raise SettingsError("A key lies in ssh-agent or on a token: give --ssh-agent or --pkcs11-module, not both.")
    if module is not None:
        from artifact_sync.trust.pkcs11_token import token_key

        if token is None:
            raise SettingsError(f"Name the token with --token. `pkcs11-tool --module {module} -L` lists them.")
        ed25519 = token_key(module, token=token, label=label)
        return KeyReference(place="pkcs11", ed25519=ed25519, module=module, token=token, object=label)
    from artifact_sync.trust.ssh_agent import agent_keys

    held = agent_keys()
    found = [ed25519 for key_comment, ed25519 in held if key_comment == comment]
    if len(found) != 1:
        listed = ", ".join(key_comment for key_comment, _ in held) or "none"
        raise SettingsError(
            f"ssh-agent holds {len(found)} Ed25519 keys with the comment {comment!r}; it must be one. "
            f"It holds these Ed25519 keys: {listed}."
        )
    return KeyReference(place="ssh-agent", ed25519=found[0])


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
        "break_glass": _names([view.roles.break_glass] if view.roles.break_glass is not None else []),
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
