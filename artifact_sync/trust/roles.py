"""Who may sign what, and the two documents that say so: root and targets.

Its place in the flow: pure, under everything that publishes (publisher.py, change.py, proposal.py);
lists.py has the documents below targets, docs/adr/0001-trust-roles.md the reasons.

    root         the root keys         names the keys of every role below
    targets      the approvers' keys   lists versions/000042.json, and delegates releases/* to
    releases     the releaser's key    lists releases/000057.json; versions/9?????.json are delegated to
    break-glass  a key held apart      lists versions/900000.json, in an emergency; a site may have no such role
    snapshot     the releaser's key    one consistent set of the lists above
    timestamp    the releaser's key    the newest snapshot; the same number as the snapshot's

docs/adr/0002-break-glass.md has the reasons for the break-glass role, which carries a part of its key's
id in its name: a change of that key makes another role, and the old key's list is not looked at any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Role,
    Root,
    TargetFile,
    Targets,
)

from artifact_sync.errors import SettingsError, TrustError
from artifact_sync.trust.keys import PublicKey

RELEASES = "releases"
"""The delegated role's name."""

_NAME_FIELD = "x-liftgate-name"
_RELEASE_PATHS = ["releases/*"]
_EMERGENCY_PATHS = ["versions/9?????.json"]
_BREAK_GLASS_PREFIX = "break-glass-"
_KEY_ID_DIGITS = 16


@dataclass(frozen=True)
class Expiries:
    """For how long signatures are believed: short for what a machine renews, long for what people sign."""

    root: timedelta = timedelta(days=730)
    targets: timedelta = timedelta(days=365)
    releases: timedelta = timedelta(days=365)
    snapshot: timedelta = timedelta(days=60)
    timestamp: timedelta = timedelta(days=7)
    # The key is in a safe: nothing is to stop because nobody took it out. What it may do expires with targets.
    break_glass: timedelta = timedelta(days=3650)


@dataclass(frozen=True)
class Roles:
    """The holders of keys, and how many of them must agree.

    Raises:
        SettingsError: a threshold cannot be met, one key or one name stands for two people, or the
            break-glass key is one of the others.
    """

    root: tuple[PublicKey, ...]
    root_threshold: int
    approvers: tuple[PublicKey, ...]
    approval_threshold: int
    releaser: PublicKey
    break_glass: PublicKey | None = None

    def __post_init__(self) -> None:
        _check_holders("root", self.root, threshold=self.root_threshold)
        _check_holders("approver", self.approvers, threshold=self.approval_threshold)
        self._check_apart()

    @property
    def break_glass_role(self) -> str | None:
        """The name of the role that may list versions in an emergency; None where there is no such way."""
        key = self.break_glass
        return None if key is None else f"{_BREAK_GLASS_PREFIX}{key.key_id[:_KEY_ID_DIGITS]}"

    @classmethod
    def of(cls, root: Root, targets: Targets) -> Roles:
        """Read the roles from verified metadata.

        Raises:
            TrustError: the metadata is not laid out as Liftgate's is.
        """
        try:
            delegations = targets.delegations
            releases = (delegations.roles or {})[RELEASES] if delegations else None
            if delegations is None or releases is None:
                raise KeyError(RELEASES)
            (releaser,) = (_to_public(delegations.keys[key_id]) for key_id in releases.keyids)
            return cls(
                root=_holders(root, "root"),
                root_threshold=root.roles["root"].threshold,
                approvers=_holders(root, "targets"),
                approval_threshold=root.roles["targets"].threshold,
                releaser=releaser,
                break_glass=_break_glass(delegations),
            )
        except (KeyError, ValueError, SettingsError) as error:
            raise TrustError(
                f"Signed metadata refused: it is not laid out as Liftgate's is ({type(error).__name__}: {error}). "
                "Was it made by another program?"
            ) from None

    def root_document(self, *, number: int, expires: datetime) -> Root:
        """Return the root metadata that names these holders."""
        threshold = {"root": self.root_threshold, "targets": self.approval_threshold}
        holders = {"root": self.root, "targets": self.approvers}
        named = {role: holders.get(role, (self.releaser,)) for role in sorted(TOP_LEVEL_ROLE_NAMES)}
        return Root(
            version=number,
            expires=expires,
            keys={key.key_id: to_tuf_key(key) for keys in named.values() for key in keys},
            roles={role: Role([key.key_id for key in keys], threshold.get(role, 1)) for role, keys in named.items()},
        )

    def targets_document(self, versions: Mapping[str, TargetFile], *, number: int, expires: datetime) -> Targets:
        """Return the approvers' list of `versions`, delegating releases/* to the releaser, and emergencies."""
        named = [(RELEASES, self.releaser, _RELEASE_PATHS)]
        if self.break_glass is not None and self.break_glass_role is not None:
            named.append((self.break_glass_role, self.break_glass, _EMERGENCY_PATHS))
        delegations = Delegations(
            keys={key.key_id: to_tuf_key(key) for _, key, _ in named},
            roles={
                role: DelegatedRole(role, [key.key_id], 1, terminating=True, paths=paths) for role, key, paths in named
            },
        )
        return Targets(version=number, expires=expires, targets=dict(versions), delegations=delegations)

    def _check_apart(self) -> None:
        if self.break_glass is None:
            return
        for role, keys in (("root", self.root), ("approver", self.approvers), ("releaser", (self.releaser,))):
            for key in keys:
                if key.key_id == self.break_glass.key_id:
                    raise SettingsError(
                        f"Roles refused: the break-glass key is also the {role} key of {key.name}. It must be held "
                        "apart from all others; make an own one with `liftgate keys new`."
                    )


def to_tuf_key(key: PublicKey) -> SSlibKey:
    """Return the key as signed metadata holds it; the holder's name is signed with it."""
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.ed25519}, {_NAME_FIELD: key.name})


def _to_public(key: Any) -> PublicKey:
    public = PublicKey(name=str(key.unrecognized_fields.get(_NAME_FIELD, "")), ed25519=key.keyval["public"])
    if public.key_id != key.keyid:
        raise ValueError(f"key {key.keyid} is not the digest of its own bytes")
    return public


def _break_glass(delegations: Delegations) -> PublicKey | None:
    roles = [role for name, role in (delegations.roles or {}).items() if name.startswith(_BREAK_GLASS_PREFIX)]
    if not roles:
        return None
    (role,) = roles
    (key_id,) = role.keyids
    if role.name != f"{_BREAK_GLASS_PREFIX}{key_id[:_KEY_ID_DIGITS]}" or role.threshold != 1:
        raise ValueError(f"the role {role.name!r} is not that of its key")
    return _to_public(delegations.keys[key_id])


def _holders(root: Root, role: str) -> tuple[PublicKey, ...]:
    return tuple(_to_public(root.keys[key_id]) for key_id in root.roles[role].keyids)


def _check_holders(role: str, keys: Iterable[PublicKey], *, threshold: int) -> None:
    holders = tuple(keys)
    if not 1 <= threshold <= len(holders):
        raise SettingsError(
            f"Roles refused: {threshold} of {len(holders)} {role} keys must sign, which cannot be. "
            f"Name at least {max(threshold, 1)} {role} keys."
        )
    for what, values in (("name", [key.name for key in holders]), ("key", [key.key_id for key in holders])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise SettingsError(
                f"Roles refused: the {role} {what} {twice[0]} is there twice; each person needs an own one."
            )
