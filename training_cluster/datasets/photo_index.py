"""What a build in progress knows, on disk: which photos were listed, read, decoded, accepted and written.

Its place in the flow: each stage of dataset build reads what the one before wrote here and adds its
own, so that a build of a million photos holds few bytes a photo in memory, and one that was killed
goes on where it stopped. The file is SQLite's and lies in the building folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from artifact_sync.errors import IntegrityError

_VERSION = 1
_CACHE_KIBIBYTES = 8 * 1024
_SCHEMA = """
-- settings of this build that outlive a stage
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
-- one row for each entry of a list of photos; made anew by each build
CREATE TABLE listed (
    id INTEGER PRIMARY KEY, list TEXT, source TEXT, place TEXT, version TEXT, label TEXT, slices TEXT, origin TEXT,
    annotator TEXT, fault TEXT
);
CREATE INDEX listed_place ON listed (place);
-- the digest of each file that was read
CREATE TABLE file (place TEXT PRIMARY KEY, version TEXT NOT NULL, sha256 BLOB NOT NULL) WITHOUT ROWID;
-- files that could not be read, photos that could not be decoded; both are tried again by each build
CREATE TABLE unreadable (place TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE undecodable (sha256 BLOB PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
-- where the pixels of each photo are, what their digest is, and how they look
CREATE TABLE decoded (
    sha256 BLOB PRIMARY KEY, pixel_sha256 BLOB NOT NULL, look BLOB NOT NULL, part INTEGER NOT NULL,
    slot INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE part (number INTEGER PRIMARY KEY, slots INTEGER NOT NULL);
-- the account: rejects, excluded, duplicates, near duplicates
CREATE TABLE left_out (kind TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL);
-- photos left after the files were compared, then after their pixels were; `kept` names the example of the same pixels
CREATE TABLE candidate (sha256 BLOB PRIMARY KEY, listed INTEGER NOT NULL, kept BLOB) WITHOUT ROWID;
-- the examples, numbered from 1 in the order of their digests, and the order in which they are written
CREATE TABLE example (number INTEGER PRIMARY KEY, sha256 BLOB NOT NULL, listed INTEGER NOT NULL);
CREATE UNIQUE INDEX example_sha256 ON example (sha256);
CREATE TABLE placed (
    position INTEGER PRIMARY KEY, example INTEGER NOT NULL, first INTEGER NOT NULL, starts_group INTEGER NOT NULL
);
CREATE TABLE held_out (example INTEGER PRIMARY KEY);
-- shards that are finished
CREATE TABLE shard (
    number INTEGER PRIMARY KEY, path TEXT NOT NULL, size_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    count INTEGER NOT NULL, blocks BLOB NOT NULL
);
"""


def open_index(path: Path) -> sqlite3.Connection:
    """Return the index in `path`, made when it is missing; the caller closes it.

    Raises:
        IntegrityError: the file is no such index.
    """
    try:
        connection = sqlite3.connect(path)
        # Nobody else opens it, and so it needs no shared memory, which a network disk does not have.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}")
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            f"Dataset refused: what an earlier build left in {path.parent} cannot be used ({error}). "
            "Remove that folder and build again."
        ) from None
    return connection


def get_setting(index: sqlite3.Connection, name: str) -> str | None:
    """Return what an earlier stage or build noted under `name`."""
    row = index.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def put_setting(index: sqlite3.Connection, name: str, value: str) -> None:
    """Note `value` under `name`."""
    index.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))


def clear(index: sqlite3.Connection, *tables: str) -> None:
    """Remove all rows of the tables."""
    for table in tables:
        index.execute(f"DELETE FROM {table}")  # noqa: S608


def in_pages(
    index: sqlite3.Connection, query: str, *, start: int | str, size: int = 1000
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a query that is ordered by its first column, read by `WHERE column > ? … LIMIT ?`.

    Between two pages the tables may be written to, and the log of writes is never held back by an open query.
    """
    while rows := index.execute(query, (start, size)).fetchall():
        yield from rows
        start = rows[-1][0]
