"""A change of who may sign: the first set-up, and every rotation after it.

Its place in the flow: `liftgate keys init` and `keys rotate`. A change is a small file that is
passed from holder to holder: each adds the signatures that the own key can give, the last one
publishes it. With all keys on one machine that is one step (`initialise_trust`, `rotate_trust`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from tuf.api.metadata import Root, TargetFile, Targets

from artifact_sync.canonical import Record, Timestamp
from artifact_sync.errors import RefusedError
from artifact_sync.records import ModelName
from artifact_sync.trust.checking import count_signatures, parse
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.roles import Expiries, Roles
from artifact_sync.trust.signing import SignedT, payload_of, with_signatures
from artifact_sync.trust.view import TrustedView


class TrustChange(Record):
    """The next root and the next targets metadata, as files, with the signatures given so far."""

    schema_name: ClassVar[str] = "liftgate.trust-change/1"
    model: ModelName
    root_file: str
    targets_file: str
    made_at: Timestamp

    @property
    def root(self) -> Root:
        """The root metadata; its signatures are not checked."""
        return parse(self.root_file.encode(), name="the change's root", kind=Root).signed

    @property
    def targets(self) -> Targets:
        """The targets metadata; its signatures are not checked."""
        return parse(self.targets_file.encode(), name="the change's targets", kind=Targets).signed

    @property
    def roles(self) -> Roles:
        """Who may sign what once this is published: look at it before signing."""
        return Roles.of(self.root, self.targets)


def draft_change(
    roles: Roles, *, model: str, now: datetime, view: TrustedView | None, expiries: Expiries | None = None
) -> TrustChange:
    """Return an unsigned change to `roles`; `view` is the present state, None before there is any."""
    expiries = expiries or Expiries()
    root_number = 1 if view is None else view.root.version + 1
    targets_number = 1 if view is None else view.targets.version + 1
    versions = _versions_under(roles, view)
    root = roles.root_document(number=root_number, expires=now + expiries.root)
    targets = roles.targets_document(versions, number=targets_number, expires=now + expiries.targets)
    return TrustChange(
        model=model,
        root_file=with_signatures(root, {}).decode(),
        targets_file=with_signatures(targets, {}).decode(),
        made_at=now,
    )


def sign_change(change: TrustChange, signer: Signer, *, view: TrustedView | None) -> TrustChange:
    """Return the change with every signature that this key can give: as a holder to be, or as one until now.

    Signing a root or targets as a holder until now is what lets every host follow without a gap.

    Raises:
        RefusedError: the change holds more than its roles say, such as a version that nobody approved.
    """
    _check_plain(change, view=view)
    holders = [change.roles, *([view.roles] if view is not None else [])]
    root_keys = {key.key_id for roles in holders for key in roles.root}
    approver_keys = {key.key_id for roles in holders for key in roles.approvers}
    return TrustChange(
        model=change.model,
        root_file=_signed(change.root_file, signer, kind=Root, key_ids=root_keys),
        targets_file=_signed(change.targets_file, signer, kind=Targets, key_ids=approver_keys),
        made_at=change.made_at,
    )


def missing_signatures(change: TrustChange, *, view: TrustedView | None) -> tuple[str, ...]:
    """Return what is still missing, in words; empty when the change can be published."""
    missing = [] if view is None else _missing(view.root, change.root_file, kind=Root, who="present root keys")
    missing += _missing(change.root, change.root_file, kind=Root, who="new root keys")
    missing += _missing(change.root, change.targets_file, kind=Targets, who="new approvers")
    return tuple(missing)


def _check_plain(change: TrustChange, *, view: TrustedView | None) -> None:
    """Make both documents anew from the roles that a person is shown, and compare."""
    roles, root, targets = change.roles, change.root, change.targets
    before = (0, 0) if view is None else (view.root.version, view.targets.version)
    versions = _versions_under(roles, view)
    expected = (
        roles.root_document(number=before[0] + 1, expires=root.expires),
        roles.targets_document(versions, number=before[1] + 1, expires=targets.expires),
    )
    if [payload_of(document) for document in expected] != [payload_of(root), payload_of(targets)]:
        raise RefusedError(
            "Signing the change of keys refused: it holds more than a change of keys, or was drafted from another "
            "state than the bucket's. Draft it anew with `liftgate keys rotate`, and ask who handed you this one."
        )


def _versions_under(roles: Roles, view: TrustedView | None) -> Mapping[str, TargetFile]:
    """Return the approvers' list; with another break-glass key they take in what the former one listed.

    So history stays verifiable, and nothing comes of it: each of those versions names its only release.
    """
    if view is None:
        return {}
    if roles.break_glass_role == view.roles.break_glass_role:
        return view.targets.targets
    return {**view.emergencies, **view.targets.targets}


def _missing(delegator: Root, file: str, *, kind: type[SignedT], who: str) -> list[str]:
    metadata = parse(file.encode(), name="the change", kind=kind)
    payload, role = payload_of(metadata.signed), metadata.signed.type
    signed, threshold = count_signatures(delegator, payload, metadata.signatures, role=role)
    return [f"{threshold - signed} more of the {who}"] if signed < threshold else []


def _signed(file: str, signer: Signer, *, kind: type[SignedT], key_ids: Sequence[str] | set[str]) -> str:
    if signer.public.key_id not in key_ids:
        return file
    metadata = parse(file.encode(), name="the change", kind=kind)
    signatures = {key_id: signature.signature for key_id, signature in metadata.signatures.items()}
    signatures[signer.public.key_id] = signer.sign(payload_of(metadata.signed))
    return with_signatures(metadata.signed, signatures).decode()
