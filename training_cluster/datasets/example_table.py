"""What is known of each example without reading it: its class, its slices, whose near duplicate it is.

Its place in the flow: dataset build writes the file beside the shards; a training re-weights classes
and slices by it, and keeps near duplicates on one side when it splits examples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.durable import write_durably
from artifact_sync.errors import IntegrityError
from training_cluster.datasets.data_manifest import ExampleFile

NO_VALUE = 0xFFFF
"""The code of an example that has no value in a slice column."""


@dataclass(frozen=True, eq=False)
class ExampleTable:
    """Columns over all examples of a dataset, in the order of the shards.

    Attributes:
        labels: each example's class, an index into the manifest's labels; uint16 [n].
        starts_group: whether the example is not of the same group as the one before: examples whose photos look
            nearly the same, or come from the same source, are a group and lie together; bool [n].
        slices: for each slice column the code of each example's value, an index into the manifest's values of
            that column or `NO_VALUE`; uint16 [n].
    """

    labels: NDArray[np.uint16]
    starts_group: NDArray[np.bool_]
    slices: dict[str, NDArray[np.uint16]]


def write_examples(directory: Path, table: ExampleTable, *, slice_values: dict[str, tuple[str, ...]]) -> ExampleFile:
    """Write the table into a file named by its digest and return what the manifest says of it.

    Args:
        directory: the dataset's folder.
        table: its slice columns are those of `slice_values`.
        slice_values: for each column, by name in order, the values that the codes stand for.
    """
    columns = [table.labels.astype("<u2"), table.starts_group.astype("<u2")]
    columns += [table.slices[name].astype("<u2") for name in sorted(slice_values)]
    data = b"".join(column.tobytes() for column in columns)
    sha256 = hashlib.sha256(data).hexdigest()
    path = directory / f"{sha256}.examples"
    write_durably(path, data)
    return ExampleFile(path=path.name, sha256=sha256, count=len(table.labels), slice_values=dict(slice_values))


def parse_examples(data: bytes, entry: ExampleFile) -> ExampleTable:
    """Return the table of a file's bytes.

    Raises:
        IntegrityError: the bytes are not those of the manifest.
    """
    names = sorted(entry.slice_values)
    if hashlib.sha256(data).hexdigest() != entry.sha256 or len(data) != 2 * entry.count * (2 + len(names)):
        raise IntegrityError(
            f"The examples in {entry.path} are not what the data manifest says. Build the dataset again."
        )
    labels, starts_group, *slices = np.frombuffer(data, dtype="<u2").reshape(2 + len(names), entry.count)
    return ExampleTable(labels, starts_group.astype(np.bool_), dict(zip(names, slices, strict=True)))
