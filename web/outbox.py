"""Sends corrections to the bucket, each at least once and, being named by id, to the same effect as once.

Its place in the flow: a thread of the front end's process runs it. It may be killed between any two
steps: what is not marked as sent is sent again, and writing it again changes nothing.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from artifact_sync.clock import Clock
from artifact_sync.errors import LiftgateError, StoreError
from artifact_sync.registry import Registry
from web.corrections import CorrectionStore, OutboxEntry
from web.receipts import ReceiptStore

_LOG = logging.getLogger("liftgate.web.outbox")
_BATCH = 20
_FIRST_RETRY_SECONDS = 2
_LONGEST_RETRY_SECONDS = 300


@dataclass(frozen=True)
class DeliveryReport:
    """What one delivery did: corrections that the bucket has now, and those that it would not take."""

    sent: int
    failed: int


def deliver_outbox(corrections: CorrectionStore, registry: Registry, *, now: datetime) -> DeliveryReport:
    """Send what is due and return what happened; a bucket that is away ends it early.

    Raises:
        StoreError: the front end's own database cannot be used.
    """
    sent = failed = 0
    while entries := corrections.due(now=now, limit=_BATCH):
        for entry in entries:
            try:
                registry.write_feedback(entry.feedback, photo=entry.photo)
            except LiftgateError as error:
                failed += 1
                _postpone(corrections, entry, error, now=now)
                if isinstance(error, StoreError):
                    return DeliveryReport(sent=sent, failed=failed)
            else:
                corrections.mark_sent(entry.feedback.feedback_id, now=now)
                sent += 1
    return DeliveryReport(sent=sent, failed=failed)


def _postpone(corrections: CorrectionStore, entry: OutboxEntry, error: LiftgateError, *, now: datetime) -> None:
    seconds = min(_FIRST_RETRY_SECONDS * 2 ** min(entry.attempts, 20), _LONGEST_RETRY_SECONDS)
    corrections.mark_failed(
        entry.feedback.feedback_id, attempts=entry.attempts + 1, due_at=now + timedelta(seconds=seconds)
    )
    _LOG.warning(
        "a correction waits for the bucket",
        extra={"feedback_id": entry.feedback.feedback_id, "attempts": entry.attempts + 1, "why": str(error)},
    )


class OutboxCourier:
    """A thread that delivers the outbox and deletes photos whose time is over; use it as a context manager."""

    def __init__(
        self,
        corrections: CorrectionStore,
        receipts: ReceiptStore,
        registry: Registry,
        *,
        clock: Clock,
        poll_seconds: float = 2.0,
    ) -> None:
        self._corrections = corrections
        self._receipts = receipts
        self._registry = registry
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._receipts.purge_photos(now=self._clock.now())
                deliver_outbox(self._corrections, self._registry, now=self._clock.now())
            except LiftgateError as error:
                _LOG.warning("the outbox cannot be worked on now", extra={"why": str(error)})
            if self._stopping.wait(self._poll_seconds):
                return
