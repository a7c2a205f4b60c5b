"""Corrections that people gave, each with its place in the outbox to the bucket.

Its place in the flow: a correction is acknowledged to the person only after `add` returned, when it
is on disk together with its outbox entry and, with consent, the photo. outbox.py sends from here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import NotFoundError, RefusedError
from artifact_sync.records import FeedbackRecord, Receipt
from web.database import Database
from web.tables import CORRECTIONS, KEPT_PHOTOS, OUTBOX, RECEIPTS


@dataclass(frozen=True)
class Correction:
    """What a person says: the answer with this request id should have been `label`."""

    request_id: str
    label: str
    is_photo_given: bool
    idempotency_key: str | None = None


@dataclass(frozen=True)
class OutboxEntry:
    """A correction that is not in the bucket yet, with the photo that goes with it."""

    feedback: FeedbackRecord
    photo: bytes | None
    attempts: int


class CorrectionStore:
    """Corrections and the outbox, in one database so that one transaction holds both."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, correction: Correction, *, now: datetime) -> FeedbackRecord:
        """Save a correction durably; a repeated idempotency key returns the first one's record.

        The record names no photo when consent was not given or the photo's time was over.

        Raises:
            NotFoundError: there is no such answer.
            RefusedError: the key was used for another correction.
            StoreError: the database cannot be used.
        """
        try:
            with self._database.writing() as connection:
                return self._find_repeated(connection, correction) or self._insert(connection, correction, now)
        except IntegrityError:
            # Another thread saved the same key between our look and our insert.
            with self._database.reading() as connection:
                first = self._find_repeated(connection, correction)
            if first is None:
                raise
            return first

    def due(self, *, now: datetime, limit: int) -> tuple[OutboxEntry, ...]:
        """Return corrections to send now, oldest first."""
        query = (
            select(CORRECTIONS.c.record, OUTBOX.c.photo, OUTBOX.c.attempts)
            .join_from(OUTBOX, CORRECTIONS)
            .where(OUTBOX.c.sent_at.is_(None), OUTBOX.c.due_at <= _epoch(now))
            .order_by(CORRECTIONS.c.created_at, CORRECTIONS.c.feedback_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return tuple(
                OutboxEntry(FeedbackRecord.from_json(row.record), photo=row.photo, attempts=row.attempts)
                for row in connection.execute(query)
            )

    def mark_sent(self, feedback_id: str, *, now: datetime) -> None:
        """Note that the bucket has it; the photo is deleted here."""
        self._update(feedback_id, sent_at=_epoch(now), photo=None)

    def mark_failed(self, feedback_id: str, *, attempts: int, due_at: datetime) -> None:
        """Note a failed attempt and when to try again."""
        self._update(feedback_id, attempts=attempts, due_at=_epoch(due_at))

    def waiting_count(self) -> int:
        """Return how many corrections are not in the bucket yet."""
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).where(OUTBOX.c.sent_at.is_(None))).scalar_one()

    def _update(self, feedback_id: str, **values: object) -> None:
        with self._database.writing() as connection:
            connection.execute(update(OUTBOX).where(OUTBOX.c.feedback_id == feedback_id).values(**values))

    def _find_repeated(self, connection: Connection, correction: Correction) -> FeedbackRecord | None:
        if correction.idempotency_key is None:
            return None
        query = select(CORRECTIONS.c.record).where(CORRECTIONS.c.idempotency_key == correction.idempotency_key)
        record = connection.execute(query).scalar()
        if record is None:
            return None
        first = FeedbackRecord.from_json(record)
        if (first.request_id, first.corrected_label) != (correction.request_id, correction.label):
            raise RefusedError(
                "Not saved: this Idempotency-Key came with another correction before. Use a new key for a new one."
            )
        return first

    def _insert(self, connection: Connection, correction: Correction, now: datetime) -> FeedbackRecord:
        photo = self._kept_photo(connection, correction, now)
        feedback = self._feedback(connection, correction, photo, now)
        connection.execute(
            insert(CORRECTIONS).values(
                feedback_id=feedback.feedback_id,
                request_id=correction.request_id,
                idempotency_key=correction.idempotency_key,
                record=feedback.to_json(),
                created_at=_epoch(now),
            )
        )
        connection.execute(
            insert(OUTBOX).values(feedback_id=feedback.feedback_id, photo=photo, attempts=0, due_at=_epoch(now))
        )
        return feedback

    def _kept_photo(self, connection: Connection, correction: Correction, now: datetime) -> bytes | None:
        if not correction.is_photo_given:
            return None
        query = select(KEPT_PHOTOS.c.photo).where(
            KEPT_PHOTOS.c.request_id == correction.request_id, KEPT_PHOTOS.c.expires_at > _epoch(now)
        )
        return connection.execute(query).scalar()

    def _feedback(
        self, connection: Connection, correction: Correction, photo: bytes | None, now: datetime
    ) -> FeedbackRecord:
        record = connection.execute(
            select(RECEIPTS.c.record).where(RECEIPTS.c.request_id == correction.request_id)
        ).scalar()
        if record is None:
            raise NotFoundError("There is no answer with this request id here. Look whether the id is complete.")
        receipt = Receipt.from_json(record)
        return FeedbackRecord(
            feedback_id=secrets.token_hex(16),
            request_id=receipt.request_id,
            model=receipt.model,
            version=receipt.version,
            predicted_label=receipt.top[0].label,
            corrected_label=correction.label,
            photo_sha256=None if photo is None else sha256_hex(photo),
            given_at=now,
        )


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())
