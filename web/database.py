"""The front end's database, opened so that what is committed is on disk.

Its place in the flow: receipts.py and corrections.py read and write it. SQLite by default (WAL,
synchronous=FULL, deleted content overwritten); any URL of SQLAlchemy works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url, select, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from artifact_sync.errors import SettingsError, StoreError
from web.tables import KNOWN_RELEASE, METADATA, SCHEMA


def _add_known_release(connection: Connection) -> None:
    # A new database has it already, from the tables of today.
    KNOWN_RELEASE.create(connection, checkfirst=True)


_MIGRATIONS: tuple[Callable[[Connection], None], ...] = (METADATA.create_all, _add_known_release)
"""Migration n brings version n to n + 1; each is done once, whole or not at all."""

_READ_ONLY = {"liftgate_read_only": True}


class Database:
    """An opened database; safe to use from several threads.

    Args:
        engine: SQLAlchemy's engine, as `open_database` makes it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a transaction that is durable when the block ends.

        Raises:
            StoreError: the database cannot be used.
        """
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a transaction that only reads.

        Raises:
            StoreError: the database cannot be used.
        """
        with _translated(), self.engine.connect().execution_options(**_READ_ONLY) as connection:
            yield connection

    def check_writable(self) -> None:
        """Write a row, durably.

        Raises:
            StoreError: it cannot be written.
        """
        with self.writing() as connection:
            connection.execute(update(SCHEMA).values(probes=SCHEMA.c.probes + 1))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Open a database, creating or migrating its tables.

    Raises:
        SettingsError: the URL is not one, or a newer release of Liftgate wrote the database.
        StoreError: it cannot be used.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, pool_size=16, max_overflow=32)
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"Database URL refused: {error}. Use sqlite:////absolute/path or postgresql://….") from None
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    database = Database(engine)
    _migrate(database)
    return database


def _migrate(database: Database) -> None:
    with database.writing() as connection:
        SCHEMA.create(connection, checkfirst=True)
        version = connection.execute(select(SCHEMA.c.version)).scalar()
        if version is None:
            connection.execute(insert(SCHEMA).values(id=1, version=0, probes=0))
            version = 0
        if version > len(_MIGRATIONS):
            raise SettingsError(
                f"The front end's database is of version {version}, this Liftgate knows up to {len(_MIGRATIONS)}. "
                "Upgrade Liftgate on this machine."
            )
        for migration in _MIGRATIONS[version:]:
            migration(connection)
        connection.execute(update(SCHEMA).values(version=len(_MIGRATIONS)))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling begins too late for a safe read-then-write; ours is below.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=20000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    is_read_only = "liftgate_read_only" in connection.get_execution_options()
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        # A key that is taken is an answer, not a failure; the caller knows what it means.
        raise
    except DBAPIError as error:
        raise StoreError(
            f"The front end's database cannot be used now: {error.orig}. Look at its disk, rights and server."
        ) from error
