"""The directory in which a machine remembers the newest metadata that it has seen.

Its place in the flow: this memory is what an old state is recognised by, so it is used by one
process at a time and made durable before anybody acts on what was read.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifact_sync.durable import fsync_tree

_LOCK = ".lock"


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory alone, over threads and processes; the kernel lets go when a holder dies."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_leftovers(directory)
        yield


def make_durable(directory: Path) -> None:
    """Make what was remembered survive a power cut, so that an old state stays recognisable."""
    fsync_tree(directory)


def seen_snapshot_number(directory: Path) -> int:
    """Return the number of the newest snapshot that this machine has believed, 0 when it has none."""
    try:
        return int(json.loads((directory / "snapshot.json").read_bytes())["signed"]["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def _remove_leftovers(directory: Path) -> None:
    # The client writes to tmpXXXXXXXX and renames; a killed one leaves that file behind.
    for path in directory.glob("tmp*"):
        path.unlink(missing_ok=True)
