"""Receipts of answers, and for a short while the photo that an answer was about.

Its place in the flow: classification saves a receipt before the answer is shown; the result page,
the API and corrections look it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from artifact_sync.errors import NotFoundError, RefusedError
from artifact_sync.records import Receipt
from web.database import Database
from web.tables import KEPT_PHOTOS, RECEIPTS


@dataclass(frozen=True)
class KeptPhoto:
    """A photo without metadata, and until when it may be given with a correction."""

    data: bytes
    expires_at: datetime


class ReceiptStore:
    """Receipts in the database; a repeated idempotency key finds the first receipt again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, receipt: Receipt, *, idempotency_key: str | None, photo: KeptPhoto | None) -> Receipt:
        """Save a receipt durably and return it, or the one that the same key saved first.

        Raises:
            RefusedError: the key was used for another photo.
            StoreError: the database cannot be used.
        """
        try:
            with self._database.writing() as connection:
                connection.execute(
                    insert(RECEIPTS).values(
                        request_id=receipt.request_id,
                        idempotency_key=idempotency_key,
                        photo_sha256=receipt.photo_sha256,
                        record=receipt.to_json(),
                        created_at=_epoch(receipt.at),
                    )
                )
                if photo is not None:
                    connection.execute(
                        insert(KEPT_PHOTOS).values(
                            request_id=receipt.request_id, photo=photo.data, expires_at=_epoch(photo.expires_at)
                        )
                    )
        except IntegrityError:
            first = self.find_repeated(idempotency_key, photo_sha256=receipt.photo_sha256)
            if first is None:
                raise
            return first
        return receipt

    def find_repeated(self, idempotency_key: str | None, *, photo_sha256: str) -> Receipt | None:
        """Return the receipt that an idempotency key saved, None when it is new.

        Raises:
            RefusedError: the key was used for another photo.
            StoreError: the database cannot be used.
        """
        if idempotency_key is None:
            return None
        with self._database.reading() as connection:
            row = connection.execute(
                select(RECEIPTS.c.record, RECEIPTS.c.photo_sha256).where(RECEIPTS.c.idempotency_key == idempotency_key)
            ).first()
        if row is None:
            return None
        if row.photo_sha256 != photo_sha256:
            raise RefusedError(
                "Not done: this Idempotency-Key came with another photo before. Use a new key for a new photo."
            )
        return Receipt.from_json(row.record)

    def get(self, request_id: str) -> Receipt:
        """Return a receipt.

        Raises:
            NotFoundError: there is none.
            StoreError: the database cannot be used.
        """
        with self._database.reading() as connection:
            record = connection.execute(select(RECEIPTS.c.record).where(RECEIPTS.c.request_id == request_id)).scalar()
        if record is None:
            raise NotFoundError("There is no answer with this request id here. Look whether the id is complete.")
        return Receipt.from_json(record)

    def is_photo_kept(self, request_id: str, *, now: datetime) -> bool:
        """Return whether the answer's photo can still be given with a correction."""
        with self._database.reading() as connection:
            query = select(KEPT_PHOTOS.c.request_id).where(
                KEPT_PHOTOS.c.request_id == request_id, KEPT_PHOTOS.c.expires_at > _epoch(now)
            )
            return connection.execute(query).first() is not None

    def purge_photos(self, *, now: datetime) -> int:
        """Delete the photos whose time is over and return how many there were."""
        with self._database.writing() as connection:
            return connection.execute(delete(KEPT_PHOTOS).where(KEPT_PHOTOS.c.expires_at <= _epoch(now))).rowcount


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())
