"""Publishing a change of keys, for the first time or as a rotation, so that no host is left without a valid state.

Its place in the flow: `liftgate keys init` and `keys rotate` end here. Each file is created only
once and equals what a second attempt would write, so an attempt that was cut off is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tuf.api.metadata import Root, Targets

from artifact_sync.errors import AlreadyExistsError, LostRaceError, RefusedError
from artifact_sync.registry import Registry
from artifact_sync.trust.change import TrustChange, draft_change, missing_signatures, sign_change
from artifact_sync.trust.checking import is_signed, parse, verify
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.lists import meta_file, releases_document, snapshot_document, timestamp_document
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.roles import RELEASES, Expiries, Roles
from artifact_sync.trust.signing import SignedT, payload_of, sign
from artifact_sync.trust.state import SignedState, load_root, load_state, read_if_there, verify_root
from artifact_sync.trust.view import TrustedView


def initialise_trust(
    registry: Registry, roles: Roles, signers: Sequence[Signer], *, now: datetime, expiries: Expiries | None = None
) -> bytes:
    """Set up trust with all keys at hand; return the trusted root that hosts are given.

    Raises:
        RefusedError: trust exists already, or keys are missing among `signers`.
    """
    change = draft_change(roles, model=registry.model, now=now, view=None, expiries=expiries)
    for signer in signers:
        change = sign_change(change, signer, view=None)
    return publish_initial(change, registry, signers, now=now, expiries=expiries)


def rotate_trust(
    reader: TrustedReader, roles: Roles, signers: Sequence[Signer], *, now: datetime, expiries: Expiries | None = None
) -> None:
    """Change who may sign, with all keys at hand.

    Raises:
        RefusedError: keys are missing among `signers`.
        LostRaceError: a version was approved or another change was made meanwhile.
    """
    root = load_root(reader.registry, root=reader.root)
    holders = [signer for signer in signers if signer.public.key_id in root.roles["timestamp"].keyids]
    if holders:
        Publisher(reader, *holders, expiries=expiries).complete(now=now)
    view = Publisher(reader).view()
    change = draft_change(roles, model=view.model, now=now, view=view, expiries=expiries)
    for signer in signers:
        change = sign_change(change, signer, view=view)
    publish_rotation(change, reader, signers, view=view, now=now, expiries=expiries)


def publish_initial(
    change: TrustChange,
    registry: Registry,
    signers: Sequence[Signer],
    *,
    now: datetime,
    expiries: Expiries | None = None,
) -> bytes:
    """Publish the first root, targets, releases, snapshot and timestamp; return the trusted root.

    Raises:
        RefusedError: trust exists already, signatures are missing, or no signer is the releaser.
    """
    expiries = expiries or Expiries()
    if read_if_there(registry, "timestamp.json") is not None:
        raise RefusedError(
            f"Setting up trust refused: {registry.model} has signed metadata already. Change its keys with "
            "`liftgate keys rotate`."
        )
    _check_complete(change, view=None, model=registry.model)
    releaser = _of_releaser(change.roles, signers)
    root_file = _create_or_keep(registry, "root", change.root_file.encode())
    root = verify_root(root_file, name="1.root.json", before=None)
    targets_file = _create_or_keep(registry, "targets", change.targets_file.encode())
    targets = verify(root, targets_file, role="targets", name="1.targets.json", kind=Targets)
    if Roles.of(root, targets) != change.roles:
        raise RefusedError(
            f"Setting up trust refused: somebody began to set it up for {registry.model} with other keys. "
            "Agree on one set; to begin anew, remove metadata/1.root.json and metadata/1.targets.json."
        )
    releases = releases_document({}, number=1, expires=now + expiries.releases)
    releases_file = _create_or_keep(registry, RELEASES, sign(releases, releaser))
    snapshot = snapshot_document(
        meta_file(targets_file, number=1), meta_file(releases_file, number=1), number=1, expires=now + expiries.snapshot
    )
    snapshot_file = _create_or_keep(registry, "snapshot", sign(snapshot, releaser))
    timestamp = timestamp_document(snapshot_file, number=1, expires=now + expiries.timestamp)
    registry.replace_timestamp(sign(timestamp, releaser))
    return root_file


def publish_rotation(
    change: TrustChange,
    reader: TrustedReader,
    signers: Sequence[Signer],
    *,
    view: TrustedView,
    now: datetime,
    expiries: Expiries | None = None,
) -> None:
    """Publish the next root and all that must be signed anew under it.

    Hosts load a new root at once, so what it demands is published before it, signed by the holders
    until now as well. Where one of those keys is lost, hosts refuse the state for the moment
    between the root and the timestamp, and keep serving.

    Args:
        change: the change, with signatures.
        reader: the bucket and the trusted root.
        signers: the new releaser, and the one until now where the key is at hand.
        view: the state that the change was drafted from.
        now: the time of signing.
        expiries: for how long the releaser's signatures are to be believed.

    Raises:
        RefusedError: signatures are missing, or no signer is the new releaser.
        LostRaceError: a version was approved or another change was made meanwhile.
    """
    registry = reader.registry
    _check_complete(change, view=view, model=registry.model)
    holders = _releasers(change.roles, view.root, signers)
    publisher = Publisher(reader, *holders, expiries=expiries)
    new_root = change.root
    if payload_of(load_root(registry, root=reader.root)) != payload_of(new_root):
        before = _prepare(change, publisher, now=now)
        if _is_valid_under(before.root, change, holders):
            publisher.complete(now=now)
        _create_same(registry, "root", new_root.version, change.root_file.encode(), kind=Root)
    publisher.complete(now=now)


def _prepare(change: TrustChange, publisher: Publisher, *, now: datetime) -> SignedState:
    """Create targets, releases and the snapshot that are valid under the new root; return the state before."""
    registry = publisher.reader.registry
    before = load_state(registry, root=publisher.reader.root)
    number = change.targets.version
    if number != before.targets.version + 1 and payload_of(before.targets) != payload_of(change.targets):
        raise LostRaceError(
            f"Change of keys refused: it was drafted for targets {number}, but the bucket is at "
            f"{before.targets.version}. A version was approved meanwhile; draft it anew with `liftgate keys rotate`."
        )
    _check_emergencies_kept(change, before)
    # Releases first: signed by both releasers they are valid before and after, so nobody is ever stuck between.
    releases_file = publisher.releases_for(before, change.targets, now=now)
    targets_file = _create_same(registry, "targets", number, change.targets_file.encode(), kind=Targets)
    releases = parse(releases_file, name="releases", kind=Targets).signed
    after = replace(before, releases=releases, releases_file=releases_file)
    publisher.create_snapshot(after.with_targets(registry, change.root, change.targets, targets_file), now=now)
    return before


def _check_emergencies_kept(change: TrustChange, before: SignedState) -> None:
    """Refuse to let go of a version that a former break-glass key listed: its release could not be read any more."""
    emergencies = before.emergencies
    if emergencies is None or change.roles.break_glass_role == emergencies.role:
        return
    if not set(emergencies.document.targets) <= set(change.targets.targets):
        raise LostRaceError(
            "Change of keys refused: the glass was broken after it was drafted, with the key that it takes away. "
            "Draft it anew with `liftgate keys rotate`."
        )


def _is_valid_under(root: Root, change: TrustChange, holders: Sequence[Signer]) -> bool:
    is_approved = is_signed(root, change.targets_file.encode(), role="targets", kind=Targets)
    return is_approved and any(holder.public.key_id in root.roles["snapshot"].keyids for holder in holders)


def _check_complete(change: TrustChange, *, view: TrustedView | None, model: str) -> None:
    if change.model != model:
        raise RefusedError(f"Change of keys refused: it is for model {change.model!r}, this bucket's is {model!r}.")
    missing = missing_signatures(change, view=view)
    if missing:
        raise RefusedError(
            f"Change of keys refused: signatures are missing: {'; '.join(missing)}. Hand the change to their holders, "
            "who add theirs with `liftgate keys sign`."
        )


def _of_releaser(roles: Roles, signers: Sequence[Signer]) -> tuple[Signer, ...]:
    found = tuple(signer for signer in signers if signer.public == roles.releaser)
    if not found:
        raise RefusedError(
            f"Change of keys refused: the releaser's key ({roles.releaser.name}) is not at hand. Publish the change "
            "on the machine that has it."
        )
    return found


def _releasers(roles: Roles, root: Root, signers: Sequence[Signer]) -> tuple[Signer, ...]:
    """Return the new releaser, then those whom hosts believe until they have the new root."""
    new = _of_releaser(roles, signers)
    believed = root.roles["snapshot"].keyids
    return (*new, *(signer for signer in signers if signer.public.key_id in believed and signer not in new))


def _create_or_keep(registry: Registry, role: str, data: bytes) -> bytes:
    try:
        registry.create_metadata(role, 1, data)
    except AlreadyExistsError:
        return registry.read_metadata(f"1.{role}.json")
    return data


def _create_same(registry: Registry, role: str, number: int, data: bytes, *, kind: type[SignedT]) -> bytes:
    name = f"{number}.{role}.json"
    try:
        registry.create_metadata(role, number, data)
    except AlreadyExistsError:
        found = registry.read_metadata(name)
        own = parse(data, name=name, kind=kind).signed
        if payload_of(parse(found, name=name, kind=kind).signed) != payload_of(own):
            raise LostRaceError(
                f"Change of keys refused: {name} was created by somebody else. Look at the bucket's state with "
                "`liftgate keys show` and draft the change anew."
            ) from None
        return found
    return data
