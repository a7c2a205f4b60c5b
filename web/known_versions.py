"""The versions and the newest release that the front end has learned, kept for a start while the bucket is away.

Its place in the flow: catalog.py saves a version here once its signatures were checked, and reads
them back when the releases cannot be read. The database is as trusted as this program is.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, insert, select, update

from artifact_sync.records import ReleaseRecord, VersionRecord
from web.database import Database
from web.tables import KNOWN_RELEASE, KNOWN_VERSIONS


class KnownVersions:
    """Version records in the database; at most one of them is the current one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, record: VersionRecord) -> None:
        """Remember a version; it is fine when it is known, since versions never change.

        Raises:
            StoreError: the database cannot be used.
        """
        with self._database.writing() as connection:
            known = connection.execute(
                select(KNOWN_VERSIONS.c.version).where(KNOWN_VERSIONS.c.version == record.version)
            ).first()
            if known is None:
                connection.execute(
                    insert(KNOWN_VERSIONS).values(version=record.version, record=record.to_json(), is_current=False)
                )

    def save_release(self, release: ReleaseRecord) -> None:
        """Remember the newest release; its stable version must have been saved.

        Raises:
            StoreError: the database cannot be used.
        """
        with self._database.writing() as connection:
            connection.execute(update(KNOWN_VERSIONS).values(is_current=KNOWN_VERSIONS.c.version == release.stable))
            connection.execute(delete(KNOWN_RELEASE))
            connection.execute(insert(KNOWN_RELEASE).values(id=1, record=release.to_json()))

    def release(self) -> ReleaseRecord | None:
        """Return the newest release, None when none was saved."""
        with self._database.reading() as connection:
            record = connection.execute(select(KNOWN_RELEASE.c.record)).scalar()
        return None if record is None else ReleaseRecord.from_json(record)

    def current(self) -> VersionRecord | None:
        """Return the version that was the stable one, None when none is known.

        A database that an earlier Liftgate wrote remembers this and no release.
        """
        return self._find(KNOWN_VERSIONS.c.is_current)

    def get(self, version: int) -> VersionRecord | None:
        """Return a version, None when it is not known."""
        return self._find(KNOWN_VERSIONS.c.version == version)

    def _find(self, condition: ColumnElement[bool]) -> VersionRecord | None:
        with self._database.reading() as connection:
            record = connection.execute(select(KNOWN_VERSIONS.c.record).where(condition)).scalar()
        return None if record is None else VersionRecord.from_json(record)
