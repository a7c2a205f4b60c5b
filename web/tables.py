"""The tables of the front end's database.

Their place in the flow: database.py creates and migrates them, the stores read and write them.
Times are whole seconds since 1970 in UTC; records are the canonical bytes of artifact_sync.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

METADATA = MetaData()

RECEIPTS = Table(
    "receipts",
    METADATA,
    Column("request_id", String(32), primary_key=True),
    Column("idempotency_key", String(128), unique=True),
    Column("photo_sha256", String(64), nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
KEPT_PHOTOS = Table(
    "kept_photos",
    METADATA,
    Column("request_id", String(32), ForeignKey("receipts.request_id"), primary_key=True),
    Column("photo", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)
CORRECTIONS = Table(
    "corrections",
    METADATA,
    Column("feedback_id", String(32), primary_key=True),
    Column("request_id", String(32), ForeignKey("receipts.request_id"), nullable=False),
    Column("idempotency_key", String(128), unique=True),
    Column("record", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
OUTBOX = Table(
    "outbox",
    METADATA,
    Column("feedback_id", String(32), ForeignKey("corrections.feedback_id"), primary_key=True),
    Column("photo", LargeBinary),
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    Index("outbox_due", "sent_at", "due_at"),
)
KNOWN_VERSIONS = Table(
    "known_versions",
    METADATA,
    Column("version", Integer, primary_key=True),
    Column("record", LargeBinary, nullable=False),
    Column("is_current", Boolean, nullable=False),
)
KNOWN_RELEASE = Table(
    "known_release",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("record", LargeBinary, nullable=False),
)
SCHEMA = Table(
    "schema_version",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("probes", BigInteger, nullable=False),
)
