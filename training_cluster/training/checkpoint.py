"""Checkpoints that survive kill -9 and a power cut: one file each, a digest in it, the last two kept.

Its place in the flow: the trainer saves here between steps and restores from here when it starts.
One file holds all variables, the optimizer's included, so one rename makes a checkpoint exist whole.
`restore` believes only what its digest confirms and goes back to the older one when it does not.
The checkpoint with the best weights so far keeps a second name, `best.checkpoint`: no byte is written
twice, and it stays when its step is no longer among the last two.

Layout of a file: magic line, length of the header as 8 bytes little-endian, header (canonical
JSON), the arrays' bytes in C order one after the other, SHA-256 of all before it as 32 bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact_sync.canonical import canonical_json
from artifact_sync.durable import TEMPORARY_PREFIX, fsync_directory, temporary_file
from artifact_sync.errors import IntegrityError, RefusedError

_MAGIC = b"liftgate.checkpoint/1\n"
_DIGEST_BYTES = 32
_KEPT = 2
_BEST = "best.checkpoint"
_LISTINGS = 5
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps.

    Attributes:
        step: steps done.
        arrays: every variable by name, in the model's own order.
        binding: digests of what the run is made of; a checkpoint of something else is refused.
        state: what else is needed to go on, as JSON values: the position in the epoch, the best loss so far.
    """

    step: int
    arrays: Arrays
    binding: Mapping[str, str]
    state: Mapping[str, Any] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of one run in one folder, written by one process at a time."""

    def __init__(self, path: Path, *, binding: Mapping[str, str]) -> None:
        self.path = path
        self.binding = dict(binding)

    def save(self, arrays: Arrays, *, step: int, state: Mapping[str, Any] = MappingProxyType({})) -> Path:
        """Write a checkpoint durably, then remove all but the newest two; return its path."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / _name(step)
        with temporary_file(self.path) as (temporary, stream):
            digest = hashlib.sha256()
            for piece in _pieces(Checkpoint(step, arrays, self.binding, state)):
                digest.update(piece)
                stream.write(piece)
            stream.write(digest.digest())
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(target)
        fsync_directory(self.path)
        self._remove_old(keep_from=target)
        return target

    def restore(self) -> Checkpoint | None:
        """Return the newest checkpoint whose digest is right; None when there is none.

        Another process may save here at the same time, and so remove what is about to be read.

        Raises:
            RefusedError: it belongs to another configuration or other data.
        """
        for _ in range(_LISTINGS):
            paths = sorted(self.path.glob("step-*.checkpoint"), reverse=True)
            found = next((checkpoint for path in paths if (checkpoint := _whole(path))), None)
            if found is not None or not paths or all(path.exists() for path in paths):
                return self._own(found)
        return None

    def keep_best(self, step: int) -> None:
        """Give the checkpoint of `step`, which was just saved, the name under which it outlives the next two."""
        temporary = self.path / f"{TEMPORARY_PREFIX}{_BEST}"
        temporary.unlink(missing_ok=True)
        _link_or_copy(self.path / _name(step), temporary)
        temporary.replace(self.path / _BEST)
        fsync_directory(self.path)

    def best(self) -> Checkpoint | None:
        """Return the checkpoint that was kept as the best; None when there is none or its digest is wrong.

        Raises:
            RefusedError: it belongs to another configuration or other data.
        """
        return self._own(_whole(self.path / _BEST))

    def _own(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        if checkpoint is not None and dict(checkpoint.binding) != self.binding:
            raise RefusedError(_other_run(self.path, found=checkpoint.binding, expected=self.binding))
        return checkpoint

    def _remove_old(self, *, keep_from: Path) -> None:
        # Only files older than the one just written go: whatever happened to it, two are left.
        older = sorted(path for path in self.path.glob("step-*.checkpoint") if path.name < keep_from.name)
        leftovers = self.path.glob(f"{TEMPORARY_PREFIX}*")
        for path in [*older[: len(older) - (_KEPT - 1)], *leftovers]:
            path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one file and check its digest.

    Raises:
        IntegrityError: it is cut, changed, or not a checkpoint.
    """
    data = memoryview(path.read_bytes())
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if body[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != digest:
        raise IntegrityError(f"Checkpoint {path} refused: its bytes are not what its digest says.")
    offset = len(_MAGIC) + 8
    header_bytes = int.from_bytes(body[len(_MAGIC) : offset], "little")
    header = json.loads(bytes(body[offset : offset + header_bytes]))
    offset += header_bytes
    arrays: dict[str, npt.NDArray[Any]] = {}
    for entry in header["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        arrays[entry["name"]] = np.frombuffer(body, dtype=dtype, count=count, offset=offset).reshape(shape)
        offset += count * dtype.itemsize
    return Checkpoint(step=header["step"], arrays=arrays, binding=header["binding"], state=header.get("state", {}))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing)
            writing.flush()
            os.fsync(writing.fileno())


def _name(step: int) -> str:
    return f"step-{step:010d}.checkpoint"


def _whole(path: Path) -> Checkpoint | None:
    try:
        return read_checkpoint(path)
    except (IntegrityError, FileNotFoundError):
        return None


def _pieces(checkpoint: Checkpoint) -> Iterator[bytes]:
    # ascontiguousarray would turn a scalar into a vector of one.
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    header = canonical_json(
        {
            "step": checkpoint.step,
            "binding": dict(checkpoint.binding),
            "state": dict(checkpoint.state),
            "arrays": [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in arrays.items()],
        }
    )
    yield _MAGIC + len(header).to_bytes(8, "little") + header
    for array in arrays.values():
        yield array.tobytes()


def _other_run(path: Path, *, found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return (
        f"Resuming refused: the checkpoints in {path} belong to another {' and another '.join(names)}. "
        "Use the same configuration and data, or another run id."
    )
