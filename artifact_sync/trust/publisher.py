"""Publishing: the create-only steps that make a version approved and a release true.

Its place in the flow: validation/releases/promote.py decides, this writes. The order is N.targets.json (or
N.break-glass-….json, by emergencies.py) → M.releases.json → S.snapshot.json → timestamp.json → readable
copies. The first two are where races are decided; everything after them is `complete`, which anybody
who holds the releaser's key may run at any time. timestamp.json has its snapshot's number, so that
writing it twice is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from tuf.api.metadata import Targets, Timestamp

from artifact_sync.errors import AlreadyExistsError, LostRaceError, RefusedError, TrustError
from artifact_sync.records import ReleaseRecord
from artifact_sync.trust.checking import is_signed, verify
from artifact_sync.trust.emergencies import check_listed_emergency, with_pending_emergencies
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.lists import meta_file, releases_document, snapshot_document, target_file, timestamp_document
from artifact_sync.trust.proposal import ProposedTargets
from artifact_sync.trust.published import is_published, published_until
from artifact_sync.trust.readable_copies import write_missing_copies
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.roles import RELEASES, Expiries
from artifact_sync.trust.signing import payload_of, sign, with_signatures
from artifact_sync.trust.state import SignedState, load_state, next_list, read_if_there
from artifact_sync.trust.view import TrustedView


class Publisher:
    """Writes one model's metadata with the releaser's key.

    Args:
        reader: whose bucket, trusted root and memory of what was seen are used.
        signers: the releaser; two while its key is being changed.
        expiries: for how long the signatures are to be believed.
    """

    def __init__(self, reader: TrustedReader, *signers: Signer, expiries: Expiries | None = None) -> None:
        self.reader = reader
        self._registry = reader.registry
        self._signers = signers
        self._expiries = expiries or Expiries()

    def complete(self, *, now: datetime) -> tuple[str, ...]:
        """Finish what anybody left half-published, and say in words what that was (nothing: empty).

        Raises:
            RefusedError: the key is not the releaser's.
            TrustError: an object in the way was not made by the holders of the keys.
        """
        done: list[str] = []
        self._check_signers(self.state())
        while True:
            state = self.state()
            pending = self._with_pending(state)
            if pending is not state:
                self.create_snapshot(pending, now=now)
                done.extend(_differences(state, pending))
            elif is_published(self._registry, state):
                write_missing_copies(self._registry, state)
                self._remember()
                return tuple(done)
            else:
                # Looked at again after writing: a slow writer may just have put an older one back.
                self._write_timestamp(state, now=now)
                done.append(f"timestamp {state.snapshot.version}")

    def renew(self, *, now: datetime, is_forced: bool = False) -> tuple[str, ...]:
        """Complete, then sign anew what the releaser signs and what is past half of its time (or all of it).

        Raises:
            RefusedError: the key is not the releaser's.
            TrustError: see `complete`.
        """
        done = list(self.complete(now=now))
        state = self.state()
        before = state
        if is_forced or state.releases.expires - now < self._expiries.releases / 2:
            state = self._renew_releases(state, now=now)
        is_due = state is not before or state.snapshot.expires - now < self._expiries.snapshot / 2
        if is_forced or is_due or published_until(self._registry, state) - now < self._expiries.timestamp / 2:
            self.create_snapshot(state, now=now)
            done.append(f"snapshot {state.snapshot.version + 1}")
            self.complete(now=now)
        return tuple(done)

    def publish_version(self, proposed: ProposedTargets, signatures: Mapping[str, str], *, now: datetime) -> None:
        """Create the proposed targets metadata; it is fine when these very bytes are there already.

        Args:
            proposed: what the approvers signed.
            signatures: their signatures (hex) by key id.
            now: the time of completing.

        Raises:
            LostRaceError: that number was taken by something else.
            TrustError: the signatures do not meet the approvers' threshold.
        """
        state = self.state()
        data = with_signatures(proposed.document(), signatures)
        name = f"{proposed.number}.targets.json"
        verify(state.root, data, role="targets", name=name, kind=Targets)
        if proposed.number == state.targets.version + 1:
            with suppress(AlreadyExistsError):
                self._registry.create_metadata("targets", proposed.number, data)
        found = read_if_there(self._registry, name)
        if found is None or payload_of(next_list(state.root, found, role="targets", name=name)) != proposed.payload:
            self.complete(now=now)
            raise LostRaceError(f"{name} was created by somebody else; sign a new proposal.")

    def publish_release(self, record: ReleaseRecord, *, now: datetime) -> tuple[str, ...]:
        """Create the release and publish it.

        Raises:
            LostRaceError: another release has that number.
            TrustError: the releaser's key is not the trusted one, or see `complete`.
        """
        data = record.to_json()
        path = f"releases/{record.number:06d}.json"
        listed = target_file(path, data)
        self._registry.put_blob(data, sha256=listed.hashes["sha256"])
        while True:
            state = self.state()
            if path in state.releases.targets:
                raise LostRaceError(f"{path} was created by somebody else; look at it before deciding anew.")
            check_listed_emergency(self._with_pending(state), record)
            try:
                self._create_releases(state, {**state.releases.targets, path: listed}, now=now)
                return self.complete(now=now)
            except AlreadyExistsError:
                # Another release, or the same ones signed anew; which of them shows once it is complete.
                self.complete(now=now)

    def view(self) -> TrustedView:
        """Return the newest signed state, published or not, expired or not: for deciding what to write."""
        state = self.state()
        emergencies = None if state.emergencies is None else state.emergencies.document
        return TrustedView(
            self._registry, root=state.root, targets=state.targets, releases=state.releases, emergencies=emergencies
        )

    def state(self) -> SignedState:
        """Return the newest signed state."""
        return load_state(
            self._registry, root=self.reader.root, seen_snapshot_number=self.reader.seen_snapshot_number()
        )

    def create_snapshot(self, state: SignedState, *, now: datetime) -> None:
        """Create the snapshot that follows; it is fine when another releaser was quicker."""
        number = state.snapshot.version + 1
        document = snapshot_document(
            meta_file(state.targets_file, number=state.targets.version),
            meta_file(state.releases_file, number=state.releases.version),
            number=number,
            expires=now + self._expiries.snapshot,
            emergencies=state.emergencies_meta,
        )
        name = f"{number}.snapshot.json"
        data = sign(document, self._signers)
        verify(state.root, data, role="snapshot", name=f"the new {name}", kind=type(document))
        try:
            self._registry.create_metadata("snapshot", number, data)
        except AlreadyExistsError:
            verify(state.root, self._registry.read_metadata(name), role="snapshot", name=name, kind=type(document))

    def releases_for(self, state: SignedState, targets: Targets, *, now: datetime) -> bytes:
        """Return the file of the same releases as `targets` delegates them, signed anew where it must be."""
        number, data = state.releases.version, state.releases_file
        while not is_signed(targets, data, role=RELEASES, kind=Targets):
            number += 1
            found = read_if_there(self._registry, f"{number}.{RELEASES}.json")
            if found is not None:
                data = found
                continue
            expires = now + self._expiries.releases
            data = sign(releases_document(state.releases.targets, number=number, expires=expires), self._signers)
            self._registry.create_metadata(RELEASES, number, data)
        return data

    def _remember(self) -> None:
        # So that this machine will know an old state when it is shown one. What is published is published:
        # a reader that looks while a slower writer puts an old timestamp back for a moment is no reason to fail.
        with suppress(TrustError):
            self.reader.refresh()

    def _check_signers(self, state: SignedState) -> None:
        trusted = state.root.roles["snapshot"].keyids
        if not any(signer.public.key_id in trusted for signer in self._signers):
            named = ", ".join(signer.public.name for signer in self._signers)
            raise RefusedError(
                f"Publishing refused: the key of {named} is not the releaser's. Run it on the machine that has that "
                "key; `liftgate keys show` says whose it is."
            )

    def _with_pending(self, state: SignedState) -> SignedState:
        """Return the state with the next targets and releases that no snapshot lists yet, or `state` itself."""
        name = f"{state.targets.version + 1}.targets.json"
        data = read_if_there(self._registry, name)
        pending = state
        if data is not None:
            targets = next_list(state.root, data, role="targets", name=name)
            pending = pending.with_targets(self._registry, state.root, targets, data)
        pending = with_pending_emergencies(self._registry, pending)
        name = f"{state.releases.version + 1}.{RELEASES}.json"
        data = read_if_there(self._registry, name)
        if data is not None:
            releases = next_list(pending.targets, data, role=RELEASES, name=name)
            return replace(pending, releases=releases, releases_file=data)
        if pending.targets is not state.targets:
            # Approvers may have named another releaser, who must sign the releases anew first.
            name = f"{state.releases.version}.{RELEASES}.json"
            verify(pending.targets, state.releases_file, role=RELEASES, name=name, kind=Targets)
        return pending

    def _renew_releases(self, state: SignedState, *, now: datetime) -> SignedState:
        try:
            self._create_releases(state, state.releases.targets, now=now)
        except AlreadyExistsError:
            self.complete(now=now)
            return self.state()
        return self._with_pending(state)

    def _create_releases(self, state: SignedState, listed: Mapping[str, object], *, now: datetime) -> None:
        number = state.releases.version + 1
        document = releases_document(listed, number=number, expires=now + self._expiries.releases)  # type: ignore[arg-type]
        data = sign(document, self._signers)
        verify(state.targets, data, role=RELEASES, name=f"the new {number}.{RELEASES}.json", kind=Targets)
        self._registry.create_metadata(RELEASES, number, data)

    def _write_timestamp(self, state: SignedState, *, now: datetime) -> None:
        document = timestamp_document(
            state.snapshot_file, number=state.snapshot.version, expires=now + self._expiries.timestamp
        )
        data = sign(document, self._signers)
        verify(state.root, data, role="timestamp", name="the new timestamp.json", kind=Timestamp)
        self._registry.replace_timestamp(data)


def _differences(before: SignedState, after: SignedState) -> list[str]:
    return [path.removesuffix(".json") for path in sorted(_paths(after) - _paths(before), key=_in_order)]


def _paths(state: SignedState) -> set[str]:
    emergencies = {} if state.emergencies is None else state.emergencies.document.targets
    return {*state.targets.targets, *emergencies, *state.releases.targets}


def _in_order(path: str) -> tuple[bool, str]:
    return path.startswith("releases/"), path
