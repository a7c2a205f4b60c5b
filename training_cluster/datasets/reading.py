"""Reads each photo once: its digest, its pixels by the photo contract, their digest and look.

Its place in the flow: the second stage of dataset build. Files are read ahead in threads, decoded in
killable children, hashed in threads again; every few seconds what is done is made to last, so a
build that was killed decodes at most these few seconds' photos twice.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import InputError, NotFoundError, PhotoError
from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.perceptual_hash import perceptual_hash
from training_cluster.datasets.build_progress import Meter, Progress
from training_cluster.datasets.ordered_threads import in_order
from training_cluster.datasets.photo_index import in_pages
from training_cluster.datasets.pixel_parts import PixelParts
from training_cluster.datasets.stored_photos import PhotoStores, read_photo

_COMMIT_SECONDS = 5.0
_READERS = 16
_HASHERS = 4
_DONE = "SELECT 1 FROM file WHERE file.place = listed.place"
_DECODED = "SELECT 1 FROM file JOIN decoded USING (sha256) WHERE file.place = listed.place"


@dataclass(frozen=True)
class Reader:
    """How photos are read and decoded.

    Attributes:
        contract: the shape that the pixels get.
        stores: the buckets.
        workers: decoding processes.
    """

    contract: InputContract
    stores: PhotoStores
    workers: int


class _File(NamedTuple):
    place: str
    version: str
    sha256: bytes
    data: bytes
    fault: str


class _Looked(NamedTuple):
    sha256: bytes
    pixels: bytes
    pixel_sha256: bytes
    look: bytes


def photo_count(index: sqlite3.Connection) -> int:
    """Return how many photos the lists name."""
    return int(index.execute("SELECT COUNT(DISTINCT place) FROM listed WHERE fault IS NULL").fetchone()[0])


def pending_count(index: sqlite3.Connection, *, condition: str = _DECODED) -> int:
    """Return how many photos are still to be decoded."""
    query = f"SELECT COUNT(DISTINCT place) FROM listed WHERE fault IS NULL AND NOT EXISTS ({condition})"  # noqa: S608
    return int(index.execute(query).fetchone()[0])


def read_digests(index: sqlite3.Connection, reader: Reader, *, progress: Progress | None) -> None:
    """Take the digest of each listed photo that has none yet."""
    with closing(_files(index, reader, condition=_DONE)) as files:
        total = photo_count(index)
        meter = Meter(progress, "reading", total=total, done=total - pending_count(index, condition=_DONE))
        for file in files:
            _note_file(index, file)
            meter.add()
        index.commit()
        meter.finish()


def read_photos(
    index: sqlite3.Connection, parts: PixelParts, reader: Reader, *, pending: int, progress: Progress | None
) -> None:
    """Decode each listed photo that is not decoded yet; `pending` says how many these are.

    Raises:
        StoreError: a bucket cannot be reached.
        CapacityError: no process can be started.
    """
    total = photo_count(index)
    meter = Meter(progress, "reading", total=total, done=total - pending)
    stage = _Decoding(index, reader, meter)
    committed = time.monotonic()
    try:
        with DecodePool(workers=reader.workers) as pool, closing(stage.looked(pool)) as looked:
            for photo in looked:
                part, slot = parts.append(photo.pixels, sha256=photo.sha256)
                row = (photo.sha256, photo.pixel_sha256, photo.look, part, slot)
                index.execute("INSERT OR REPLACE INTO decoded VALUES (?, ?, ?, ?, ?)", row)
                if time.monotonic() - committed >= _COMMIT_SECONDS:
                    _commit(index, parts)
                    committed = time.monotonic()
    finally:
        # After an interruption too: what was decoded is whole.
        _commit(index, parts)
    meter.finish()


class _Decoding:
    """Photos on their way from files to pixels."""

    def __init__(self, index: sqlite3.Connection, reader: Reader, meter: Meter) -> None:
        self._index, self._reader, self._meter = index, reader, meter
        self._under_way: set[bytes] = set()

    def looked(self, pool: DecodePool) -> Generator[_Looked, None, None]:
        """Yield the new photos that can be decoded, in the order in which they were found."""
        with closing(self._decoded(pool)) as decoded:
            for photo in in_order(_look, decoded, threads=_HASHERS, ahead=4 * _HASHERS):
                yield photo
                self._under_way.discard(photo.sha256)

    def _decoded(self, pool: DecodePool) -> Generator[tuple[bytes, NDArray[np.uint8]], None, None]:
        waiting: deque[bytes] = deque()
        with closing(self._new(waiting)) as new:
            for answer in pool.decode_many(new, self._reader.contract):
                sha256 = waiting.popleft()
                self._meter.add()
                if isinstance(answer, PhotoError):
                    self._under_way.discard(sha256)
                    self._index.execute("INSERT OR REPLACE INTO undecodable VALUES (?, ?)", (sha256, str(answer)))
                else:
                    yield sha256, answer

    def _new(self, waiting: deque[bytes]) -> Generator[bytes, None, None]:
        """Yield the bytes of photos that are decoded nowhere, and put their digests into `waiting`."""
        with closing(_files(self._index, self._reader, condition=_DECODED)) as files:
            for file in files:
                _note_file(self._index, file)
                if file.fault or file.sha256 in self._under_way or self._is_known(file.sha256):
                    self._meter.add()
                    continue
                self._under_way.add(file.sha256)
                waiting.append(file.sha256)
                yield file.data

    def _is_known(self, sha256: bytes) -> bool:
        query = "SELECT 1 FROM decoded WHERE sha256 = ?1 UNION ALL SELECT 1 FROM undecodable WHERE sha256 = ?1"
        return self._index.execute(query, (sha256,)).fetchone() is not None


def _files(index: sqlite3.Connection, reader: Reader, *, condition: str) -> Generator[_File, None, None]:
    """Yield each place once that does not fulfil the condition, read ahead in threads."""
    query = (
        "SELECT place, MAX(version) FROM listed WHERE place > ? AND fault IS NULL "  # noqa: S608
        f"AND NOT EXISTS ({condition}) GROUP BY place ORDER BY place LIMIT ?"
    )

    def read(row: tuple[object, ...]) -> _File:
        place, version = str(row[0]), str(row[1])
        try:
            data = read_photo(place, reader.stores)
        except OSError as error:
            return _File(place, version, b"", b"", f"{place} cannot be read: {error.strerror}")
        except (NotFoundError, InputError) as error:
            return _File(place, version, b"", b"", str(error))
        return _File(place, version, bytes.fromhex(sha256_hex(data)), data, "")

    return in_order(read, in_pages(index, query, start=""), threads=_READERS, ahead=2 * _READERS)


def _note_file(index: sqlite3.Connection, file: _File) -> None:
    if file.fault:
        index.execute("INSERT OR REPLACE INTO unreadable VALUES (?, ?)", (file.place, file.fault))
    else:
        index.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?)", (file.place, file.version, file.sha256))


def _look(decoded: tuple[bytes, NDArray[np.uint8]]) -> _Looked:
    sha256, array = decoded
    pixels = array.tobytes()
    return _Looked(sha256, pixels, bytes.fromhex(sha256_hex(pixels)), perceptual_hash(array))


def _commit(index: sqlite3.Connection, parts: PixelParts) -> None:
    parts.sync()
    index.executemany("INSERT OR REPLACE INTO part VALUES (?, ?)", list(enumerate(parts.slots)))
    index.commit()
