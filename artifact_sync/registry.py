"""One model's part of the bucket: the only module that knows how keys are spelled.

Its place in the flow: push, pull, trust, promotion, the agent and the front end all go through it.
It moves bytes and records; whether they are to be believed is decided by digests and by trust.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, RecordError
from artifact_sync.records import Acknowledgement, FeedbackRecord
from artifact_sync.store import ObjectStore, read_bytes

MAX_METADATA_BYTES = 64 * 1024 * 1024
_MAX_ACKNOWLEDGEMENT_BYTES = 1024 * 1024
_DECISION = "decision"
_LOG = logging.getLogger(__name__)
_NUMBERED_METADATA = re.compile(r"^(?P<number>[1-9][0-9]*)\.(?P<role>[a-z]+)\.json$")
_NUMBERED_ENTRY = re.compile(r"^(?P<number>[0-9]{6})\.(?P<kind>[a-z-]+)\.json$")


class Registry:
    """Keys of one model over an object store.

    Args:
        store: the bucket, or a directory that stands for it.
        model: the model's name, the first segment of every key.
    """

    def __init__(self, store: ObjectStore, *, model: str) -> None:
        self.store = store
        self.model = model

    # Blobs: every file of every version and every record, once, named by its own digest.

    def blob_key(self, sha256: str) -> str:
        """Return the key of a blob."""
        return f"{self.model}/blobs/sha256/{sha256}"

    def has_blob(self, sha256: str, *, size_bytes: int) -> bool:
        """Return whether a blob of that digest and size is in the bucket (its bytes are not read)."""
        key = self.blob_key(sha256)
        return any(info.key == key and info.size_bytes == size_bytes for info in self.store.list(key))

    def put_blob(self, body: bytes | Path, *, sha256: str) -> None:
        """Create a blob; it is fine when it exists, since equal digests mean equal bytes.

        Raises:
            IntegrityError: the body's digest is another, or what the bucket has under that digest
                is of another size; nothing was stored.
        """
        try:
            self.store.create(self.blob_key(sha256), body, sha256=sha256)
        except AlreadyExistsError:
            size_bytes = len(body) if isinstance(body, bytes) else body.stat().st_size
            if not self.has_blob(sha256, size_bytes=size_bytes):
                raise IntegrityError(
                    f"Blob {sha256} is damaged: the object {self.blob_key(sha256)} is not of {size_bytes} bytes. "
                    "Delete that object from the bucket and push again."
                ) from None

    def open_blob(self, sha256: str) -> BinaryIO:
        """Open a blob for reading; the reader checks the digest.

        Raises:
            NotFoundError: no such blob.
        """
        return self.store.open(self.blob_key(sha256))

    # Numbered records: readable copies for people and tools; what counts is what is signed.

    def version_key(self, version: int) -> str:
        """Return the key of a version record."""
        return f"{self.model}/versions/{version:06d}.json"

    def release_key(self, number: int) -> str:
        """Return the key of a release record."""
        return f"{self.model}/releases/{number:06d}.json"

    # Metadata of The Update Framework.

    def create_metadata(self, role: str, number: int, data: bytes) -> None:
        """Create `<number>.<role>.json`.

        Raises:
            AlreadyExistsError: another writer created that number.
        """
        self.store.create(f"{self.model}/metadata/{number}.{role}.json", data)

    def replace_timestamp(self, data: bytes) -> None:
        """Overwrite timestamp.json, the only object that is ever overwritten."""
        self.store.replace(f"{self.model}/metadata/timestamp.json", data)

    def open_metadata(self, name: str) -> BinaryIO:
        """Open a metadata file by its TUF name, such as "3.targets.json".

        Raises:
            NotFoundError: no such file.
        """
        return self.store.open(f"{self.model}/metadata/{name}")

    def read_metadata(self, name: str) -> bytes:
        """Return a metadata file by its TUF name.

        Raises:
            NotFoundError: no such file.
        """
        return read_bytes(self.store, f"{self.model}/metadata/{name}", max_bytes=MAX_METADATA_BYTES)

    def metadata_numbers(self, role: str) -> tuple[int, ...]:
        """Return the numbers of a role's metadata files, ascending; they are not verified."""
        prefix = f"{self.model}/metadata/"
        found = (_NUMBERED_METADATA.match(info.key.removeprefix(prefix)) for info in self.store.list(prefix))
        return tuple(sorted(int(match["number"]) for match in found if match and match["role"] == role))

    # Acknowledgements: what hosts say, appended and never overwritten.

    def write_acknowledgement(self, acknowledgement: Acknowledgement) -> None:
        """Append a host's acknowledgement of a release: `<host>.json`, then `<host>.2.json` and so on."""
        folder = f"{self.model}/acknowledgements/{acknowledgement.release:06d}"
        host = _plain_name(acknowledgement.host)
        for attempt in range(1, 10_000):
            name = f"{host}.json" if attempt == 1 else f"{host}.{attempt}.json"
            try:
                return self.store.create(f"{folder}/{name}", acknowledgement.to_json())
            except AlreadyExistsError:
                continue
        raise InputError(f"Host {host} has acknowledged release {acknowledgement.release} 10,000 times; look at it.")

    def acknowledgements(self, release: int) -> tuple[Acknowledgement, ...]:
        """Return every acknowledgement of a release in the order of hosts, then as they were written.

        They are not signed, and whoever may write one may write nonsense: what is none is logged and left out,
        so that one object cannot keep everybody from the others.
        """
        prefix = f"{self.model}/acknowledgements/{release:06d}/"
        found = []
        for key in sorted((info.key for info in self.store.list(prefix)), key=_host_and_turn):
            try:
                found.append(
                    Acknowledgement.from_json(read_bytes(self.store, key, max_bytes=_MAX_ACKNOWLEDGEMENT_BYTES))
                )
            except (InputError, RecordError) as error:
                _LOG.warning("%s is no acknowledgement and is left out: %s", key, error)
        return tuple(found)

    # Budgets: what was spent of each holdout, numbered, appended and never overwritten.

    def create_budget_entry(self, holdout_sha256: str, number: int, data: bytes, *, kind: str) -> None:
        """Create `budgets/<holdout>/<number>.<kind>.json`; number 0 holds the terms.

        Raises:
            AlreadyExistsError: another writer created that entry.
        """
        self.store.create(f"{self._budget_prefix(holdout_sha256)}{number:06d}.{kind}.json", data)

    def budget_entries(self, holdout_sha256: str) -> tuple[tuple[int, str, bytes], ...]:
        """Return (number, kind, bytes) of every entry, in the order of numbers, then of kinds."""
        return self._numbered_entries(self._budget_prefix(holdout_sha256))

    def budgeted_holdouts(self) -> tuple[str, ...]:
        """Return the digests of the holdouts that have a budget, sorted."""
        prefix = f"{self.model}/budgets/"
        return tuple(sorted({info.key.removeprefix(prefix).partition("/")[0] for info in self.store.list(prefix)}))

    def _budget_prefix(self, holdout_sha256: str) -> str:
        return f"{self.model}/budgets/{holdout_sha256}/"

    # Decisions: what people said of a verdict, appended and never overwritten.

    def create_decision(self, verdict_sha256: str, number: int, data: bytes) -> None:
        """Create `decisions/<verdict>/<number>.decision.json`: one word for all, so that a number is given once.

        Raises:
            AlreadyExistsError: another writer created that number.
        """
        self.store.create(f"{self.model}/decisions/{verdict_sha256}/{number:06d}.{_DECISION}.json", data)

    def decisions(self, verdict_sha256: str) -> tuple[tuple[int, bytes], ...]:
        """Return (number, bytes) of every decision on a verdict, in order; they are not verified."""
        found = self._numbered_entries(f"{self.model}/decisions/{verdict_sha256}/")
        return tuple((number, data) for number, kind, data in found if kind == _DECISION)

    def _numbered_entries(self, prefix: str) -> tuple[tuple[int, str, bytes], ...]:
        found = []
        for info in self.store.list(prefix):
            match = _NUMBERED_ENTRY.match(info.key.removeprefix(prefix))
            if match is not None:
                data = read_bytes(self.store, info.key, max_bytes=MAX_METADATA_BYTES)
                found.append((int(match["number"]), match["kind"], data))
        return tuple(sorted(found, key=lambda entry: entry[:2]))

    # Feedback: what people corrected. Photos lie apart from the blobs, so that a front end needs no right to
    # write where models lie, and cannot stand in the way of a promotion with wrong bytes under a digest.

    def photo_key(self, sha256: str) -> str:
        """Return the key of a photo that a person gave with a correction."""
        return f"{self.model}/photos/sha256/{sha256}"

    def open_photo(self, sha256: str) -> BinaryIO:
        """Open such a photo for reading; the reader checks the digest.

        Raises:
            NotFoundError: no such photo.
        """
        return self.store.open(self.photo_key(sha256))

    def write_feedback(self, feedback: FeedbackRecord, *, photo: bytes | None) -> None:
        """Write the photo, then the record; repeating it changes nothing.

        Raises:
            InputError: the photo is not the one that the record names.
        """
        if (photo is None) != (feedback.photo_sha256 is None):
            raise InputError(f"Feedback {feedback.feedback_id} refused: photo and photo_sha256 must both be there.")
        if photo is not None and feedback.photo_sha256 is not None:
            if sha256_hex(photo) != feedback.photo_sha256:
                raise InputError(f"Feedback {feedback.feedback_id} refused: the photo's digest is another.")
            with suppress(AlreadyExistsError):
                self.store.create(self.photo_key(feedback.photo_sha256), photo, sha256=feedback.photo_sha256)
        key = f"{self.model}/feedback/{_day(feedback.given_at)}/{feedback.feedback_id}.json"
        try:
            self.store.create(key, feedback.to_json())
        except AlreadyExistsError:
            return

    def feedback(self) -> Iterator[FeedbackRecord]:
        """Yield every feedback record, oldest day first."""
        for info in self.store.list(f"{self.model}/feedback/"):
            yield FeedbackRecord.from_json(read_bytes(self.store, info.key, max_bytes=1024 * 1024))


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _host_and_turn(key: str) -> tuple[str, int]:
    # "<host>.json" comes first, then "<host>.2.json"; as text, 10 would come before 2, and clocks can go back.
    host, _, turn = key.rpartition("/")[2].removesuffix(".json").partition(".")
    return host, int(turn) if turn.isdecimal() else 1


def _plain_name(host: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", host).strip("-")
    if not plain:
        raise InputError(f"Host name {host!r} refused: it has no letter or digit.")
    return plain
