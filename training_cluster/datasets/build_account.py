"""What a build tells people: rejects by name, classes without photos, and at its end the manifest.

Its place in the flow: between the stages of dataset build, over the index alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict

from artifact_sync.canonical import MAX_RECORD_BYTES
from artifact_sync.errors import InputError
from artifact_sync.records import InputContract
from training_cluster.datasets.comparing import left_out
from training_cluster.datasets.data_manifest import IndexedDataManifest
from training_cluster.datasets.writing import DatasetFiles

_FEEDBACK_PREFIX = "feedback:"
_SHOWN_REJECTS = 50
_NAMED_NEAR = 50_000
_ENTRY_BYTES = 32
_PLACED = "FROM placed JOIN example ON example.number = placed.example JOIN listed ON listed.id = example.listed"


def refuse_rejects(index: sqlite3.Connection, *, allowed: int) -> None:
    """Raise when more photos cannot be used than may be left out.

    Raises:
        InputError: names them.
    """
    (count,) = index.execute("SELECT COUNT(*) FROM left_out WHERE kind = 'reject'").fetchone()
    if count <= allowed:
        return
    lines = [f"  {reject.source}: {reject.reason}" for reject in left_out(index, "reject", most=_SHOWN_REJECTS)]
    if count > _SHOWN_REJECTS:
        lines.append(f"  and {count - _SHOWN_REJECTS} more")
    raise InputError(
        f"Dataset refused: {count} photos cannot be used and {allowed} may be left out:\n"
        + "\n".join(lines)
        + f"\nCorrect or remove these rows, or allow {count} rejects, and build again: what is decoded is kept."
    )


def refuse_without_labels(index: sqlite3.Connection, labels: tuple[str, ...], *, holdout_share: float) -> None:
    """Raise when a class has no example.

    Raises:
        InputError: names the classes.
    """
    found = {label for (label,) in index.execute(f"SELECT DISTINCT label {_PLACED}")}
    if missing := [label for label in labels if label not in found]:
        way_out = " Add photos, or lower the holdout's share." if holdout_share else ""
        raise InputError(f"Dataset refused: no usable photo has the label {', '.join(missing)}.{way_out}")


def ensure_account_fits(index: sqlite3.Connection) -> None:
    """Raise, before anything is written, when the manifest could not name all photos that are left out.

    Raises:
        InputError: too many are left out.
    """
    query = "SELECT COUNT(*), TOTAL(LENGTH(source) + LENGTH(reason)) FROM left_out WHERE kind <> 'near'"
    count, size_bytes = index.execute(query).fetchone()
    if size_bytes + count * _ENTRY_BYTES > 0.75 * MAX_RECORD_BYTES:
        raise InputError(
            f"Dataset refused: {count} photos are double, in the holdout or unusable, more than its manifest can name. "
            "Take out of the lists what is listed twice, and build again: what is decoded is kept."
        )


def manifest_of(
    index: sqlite3.Connection,
    files: DatasetFiles,
    *,
    contract: InputContract,
    labels: tuple[str, ...],
    sources_sha256: str,
    sources: dict[str, str],
    guard_sha256: str,
    near_distance: int,
    holdout_share: float,
) -> IndexedDataManifest:
    """Return the manifest of what was written."""
    counts = dict(index.execute(f"SELECT label, COUNT(*) {_PLACED} GROUP BY label"))
    feedback = f"SELECT COUNT(*) {_PLACED} WHERE source GLOB ?"
    return IndexedDataManifest(
        contract=contract,
        labels=labels,
        shards=files.shards,
        example_counts={label: counts[label] for label in labels},
        slice_counts=_slice_counts(index),
        rejects=left_out(index, "reject"),
        excluded=left_out(index, "excluded"),
        duplicates=left_out(index, "duplicate"),
        feedback_count=index.execute(feedback, (f"{_FEEDBACK_PREFIX}*",)).fetchone()[0],
        sources_sha256=sources_sha256,
        guard_sha256=guard_sha256,
        hashes=files.hashes,
        blocks=files.blocks,
        examples=files.examples,
        near_duplicates=left_out(index, "near", most=_NAMED_NEAR),
        near_duplicate_count=index.execute("SELECT COUNT(*) FROM left_out WHERE kind = 'near'").fetchone()[0],
        near_distance=near_distance,
        sources=sources,
        holdout_share=holdout_share,
        holdout_count=index.execute("SELECT COUNT(*) FROM held_out").fetchone()[0],
    )


def _slice_counts(index: sqlite3.Connection) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for said, count in index.execute(f"SELECT slices, COUNT(*) {_PLACED} GROUP BY slices"):
        for column, value in json.loads(said).items():
            counts[column][value] += count
    return {column: dict(values) for column, values in counts.items()}
