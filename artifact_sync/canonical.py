"""The one base of every record: frozen, schema-versioned, with one canonical JSON form.

Its place in the flow: records.py and the packages' own records derive from `Record`; digests and
signatures are over the bytes that `Record.to_json` gives.

Canonical form: UTF-8, keys sorted by code point, no white space, no NaN or infinity, shortest
floats that round-trip (Python's own), a `schema` key "liftgate.<name>/<version>". It follows the
idea of RFC 8785 without its ECMAScript number format. The laws, held for every record type:

    Record.from_json(record.to_json()) == record
    Record.from_json(data).to_json() == data          for every `data` that is accepted
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, StringConstraints, ValidationError

from artifact_sync.errors import RecordError

MAX_RECORD_BYTES = 64 * 1024 * 1024


def canonical_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        RecordError: the value holds NaN, an infinity or something that is not JSON.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise RecordError(f"Not representable as canonical JSON: {error}.") from None


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hex digits (FIPS 180-4)."""
    return hashlib.sha256(data).hexdigest()


def _to_utc_seconds(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone; use UTC")
    return value.astimezone(UTC).replace(microsecond=0)


Timestamp = Annotated[
    datetime,
    AfterValidator(_to_utc_seconds),
    PlainSerializer(lambda value: value.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
]
"""An aware datetime in UTC with whole seconds, "2026-11-20T06:00:00Z" in JSON (RFC 3339)."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest as 64 lower-case hex digits."""


class FrozenModel(BaseModel):
    """A frozen part of a record: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Record(FrozenModel):
    """A frozen, schema-versioned document; subclasses set `schema_name`, such as "liftgate.release/1"."""

    schema_name: ClassVar[str]

    def to_json(self) -> bytes:
        """Return the canonical bytes."""
        document = self.model_dump(mode="json")
        return canonical_json({"schema": self.schema_name, **document})

    @property
    def sha256(self) -> str:
        """The digest of the canonical bytes."""
        return sha256_hex(self.to_json())

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse canonical bytes.

        Raises:
            RecordError: malformed, of another or an unknown schema, or not in canonical form.
        """
        document = _parse_object(data, expected=cls.schema_name)
        found = document.pop("schema", None)
        if found != cls.schema_name:
            raise RecordError(_schema_mismatch(found, cls.schema_name))
        try:
            record = cls.model_validate_json(json.dumps(document), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise RecordError(f"Not a valid {cls.schema_name} record: {where}: {first['msg']}.") from None
        if record.to_json() != data:
            raise RecordError(
                f"The {cls.schema_name} record is not in canonical form (sorted keys, no white space). "
                "It was edited by hand or written by another program; write it with Liftgate."
            )
        return record


def _parse_object(data: bytes, *, expected: str) -> dict[str, Any]:
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(f"A {expected} record of {len(data)} bytes is refused: the limit is {MAX_RECORD_BYTES}.")
    try:
        document = json.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"Not a {expected} record: it is not JSON ({error}).") from None
    if not isinstance(document, dict):
        raise RecordError(f"Not a {expected} record: the document is not a JSON object.")
    return document


def _schema_mismatch(found: object, expected: str) -> str:
    name, _, version = expected.partition("/")
    if isinstance(found, str) and found.partition("/")[0] == name:
        return (
            f"Record refused: its schema is {found!r}, this Liftgate knows {name}/{version} only. "
            "Upgrade Liftgate on this machine."
        )
    return f"Record refused: expected schema {expected!r}, found {found!r}."
