"""The photos that fell on the holdout's side, as a list that a holdout can be frozen from.

Its place in the flow: dataset build writes `holdout.csv` into the dataset's folder; `liftgate dataset
freeze-holdout --photos …/holdout.csv` takes it. Photos of a bucket are fetched into holdout-photos/
beside it, since a holdout is made of files.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path, PurePosixPath

from artifact_sync.canonical import sha256_hex
from artifact_sync.durable import write_durably
from artifact_sync.errors import InputError
from training_cluster.datasets.photo_index import in_pages
from training_cluster.datasets.stored_photos import PhotoStores, read_photo

FILE_NAME = "holdout.csv"
_PHOTOS = "holdout-photos"
_HELD_OUT = (
    "SELECT number, sha256, place, label, slices FROM held_out JOIN example ON example.number = held_out.example "
    "JOIN listed ON listed.id = example.listed WHERE number > ? ORDER BY number LIMIT ?"
)


def write_holdout_list(index: sqlite3.Connection, directory: Path, *, stores: PhotoStores) -> int:
    """Write the list, unless it is empty, and return how many photos are in it.

    Raises:
        InputError: a photo in a bucket is not the one that was decoded.
    """
    (count,) = index.execute("SELECT COUNT(*) FROM held_out").fetchone()
    if not count:
        return 0
    slices = "SELECT DISTINCT slices FROM held_out JOIN example ON number = example JOIN listed ON listed.id = listed"
    columns = sorted({column for (said,) in index.execute(slices) for column in json.loads(said)})
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "label", *columns])
    for _, sha256, place, label, said in in_pages(index, _HELD_OUT, start=0):
        assert isinstance(sha256, bytes)
        path = _on_disk(str(place), sha256.hex(), directory, stores)
        values = json.loads(str(said))
        rows.writerow([path, label, *(values.get(column, "") for column in columns)])
    write_durably(directory / FILE_NAME, text.getvalue().encode())
    return int(count)


def _on_disk(place: str, sha256: str, directory: Path, stores: PhotoStores) -> str:
    if not place.startswith("s3://"):
        return place
    name = f"{_PHOTOS}/{sha256}{PurePosixPath(place).suffix}"
    path = directory / name
    if not path.exists():
        data = read_photo(place, stores)
        if sha256_hex(data) != sha256:
            raise InputError(f"Dataset refused: {place} was changed meanwhile. Build again when it is at rest.")
        write_durably(path, data)
    return name
