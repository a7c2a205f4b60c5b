"""Which photos become examples: double, contradictory, forbidden and unusable ones are found and accounted for.

Its place in the flow: the third stage of dataset build, over the index alone; no photo is opened. What
it finds does not depend on the order in which photos were listed or read.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import groupby
from typing import NamedTuple

from artifact_sync.canonical import canonical_json
from training_cluster.datasets.data_manifest import LeftOut
from training_cluster.datasets.photo_index import clear

_ROWS = (
    "SELECT file.sha256, listed.id, list, source, label, slices, origin, annotator "
    "FROM listed JOIN file USING (place) WHERE fault IS NULL "
    "ORDER BY file.sha256, source, place, label, slices, origin, annotator, list"
)
_PIXELS = (
    "SELECT pixel_sha256, candidate.sha256, source, label FROM candidate JOIN decoded USING (sha256) "
    "JOIN listed ON listed.id = candidate.listed ORDER BY pixel_sha256, candidate.sha256"
)


class Digests(NamedTuple):
    """What was handed in: over all photos that people agree on, and for each list of photos by its name."""

    sources: str
    lists: dict[str, str]


class _Said(NamedTuple):
    sha256: bytes
    number: int
    list_name: str
    source: str
    label: str
    slices: str
    origin: str
    annotator: str

    @property
    def document(self) -> list[object]:
        """What of it makes a difference to the dataset."""
        return [self.sha256.hex(), self.label, json.loads(self.slices), *([self.origin] if self.origin else [])]


def compare_files(index: sqlite3.Connection, *, excluded: AbstractSet[str]) -> Digests:
    """Fill `candidate` with each file once that is not forbidden and has one label; return what was handed in."""
    clear(index, "candidate", "left_out")
    sources, lists = hashlib.sha256(), {str(name): hashlib.sha256() for (name,) in index.execute(_LISTS)}
    for sha256, group in groupby(map(_Said._make, index.execute(_ROWS)), key=lambda said: said.sha256):
        photos = list(group)
        for said in photos:
            lists[said.list_name].update(canonical_json([*said.document, said.annotator]) + b"\n")
        if sha256.hex() in excluded:
            leave_out(index, "excluded", ((said.source, "its bytes are in the holdout") for said in photos))
        elif len({said.label for said in photos}) > 1:
            said_by = ", ".join(map(_opinion, photos))
            reason = f"the same photo has several labels: {said_by}"
            leave_out(index, "reject", ((said.source, reason) for said in photos))
        else:
            first, *others = photos
            index.execute("INSERT INTO candidate VALUES (?, ?, NULL)", (sha256, first.number))
            sources.update(canonical_json(first.document) + b"\n")
            leave_out(index, "duplicate", ((said.source, f"the same file as {first.source}") for said in others))
    index.execute(_LISTED_FAULTS)
    index.execute(_UNREADABLE)
    index.commit()
    return Digests(sources.hexdigest(), {name: digest.hexdigest() for name, digest in sorted(lists.items())})


def compare_pixels(index: sqlite3.Connection, *, excluded: AbstractSet[str]) -> None:
    """Mark in `candidate` which photo is kept for each; of those with equal pixels the one with the smallest digest."""
    index.execute(_UNDECODABLE)
    for pixel_sha256, group in groupby(index.execute(_PIXELS), key=lambda row: row[0]):
        photos = [(bytes(sha256), str(source), str(label)) for _, sha256, source, label in group]
        if pixel_sha256.hex() in excluded:
            leave_out(index, "excluded", ((source, "its pixels are in the holdout") for _, source, _ in photos))
            continue
        kept, first, label = photos[0]
        index.executemany("UPDATE candidate SET kept = ? WHERE sha256 = ?", [(kept, photo[0]) for photo in photos])
        for _, source, said in photos[1:]:
            if said == label:
                leave_out(index, "duplicate", [(source, f"the same pixels as {first}")])
            else:
                reason = f"labelled {said}, but its pixels are those of {first}, labelled {label}"
                leave_out(index, "reject", [(source, reason)])
    index.commit()


def leave_out(index: sqlite3.Connection, kind: str, entries: Iterable[tuple[str, str]]) -> None:
    """Account for photos, each with its reason; `kind` is reject, excluded, duplicate or near."""
    index.executemany("INSERT INTO left_out VALUES (?, ?, ?)", ((kind, source, reason) for source, reason in entries))


def left_out(index: sqlite3.Connection, kind: str, *, most: int = -1) -> tuple[LeftOut, ...]:
    """Return the account of one kind, in order; at most so many entries."""
    query = "SELECT source, reason FROM left_out WHERE kind = ? ORDER BY source, reason LIMIT ?"
    return tuple(LeftOut(source=source, reason=reason) for source, reason in index.execute(query, (kind, most)))


def _opinion(said: _Said) -> str:
    return f"{said.label} by {said.annotator} ({said.source})" if said.annotator else f"{said.label} by {said.source}"


_LISTS = "SELECT DISTINCT list FROM listed"
_LISTED_FAULTS = "INSERT INTO left_out SELECT 'reject', source, fault FROM listed WHERE fault IS NOT NULL"
_UNREADABLE = (
    "INSERT INTO left_out SELECT 'reject', source, reason FROM listed JOIN unreadable USING (place) WHERE fault IS NULL"
)
_UNDECODABLE = (
    "INSERT INTO left_out SELECT 'reject', source, reason FROM candidate JOIN undecodable USING (sha256) "
    "JOIN listed ON listed.id = candidate.listed"
)
