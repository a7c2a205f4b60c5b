"""Reading what is to be believed: the bucket's state, checked from the trusted root down.

Its place in the flow: the agent, approval, promotion, status and history all look at the bucket
through a `TrustedView`; nothing else decides what is true.
"""

from __future__ import annotations

from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from artifact_sync.errors import StoreError, TrustError
from artifact_sync.registry import Registry
from artifact_sync.trust.checking import parse
from artifact_sync.trust.fetcher import METADATA_URL, RegistryFetcher
from artifact_sync.trust.local_metadata import exclusive, make_durable, seen_snapshot_number
from artifact_sync.trust.refusals import refusal
from artifact_sync.trust.roles import RELEASES, Roles
from artifact_sync.trust.signing import SignedT
from artifact_sync.trust.view import TrustedView


class TrustedReader:
    """Reads one model's signed state; several processes may share its directory.

    Args:
        registry: the model's part of the bucket; nothing in it is believed by itself.
        metadata_dir: where this machine remembers what it has seen, in a folder for each model.
        root: the trusted root's bytes, handed over when the machine was set up and never from the bucket.
    """

    def __init__(self, registry: Registry, *, metadata_dir: Path, root: bytes) -> None:
        self.registry = registry
        self.root = root
        self._directory = metadata_dir / registry.model

    def refresh(self) -> TrustedView:
        """Return the bucket's newest state.

        Raises:
            ExpiredError: it is signed, but too old to be believed.
            TrustError: it is not signed as it must be, older than what was seen, or inconsistent.
            StoreError: the bucket cannot be reached, or the local directory cannot be written.
        """
        try:
            with exclusive(self._directory):
                view = self._refresh()
                make_durable(self._directory)
                return view
        except OSError as error:
            raise StoreError(f"Cannot keep the signed metadata in {self._directory}: {error}.") from None

    def seen_snapshot_number(self) -> int:
        """Return the number of the newest snapshot that this machine has believed, 0 when it has none."""
        return seen_snapshot_number(self._directory)

    def _refresh(self) -> TrustedView:
        fetcher = RegistryFetcher(self.registry)
        try:
            updater = self._updater(fetcher)
            updater.refresh()
            # Asking for any path of theirs makes the client load and check the releaser's list.
            updater.get_targetinfo(f"{RELEASES}/-")
            emergencies = self._emergencies_role()
            if emergencies is not None:
                updater.get_targetinfo("versions/9-----.json")
        except (RepositoryError, DownloadError) as error:
            raise refusal(error, file_name=fetcher.file_name or "the trusted root") from None
        return TrustedView(
            self.registry,
            root=self._document("root", Root),
            targets=self._document("targets", Targets),
            releases=self._document(RELEASES, Targets),
            emergencies=None if emergencies is None else self._document(emergencies, Targets),
            timestamp=self._document("timestamp", Timestamp),
        )

    def _emergencies_role(self) -> str | None:
        """Return the break-glass role where the glass was ever broken with its present key."""
        role = Roles.of(self._document("root", Root), self._document("targets", Targets)).break_glass_role
        return role if f"{role}.json" in self._document("snapshot", Snapshot).meta else None

    def _updater(self, fetcher: RegistryFetcher) -> Updater:
        if not self.root:
            raise TrustError("The trusted root is empty. Hand this machine metadata/1.root.json once more.")
        return Updater(
            str(self._directory),
            METADATA_URL,
            fetcher=fetcher,
            config=UpdaterConfig(prefix_targets_with_hash=False),
            bootstrap=self.root,
        )

    def _document(self, role: str, kind: type[SignedT]) -> SignedT:
        # What the client has just checked and kept; nobody else writes while the lock is held.
        return parse((self._directory / f"{role}.json").read_bytes(), name=f"{role}.json", kind=kind).signed
