"""The file of a dataset that holds each example's look: written as the shards are, read in one go.

Its place in the flow: dataset build writes it beside the shards; `liftgate validate` reads from it
which photos a model was trained on and looks for nearly the same ones in the holdout. The gate need
not read the shards for it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from artifact_sync.errors import IntegrityError
from serving.perceptual_hash import HASH_BYTES, NAME, PictureHashes
from training_cluster.datasets.data_manifest import HashFile

_SOURCE_BYTES = 32
_ENTRY_BYTES = _SOURCE_BYTES + HASH_BYTES


class HashWriter:
    """Writes one dataset's hashes, in the order of its examples; use it as a context manager.

    It holds nothing but the open file.

    Args:
        directory: where the file is written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stream = self._unfinished.open("wb")
        self._digest = hashlib.sha256()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, picture_hash: bytes, *, source: bytes) -> None:
        """Append one example's hash under the SHA-256 of its photo's file."""
        entry = source + picture_hash
        self._stream.write(entry)
        self._digest.update(entry)
        self._count += 1

    def finish(self) -> HashFile:
        """Name the file by its digest and return what the manifest says of it."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        sha256 = self._digest.hexdigest()
        path = self._directory / f"{sha256}.hashes"
        self._unfinished.replace(path)
        return HashFile(path=path.name, sha256=sha256, count=self._count, hash_name=NAME)

    @property
    def _unfinished(self) -> Path:
        return self._directory / "unfinished.hashes"


def read_hash_file(data_dir: Path, entry: HashFile) -> PictureHashes:
    """Return the hashes of a dataset's examples.

    Raises:
        IntegrityError: the file is missing, or not what the manifest says.
    """
    path = data_dir / entry.path
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = None
    if data is None or hashlib.sha256(data).hexdigest() != entry.sha256 or len(data) != entry.count * _ENTRY_BYTES:
        raise IntegrityError(
            f"The hashes of the dataset in {data_dir} are {'missing' if data is None else 'changed'}: {entry.path} is "
            "not what its manifest says. Bring the file back, or build the dataset again."
        )
    entries = np.frombuffer(data, dtype=np.uint8).reshape(entry.count, _ENTRY_BYTES)
    return PictureHashes(sources=entries[:, :_SOURCE_BYTES], hashes=entries[:, _SOURCE_BYTES:])
