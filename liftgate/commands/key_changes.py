"""The verbs of `liftgate keys` that say who may sign: init, rotate, sign, publish.

Their place in the flow: a change is one step where all keys are at hand; else a drafted file goes
from holder to holder, and the last one publishes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.clock import SystemClock
from artifact_sync.durable import create_durably, write_durably
from artifact_sync.errors import AlreadyExistsError, NotFoundError, RefusedError, SettingsError
from liftgate.composition import Site, passphrase
from liftgate.output import say, table

if TYPE_CHECKING:
    from artifact_sync.trust.change import TrustChange
    from artifact_sync.trust.keys import PublicKey, Signer
    from artifact_sync.trust.roles import Roles
    from artifact_sync.trust.view import TrustedView

_KEY_FILE = click.Path(path_type=Path, dir_okay=False)
_CHANGE_FILE = click.argument("change_file", type=click.Path(path_type=Path, dir_okay=False, exists=True))


@click.command("init")
@click.option("--root", "root", type=_KEY_FILE, multiple=True, required=True, help="A root key; repeatable.")
@click.option("--root-threshold", default=1, show_default=True, help="Root keys that must sign a change of keys.")
@click.option("--approver", "approvers", type=_KEY_FILE, multiple=True, required=True, help="An approver's key; repeatable.")  # fmt: skip  # noqa: E501
@click.option("--threshold", default=1, show_default=True, help="Approvers that must sign a version.")
@click.option("--releaser", type=_KEY_FILE, required=True, help="The key of the machine that promotes.")
@click.option("--break-glass", type=_KEY_FILE, help="A key for emergencies, held apart; without it there is no such way.")  # fmt: skip  # noqa: E501
@click.option("--draft", type=_KEY_FILE, help="Only write the change to this file, for the holders to sign.")
@click.pass_obj
def init(
    config_path: Path | None,
    root: tuple[Path, ...],
    root_threshold: int,
    approvers: tuple[Path, ...],
    threshold: int,
    releaser: Path,
    break_glass: Path | None,
    draft: Path | None,
) -> None:
    """Set up trust for the model, once, and write the trusted root that hosts are given.

    With all private keys on this machine that is one step. Otherwise `--draft FILE` needs only the
    public halves; each holder runs `keys sign FILE`, and the releaser `keys publish FILE`.
    """
    from artifact_sync.trust.ceremony import initialise_trust
    from artifact_sync.trust.change import draft_change
    from artifact_sync.trust.roles import Roles

    site = Site.load(config_path)
    now = SystemClock().now()
    roles = Roles(
        root=tuple(_public(path) for path in root),
        root_threshold=root_threshold,
        approvers=tuple(_public(path) for path in approvers),
        approval_threshold=threshold,
        releaser=_public(releaser),
        break_glass=None if break_glass is None else _public(break_glass),
    )
    if draft is not None:
        _write_change(draft, draft_change(roles, model=site.registry.model, now=now, view=None))
        return
    signers = _load_all((*root, *approvers, releaser))
    _write_root(site, initialise_trust(site.registry, roles, signers, now=now))
    click.echo(describe(roles))


@click.command("rotate")
@click.option("--add-approver", type=_KEY_FILE, multiple=True, help="A further approver's key; repeatable.")
@click.option("--remove-approver", multiple=True, help="An approver's name; repeatable.")
@click.option("--threshold", type=int, help="Approvers that must sign a version.")
@click.option("--releaser", type=_KEY_FILE, help="The new key of the machine that promotes.")
@click.option("--break-glass", type=_KEY_FILE, help="The (new) key for emergencies; its public half is enough.")
@click.option("--no-break-glass", "is_sealed", is_flag=True, help="Take away the key for emergencies.")
@click.option("--add-root", type=_KEY_FILE, multiple=True, help="A further root key; repeatable.")
@click.option("--remove-root", multiple=True, help="A root key's name; repeatable.")
@click.option("--root-threshold", type=int, help="Root keys that must sign a change of keys.")
@click.option("--key", "keys", type=_KEY_FILE, multiple=True, help="A private key to sign with; repeatable.")
@click.option("--draft", type=_KEY_FILE, help="Only write the change to this file, for the holders to sign.")
@click.pass_obj
def rotate(
    config_path: Path | None,
    add_approver: tuple[Path, ...],
    remove_approver: tuple[str, ...],
    threshold: int | None,
    releaser: Path | None,
    break_glass: Path | None,
    is_sealed: bool,
    add_root: tuple[Path, ...],
    remove_root: tuple[str, ...],
    root_threshold: int | None,
    keys: tuple[Path, ...],
    draft: Path | None,
) -> None:
    """Change who may sign. Signed by the root keys until now and from now on; hosts follow by themselves."""
    from artifact_sync.trust.ceremony import rotate_trust
    from artifact_sync.trust.change import draft_change
    from artifact_sync.trust.roles import Roles

    if break_glass is not None and is_sealed:
        raise click.UsageError("--break-glass and --no-break-glass: name another key or take it away, not both.")
    site = Site.load(config_path)
    view, now = signed_view(site), SystemClock().now()
    present = view.roles
    roles = Roles(
        root=_changed(present.root, add_root, remove_root, what="root key"),
        root_threshold=root_threshold or present.root_threshold,
        approvers=_changed(present.approvers, add_approver, remove_approver, what="approver"),
        approval_threshold=threshold or present.approval_threshold,
        releaser=_public(releaser) if releaser else present.releaser,
        break_glass=None if is_sealed else _public(break_glass) if break_glass else present.break_glass,
    )
    if draft is not None:
        _write_change(draft, draft_change(roles, model=view.model, now=now, view=view))
        return
    rotate_trust(site.trusted, roles, _load_all(keys or _own_keys(site)), now=now)
    click.echo(describe(roles))


@click.command("sign")
@_CHANGE_FILE
@click.option("--key", type=_KEY_FILE, required=True, help="Your private key.")
@click.pass_obj
def sign(config_path: Path | None, change_file: Path, key: Path) -> None:
    """Show a drafted change, and sign it with your key."""
    from artifact_sync.trust.change import missing_signatures, sign_change

    site = Site.load(config_path)
    view = _view_if_any(site)
    change = _read_change(change_file)
    say(describe(change.roles))
    change = sign_change(change, _load(key), view=view)
    write_durably(change_file, change.to_json())
    missing = missing_signatures(change, view=view)
    click.echo(
        f"Signed. Missing: {', '.join(missing)}." if missing else "Signed. Nothing is missing: `liftgate keys publish`."
    )


@click.command("publish")
@_CHANGE_FILE
@click.option("--key", "keys", type=_KEY_FILE, multiple=True, help="The releaser's key; default: [keys] releaser.")
@click.pass_obj
def publish(config_path: Path | None, change_file: Path, keys: tuple[Path, ...]) -> None:
    """Publish a change that its holders have signed."""
    from artifact_sync.trust.ceremony import publish_initial, publish_rotation

    site = Site.load(config_path)
    view, change, now = _view_if_any(site), _read_change(change_file), SystemClock().now()
    signers = _load_all(keys) if keys else [site.signing_key(site.settings.keys.releaser, role="releaser")]
    if view is None:
        _write_root(site, publish_initial(change, site.registry, signers, now=now))
    else:
        publish_rotation(change, site.trusted, signers, view=view, now=now)
    click.echo(describe(change.roles))


def describe(roles: Roles) -> str:
    """Return who may sign what, as a table."""
    holders = (
        ("root", roles.root_threshold, roles.root),
        ("approvers", roles.approval_threshold, roles.approvers),
        ("releaser", 1, (roles.releaser,)),
    )
    rows = [
        (role, f"{threshold} of {len(keys)}", ", ".join(key.name for key in keys)) for role, threshold, keys in holders
    ]
    if roles.break_glass is not None:
        rows.append(("break-glass", "1 of 1, with the releaser", roles.break_glass.name))
    return table(rows, header=("role", "must sign", "holders"))


def _load(path: Path) -> Signer:
    from artifact_sync.trust.keys import KeyFile

    return KeyFile(path).load(ask_passphrase=passphrase())


def _load_all(paths: Sequence[Path]) -> list[Signer]:
    return [_load(path) for path in dict.fromkeys(paths)]


def _own_keys(site: Site) -> tuple[Path, ...]:
    keys = site.settings.keys
    return tuple(path for path in (*keys.root, keys.approver, keys.releaser) if path is not None)


def _changed(
    present: Sequence[PublicKey], added: Sequence[Path], removed: Sequence[str], *, what: str
) -> tuple[PublicKey, ...]:
    names = [key.name for key in present]
    for name in removed:
        if name not in names:
            raise NotFoundError(f"There is no {what} named {name!r}. There are: {', '.join(names)}.")
    return (*(key for key in present if key.name not in removed), *(_public(path) for path in added))


def _view_if_any(site: Site) -> TrustedView | None:
    trust = site.settings.trust
    if trust is None or not trust.root_path.exists():
        return None
    return signed_view(site)


def signed_view(site: Site) -> TrustedView:
    """Return the newest signed state for those who sign, even when it has expired."""
    # Those who sign must see a state that has expired: renewing it is what they are here for.
    from artifact_sync.trust.publisher import Publisher

    return Publisher(site.trusted).view()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}.") from None


def _read_change(path: Path) -> TrustChange:
    from artifact_sync.trust.change import TrustChange

    return TrustChange.from_json(_read(path))


def _write_change(path: Path, change: TrustChange) -> None:
    create_durably(path, change.to_json())
    click.echo(f"{describe(change.roles)}\n{path}: hand it to the holders, each runs `liftgate keys sign {path.name}`.")


def _write_root(site: Site, root: bytes) -> None:
    trust = site.settings.trust
    if trust is None:
        raise SettingsError("Trust is set up, but [trust] root_path is not set: set it and run the command again.")
    try:
        create_durably(trust.root_path, root)
    except AlreadyExistsError:
        if trust.root_path.read_bytes() != root:
            raise RefusedError(
                f"{trust.root_path} holds another root. Move it away if it is of a former bucket, and run this again."
            ) from None
    say(f"Trusted root: {trust.root_path}. Give a copy to every serving host and front end, not through the bucket.")


def _public(path: Path) -> PublicKey:
    from artifact_sync.trust.keys import KeyFile, PublicKey

    if path.name.endswith(".public.json"):
        return PublicKey.from_json(_read(path))
    return KeyFile(path).public()
