"""Who may sign what, and the two documents that say so: root and targets.

Its place in the flow: pure, under everything that publishes (publisher.py, change.py, proposal.py);
lists.py has the documents below targets, docs/adr/0001-trust-roles.md the reasons.

    root        the root keys         names the keys of every role below
    targets     the approvers' keys   lists versions/000042.json, and delegates releases/* to
    releases    the releaser's key    lists releases/000057.json
    snapshot    the releaser's key    one consistent set of targets and releases
    timestamp   the releaser's key    the newest snapshot; the same number as the snapshot's
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


@dataclass(frozen=True)
class Expiries:
    """For how long signatures are believed: short for what a machine renews, long for what people sign."""

    root: timedelta = timedelta(days=730)
    targets: timedelta = timedelta(days=365)
    releases: timedelta = timedelta(days=365)
    snapshot: timedelta = timedelta(days=60)
    timestamp: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class Roles:
    """The holders of keys, and how many of them must agree.

    Raises:
        SettingsError: a threshold cannot be met, or one key or one name stands for two people.
    """

    root: tuple[PublicKey, ...]
    root_threshold: int
    approvers: tuple[PublicKey, ...]
    approval_threshold: int
    releaser: PublicKey

    def __post_init__(self) -> None:
        _check_holders("root", self.root, threshold=self.root_threshold)
        _check_holders("approver", self.approvers, threshold=self.approval_threshold)

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
        """Return the approvers' list of `versions`, delegating releases/* to the releaser."""
        releaser = self.releaser
        role = DelegatedRole(RELEASES, [releaser.key_id], 1, terminating=True, paths=_RELEASE_PATHS)
        delegations = Delegations(keys={releaser.key_id: to_tuf_key(releaser)}, roles={RELEASES: role})
        return Targets(version=number, expires=expires, targets=dict(versions), delegations=delegations)


def to_tuf_key(key: PublicKey) -> SSlibKey:
    """Return the key as signed metadata holds it; the holder's name is signed with it."""
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.ed25519}, {_NAME_FIELD: key.name})


def _to_public(key: Any) -> PublicKey:
    public = PublicKey(name=str(key.unrecognized_fields.get(_NAME_FIELD, "")), ed25519=key.keyval["public"])
    if public.key_id != key.keyid:
        raise ValueError(f"key {key.keyid} is not the digest of its own bytes")
    return public


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
