"""Pixels from the parts become shards in the order that was decided, and the files that describe them.

Its place in the flow: the last stage of dataset build. A finished shard is noted in the index; a build
that was killed goes on behind it. Parts that no later shard needs are freed on the way.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import InputError, IntegrityError
from artifact_sync.records import InputContract
from training_cluster.datasets.block_index import BLOCK_DTYPE, write_blocks
from training_cluster.datasets.build_progress import Meter, Progress
from training_cluster.datasets.data_manifest import BlockFile, ExampleFile, HashFile, ShardEntry
from training_cluster.datasets.example_table import NO_VALUE, ExampleTable, write_examples
from training_cluster.datasets.hash_file import HashWriter
from training_cluster.datasets.photo_index import in_pages
from training_cluster.datasets.pixel_parts import PixelParts
from training_cluster.datasets.shard_writer import ShardWriter

_PLACED = (
    "FROM placed JOIN example ON example.number = placed.example JOIN listed ON listed.id = example.listed "
    "JOIN decoded USING (sha256)"
)
_PIXELS = (
    f"SELECT position, example.sha256, pixel_sha256, part, slot, label {_PLACED} "
    "WHERE position > ? ORDER BY position LIMIT ?"
)
_LOOKS = f"SELECT position, example.sha256, look {_PLACED} WHERE position > ? ORDER BY position LIMIT ?"
_TABLE = f"SELECT position, label, slices, starts_group {_PLACED} WHERE position > ? ORDER BY position LIMIT ?"


class DatasetFiles(NamedTuple):
    """What a finished dataset has beside its manifest."""

    shards: tuple[ShardEntry, ...]
    hashes: HashFile
    blocks: BlockFile
    examples: ExampleFile


def finished_shards(index: sqlite3.Connection) -> tuple[ShardEntry, ...]:
    """Return the shards that are written already."""
    rows = index.execute("SELECT path, size_bytes, sha256, count FROM shard ORDER BY number")
    return tuple(
        ShardEntry(path=path, size_bytes=size, sha256=sha256, count=count) for path, size, sha256, count in rows
    )


def write_shards(
    index: sqlite3.Connection,
    parts: PixelParts,
    directory: Path,
    *,
    contract: InputContract,
    labels: Sequence[str],
    progress: Progress | None,
) -> None:
    """Write the shards that are not written yet.

    Raises:
        IntegrityError: the pixels of a photo are not those that were decoded.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    (total,) = index.execute("SELECT COUNT(*) FROM placed").fetchone()
    finished = finished_shards(index)
    done = sum(shard.count for shard in finished)
    meter = Meter(progress, "writing", total=total, done=done)
    with ShardWriter(directory, expected_count=total, contract=contract, finished=finished) as writer:
        for row in _Row.rows(index, start=done):
            pixels = parts.read(row.part, row.slot)
            if sha256_hex(pixels) != row.pixel_sha256.hex():
                raise IntegrityError(
                    f"Dataset refused: decoded pixels in {directory.parent} were changed. Remove that folder and build "
                    "again."
                )
            writer.add(pixels, label=numbers[row.label], source=row.sha256)
            meter.add()
            if len(writer.entries) > len(finished):
                finished = writer.entries
                _note_shard(index, writer)
                _free_parts(index, parts, row.position)
    meter.finish()


def write_descriptions(index: sqlite3.Connection, directory: Path, *, labels: Sequence[str]) -> DatasetFiles:
    """Write the files of hashes, blocks and examples.

    Raises:
        InputError: a slice column has too many values.
    """
    with HashWriter(directory) as hashes:
        for _, sha256, look in in_pages(index, _LOOKS, start=0):
            assert isinstance(sha256, bytes) and isinstance(look, bytes)  # noqa: PT018
            hashes.add(look, source=sha256)
        hash_file = hashes.finish()
    blocks = b"".join(blocks for (blocks,) in index.execute("SELECT blocks FROM shard ORDER BY number"))
    return DatasetFiles(
        shards=finished_shards(index),
        hashes=hash_file,
        blocks=write_blocks(directory, np.frombuffer(blocks, dtype=BLOCK_DTYPE)),
        examples=_write_examples(index, directory, labels),
    )


class _Row(NamedTuple):
    position: int
    sha256: bytes
    pixel_sha256: bytes
    part: int
    slot: int
    label: str

    @classmethod
    def rows(cls, index: sqlite3.Connection, *, start: int) -> Iterator[_Row]:
        return (cls(*row) for row in in_pages(index, _PIXELS, start=start))  # type: ignore[arg-type]


def _note_shard(index: sqlite3.Connection, writer: ShardWriter) -> None:
    number = len(writer.entries) - 1
    entry = writer.entries[-1]
    blocks = writer.blocks[writer.blocks["shard"] == number].tobytes()
    row = (number, entry.path, entry.size_bytes, entry.sha256, entry.count, blocks)
    index.execute("INSERT INTO shard VALUES (?, ?, ?, ?, ?, ?)", row)
    index.commit()


def _free_parts(index: sqlite3.Connection, parts: PixelParts, position: int) -> None:
    """Free the parts before the one of the next group's smallest digest: all that follow are not smaller."""
    query = "SELECT sha256 FROM placed JOIN example ON example.number = placed.first WHERE position = ?"
    row = index.execute(query, (position + 1,)).fetchone()
    for part in range(parts.part_of(row[0]) if row else len(parts.slots)):
        parts.free(part)


def _write_examples(index: sqlite3.Connection, directory: Path, labels: Sequence[str]) -> ExampleFile:
    numbers = {label: number for number, label in enumerate(labels)}
    (count,) = index.execute("SELECT COUNT(*) FROM placed").fetchone()
    columns, starts_group = np.empty(count, dtype=np.uint16), np.empty(count, dtype=np.bool_)
    values = _slice_values(index)
    codes = {column: {value: code for code, value in enumerate(found)} for column, found in values.items()}
    slices = {column: np.full(count, NO_VALUE, dtype=np.uint16) for column in values}
    for place, (_, label, said, starts) in enumerate(in_pages(index, _TABLE, start=0)):
        columns[place], starts_group[place] = numbers[str(label)], bool(starts)
        for column, value in json.loads(str(said)).items():
            slices[column][place] = codes[column][value]
    return write_examples(directory, ExampleTable(columns, starts_group, slices), slice_values=values)


def _slice_values(index: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for (said,) in index.execute(f"SELECT DISTINCT slices {_PLACED}"):
        for column, value in json.loads(said).items():
            found.setdefault(column, set()).add(value)
    for column, values in found.items():
        if len(values) >= NO_VALUE:
            raise InputError(
                f"Dataset refused: the column {column} has {len(values)} different values; a slice can have "
                f"{NO_VALUE - 1}. Leave the column out, or name it `source` if photos of one value belong together."
            )
    return {column: tuple(sorted(found[column])) for column in sorted(found)}
