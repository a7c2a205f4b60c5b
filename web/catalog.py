"""Which versions are served, with their labels and input contracts, as the signed releases say.

Its place in the flow: classification asks it before a photo is decoded and again for the version
that really answered. It keeps the last good state: an unreachable bucket stops no answers.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from artifact_sync.errors import LiftgateError, NotFoundError, StoreError
from artifact_sync.records import InputContract, ReleaseRecord, TrafficShare, VersionRecord
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.view import TrustedView
from serving.traffic.routing import TrafficSplit
from web.known_versions import KnownVersions

_LOG = logging.getLogger("liftgate.web.catalog")


@dataclass(frozen=True)
class ModelCard:
    """What the front end must know of a version: its number, its labels in order, what it takes."""

    version: int
    labels: tuple[str, ...]
    contract: InputContract


class ModelCatalog(Protocol):
    """Where model cards come from; safe to call from several threads."""

    def split(self) -> TrafficSplit:
        """Return what the newest release that is known wants people to be answered by.

        Raises:
            LiftgateError: none is known yet; the error says why.
        """
        ...

    def card(self, version: int) -> ModelCard:
        """Return a version's card, looking at the releases anew when it is not known.

        Raises:
            LiftgateError: there is no such approved version, or it cannot be learned now.
        """
        ...


class TrustedModelCatalog:
    """A catalogue over the signed metadata; as a context manager it refreshes itself in the background.

    Args:
        reader: reads and verifies the signed metadata.
        known: where versions are remembered over a restart; without it a restart needs the bucket.
        refresh_seconds: the pause between two looks.
    """

    def __init__(
        self, reader: TrustedReader, *, known: KnownVersions | None = None, refresh_seconds: float = 15.0
    ) -> None:
        self._reader = reader
        self._known = known
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._cards: dict[int, ModelCard] = {}
        self._split: TrafficSplit | None = None
        self._release: ReleaseRecord | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._keep_fresh, name="model-catalog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def split(self) -> TrafficSplit:
        """See ModelCatalog."""
        if self._split is not None:
            return self._split
        try:
            return self.refresh()
        except StoreError:
            remembered = self._remembered()
            if remembered is None:
                raise
            # Asking anew is the background's work: people should not wait for a bucket that is away.
            self._split = remembered
            return remembered

    def card(self, version: int) -> ModelCard:
        """See ModelCatalog."""
        if version in self._cards:
            return self._cards[version]
        remembered = None if self._known is None else self._known.get(version)
        if remembered is not None:
            return self._cards.setdefault(version, _card(remembered))
        with self._lock:
            return self._learn(self._reader.refresh().version(version))

    def refresh(self) -> TrafficSplit:
        """Look at the releases now and return what the newest one wants.

        A canary or shadow that cannot be learned is left out: it must not stop the stable version.

        Raises:
            LiftgateError: they cannot be read or believed, or there is none; what was known stays known.
        """
        with self._lock:
            view = self._reader.refresh()
            release = view.latest_release()
            if release is None:
                raise NotFoundError(f"Model {view.model} has no release yet. Promote one with `liftgate promote`.")
            if release.stable not in self._cards:
                self._learn(view.version(release.stable))
            split = TrafficSplit(
                release.stable,
                canary=self._learned(release.canary, view=view),
                shadow=self._learned(release.shadow, view=view),
            )
            if release != self._release and self._known is not None:
                self._known.save_release(release)
            self._release = release
            self._split = split
            return split

    def _learned(self, share: TrafficShare | None, *, view: TrustedView) -> TrafficShare | None:
        """Return a share once its version is known, None when there is none or it cannot be known now."""
        if share is None or share.version in self._cards:
            return share
        try:
            self._learn(view.version(share.version))
        except LiftgateError as error:
            _LOG.warning("a version cannot be learned, nobody is sent to it", extra={"why": str(error)})
            return None
        return share

    def _remembered(self) -> TrafficSplit | None:
        """Return what the database remembers of the newest release, None when it knows of none."""
        if self._known is None:
            return None
        release = self._known.release()
        if release is None:
            stable = self._known.current()
            return None if stable is None else TrafficSplit(stable.version)
        shares = [
            share if share is not None and self._known.get(share.version) is not None else None
            for share in (release.canary, release.shadow)
        ]
        return TrafficSplit(release.stable, canary=shares[0], shadow=shares[1])

    def _learn(self, record: VersionRecord) -> ModelCard:
        if self._known is not None:
            self._known.save(record)
        return self._cards.setdefault(record.version, _card(record))

    def _keep_fresh(self) -> None:
        while True:
            try:
                self.refresh()
            except LiftgateError as error:
                _LOG.warning("the releases cannot be read, the last good state is kept", extra={"why": str(error)})
            if self._stopping.wait(self._refresh_seconds):
                return


def _card(record: VersionRecord) -> ModelCard:
    return ModelCard(version=record.version, labels=record.labels, contract=record.input_contract)
