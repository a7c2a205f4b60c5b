"""The unsigned documents below targets: releases, emergencies, snapshot, timestamp, and the entries of lists.

Its place in the flow: pure functions under publisher.py and ceremony.py; documents are signed by
signing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets, Timestamp

from artifact_sync.trust.roles import RELEASES


def releases_document(releases: Mapping[str, TargetFile], *, number: int, expires: datetime) -> Targets:
    """Return the releaser's list of `releases`."""
    return Targets(version=number, expires=expires, targets=dict(releases))


def emergencies_document(versions: Mapping[str, TargetFile], *, number: int, expires: datetime) -> Targets:
    """Return the list of `versions` that the holder of the break-glass key signs."""
    return Targets(version=number, expires=expires, targets=dict(versions))


def snapshot_document(
    targets: MetaFile,
    releases: MetaFile,
    *,
    number: int,
    expires: datetime,
    emergencies: Mapping[str, MetaFile] | None = None,
) -> Snapshot:
    """Return the snapshot that binds one targets to one releases, and to the lists of `emergencies` by file name."""
    meta = {**(emergencies or {}), "targets.json": targets, f"{RELEASES}.json": releases}
    return Snapshot(version=number, expires=expires, meta=meta)


def timestamp_document(snapshot: bytes, *, number: int, expires: datetime) -> Timestamp:
    """Return the timestamp of a snapshot; both have the same number, so that writing it again is harmless."""
    return Timestamp(version=number, expires=expires, snapshot_meta=meta_file(snapshot, number=number))


def meta_file(data: bytes, *, number: int) -> MetaFile:
    """Return number, length and SHA-256 of a metadata file."""
    return MetaFile.from_data(number, data, ["sha256"])


def target_file(path: str, data: bytes) -> TargetFile:
    """Return length and SHA-256 of a record under its path."""
    return TargetFile.from_data(path, data, ["sha256"])
