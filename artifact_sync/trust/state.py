"""The newest state as a writer must see it: every finished step, published or not.

Its place in the flow: publisher.py continues from here. Unlike a reader, a writer ignores
timestamp.json (it is what a writer repairs) and expiry (it is what a writer renews); it believes
signatures from the trusted root down, and takes the newest snapshot that is signed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuf.api.metadata import MetaFile, Root, Snapshot, Targets

from artifact_sync.errors import NotFoundError, TrustError
from artifact_sync.registry import Registry
from artifact_sync.trust.checking import check_listed, parse, verify
from artifact_sync.trust.lists import meta_file
from artifact_sync.trust.roles import RELEASES, Roles

_MAX_FORGED_SNAPSHOTS = 100
_MAX_ROOTS = 1_000


@dataclass(frozen=True)
class EmergencyList:
    """The versions that the present break-glass key listed: the role's name, the document, its file."""

    role: str
    document: Targets
    file: bytes


@dataclass(frozen=True)
class SignedState:
    """Verified metadata, and the files that it came from where another file lists them by digest."""

    root: Root
    snapshot: Snapshot
    snapshot_file: bytes
    targets: Targets
    targets_file: bytes
    releases: Targets
    releases_file: bytes
    emergencies: EmergencyList | None = None

    def with_targets(self, registry: Registry, root: Root, targets: Targets, targets_file: bytes) -> SignedState:
        """Return the state under another list of the approvers, with the emergencies that it delegates.

        Raises:
            TrustError: the list of emergencies is not what the snapshot names.
        """
        emergencies = _listed_emergencies(registry, root, targets, self.snapshot)
        return replace(self, root=root, targets=targets, targets_file=targets_file, emergencies=emergencies)

    @property
    def emergencies_meta(self) -> dict[str, MetaFile]:
        """What the next snapshot says of lists of emergencies; those of former keys stay, as hosts demand."""
        own = {"targets.json", f"{RELEASES}.json"}
        meta = {name: listed for name, listed in self.snapshot.meta.items() if name not in own}
        if self.emergencies is not None:
            found = self.emergencies
            meta[f"{found.role}.json"] = meta_file(found.file, number=found.document.version)
        return meta


def load_state(registry: Registry, *, root: bytes, seen_snapshot_number: int = 0) -> SignedState:
    """Return the newest signed state.

    Args:
        registry: the model's part of the bucket.
        root: the trusted root's bytes.
        seen_snapshot_number: the newest snapshot that this machine has believed before.

    Raises:
        TrustError: there is none, it is older than what was seen, or a file is not signed as it must be.
    """
    newest_root = load_root(registry, root=root)
    number, snapshot, snapshot_file = _newest_snapshot(registry, newest_root)
    if number < seen_snapshot_number:
        raise TrustError(
            f"Metadata refused: the newest signed snapshot in the bucket is {number}, this machine has seen "
            f"{seen_snapshot_number}. Somebody put an old state back or removed the newer one; signing on top of it "
            "would make that true. Find out who can write to the bucket and restore metadata/ from a backup."
        )
    targets, targets_file = _listed(registry, newest_root, snapshot, role="targets")
    releases, releases_file = _listed(registry, targets, snapshot, role=RELEASES)
    emergencies = _listed_emergencies(registry, newest_root, targets, snapshot)
    return SignedState(
        newest_root, snapshot, snapshot_file, targets, targets_file, releases, releases_file, emergencies
    )


def load_root(registry: Registry, *, root: bytes) -> Root:
    """Return the newest root that the trusted root leads to, each signed by the one before and by itself."""
    newest = verify_root(root, name="the trusted root", before=None)
    for number in range(newest.version + 1, newest.version + _MAX_ROOTS):
        data = read_if_there(registry, f"{number}.root.json")
        if data is None:
            break
        newest = verify_root(data, name=f"{number}.root.json", before=newest)
    return newest


def verify_root(data: bytes, *, name: str, before: Root | None) -> Root:
    """Return a root that is signed by its own threshold, and by that of the one before.

    Raises:
        TrustError: it is not, or its number is not the next one.
    """
    own = parse(data, name=name, kind=Root).signed
    verify(own, data, role="root", name=name, kind=Root)
    if before is not None:
        verify(before, data, role="root", name=name, kind=Root)
        if own.version != before.version + 1:
            raise TrustError(f"Metadata refused: {name} says that it is root {own.version}. Remove that object.")
    return own


def read_if_there(registry: Registry, name: str) -> bytes | None:
    """Return a metadata file, or None."""
    try:
        return registry.read_metadata(name)
    except NotFoundError:
        return None


def _newest_snapshot(registry: Registry, root: Root) -> tuple[int, Snapshot, bytes]:
    numbers = registry.metadata_numbers("snapshot")
    for number in reversed(numbers[-_MAX_FORGED_SNAPSHOTS:]):
        name = f"{number}.snapshot.json"
        data = registry.read_metadata(name)
        try:
            snapshot = verify(root, data, role="snapshot", name=name, kind=Snapshot)
        except TrustError:
            # Anybody who can write to the bucket can put a file there; what counts is who signed it.
            continue
        if snapshot.version == number:
            return number, snapshot, data
    raise TrustError(
        f"{registry.model} has no snapshot in the bucket that the releaser signed ({len(numbers)} files looked at). "
        "Set up trust with `liftgate keys init`, or check the model's name and the trusted root."
    )


def _listed_emergencies(registry: Registry, root: Root, targets: Targets, snapshot: Snapshot) -> EmergencyList | None:
    role = Roles.of(root, targets).break_glass_role
    if role is None or f"{role}.json" not in snapshot.meta:
        return None
    return EmergencyList(role, *_listed(registry, targets, snapshot, role=role))


def _listed(registry: Registry, delegator: Root | Targets, snapshot: Snapshot, *, role: str) -> tuple[Targets, bytes]:
    listed = snapshot.meta[f"{role}.json"]
    name = f"{listed.version}.{role}.json"
    data = read_if_there(registry, name)
    if data is None:
        raise TrustError(f"Metadata refused: {name} is signed but not in the bucket. Restore it from a backup.")
    check_listed(listed, data, name=name)
    return verify(delegator, data, role=role, name=name, kind=Targets), data


def next_list(delegator: Root | Targets, data: bytes, *, role: str, name: str) -> Targets:
    """Return the list in the file `name` that nothing lists yet.

    Raises:
        TrustError: it is not signed by the holders of `role`, or is another list's copy.
    """
    document = verify(delegator, data, role=role, name=name, kind=Targets)
    if f"{document.version}.{role}.json" != name:
        raise TrustError(
            f"Metadata refused: {name} is a copy of {document.version}.{role}.json under another name. Remove that "
            "object and find out who can write to the bucket."
        )
    return document
