"""Which model is served, with its labels and input contract, as the signed releases say.

Its place in the flow: classification asks it before a photo is decoded and again for the version
that really answered. It keeps the last good state: an unreachable bucket stops no answers.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from artifact_sync.errors import LiftgateError, NotFoundError
from artifact_sync.records import InputContract, VersionRecord
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.view import TrustedView

_LOG = logging.getLogger("liftgate.web.catalog")


@dataclass(frozen=True)
class ModelCard:
    """What the front end must know of a version: its number, its labels in order, what it takes."""

    version: int
    labels: tuple[str, ...]
    contract: InputContract


class ModelCatalog(Protocol):
    """Where model cards come from; safe to call from several threads."""

    def current(self) -> ModelCard:
        """Return the stable version of the newest release that is known.

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
        refresh_seconds: the pause between two looks.
    """

    def __init__(self, reader: TrustedReader, *, refresh_seconds: float = 15.0) -> None:
        self._reader = reader
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._cards: dict[int, ModelCard] = {}
        self._current: ModelCard | None = None
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

    def current(self) -> ModelCard:
        """See ModelCatalog."""
        return self._current or self.refresh()

    def card(self, version: int) -> ModelCard:
        """See ModelCatalog."""
        known = self._cards.get(version)
        if known is not None:
            return known
        with self._lock:
            return self._remember(self._reader.refresh().version(version))

    def refresh(self) -> ModelCard:
        """Look at the releases now and return the stable version's card.

        Raises:
            LiftgateError: they cannot be read or believed, or there is none; what was known stays known.
        """
        with self._lock:
            view = self._reader.refresh()
            self._current = self._stable_card(view)
            return self._current

    def _stable_card(self, view: TrustedView) -> ModelCard:
        release = view.latest_release()
        if release is None:
            raise NotFoundError(f"Model {view.model} has no release yet. Promote one with `liftgate promote`.")
        known = self._cards.get(release.stable)
        return known if known is not None else self._remember(view.version(release.stable))

    def _remember(self, record: VersionRecord) -> ModelCard:
        card = ModelCard(version=record.version, labels=record.labels, contract=record.input_contract)
        self._cards[card.version] = card
        return card

    def _keep_fresh(self) -> None:
        while True:
            try:
                self.refresh()
            except LiftgateError as error:
                _LOG.warning("the releases cannot be read, the last good state is kept", extra={"why": str(error)})
            if self._stopping.wait(self._refresh_seconds):
                return
