"""The folder beside a dataset-to-be that holds what a build has done so far: one build at a time, kept until the end.

Its place in the flow: dataset build works in it; the finished dataset leaves it by one rename.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifact_sync.durable import make_directory
from artifact_sync.errors import RefusedError

UNFINISHED = "parts"
"""The subfolder whose existence says that there is work that the next build can use."""


def building_folder(out_dir: Path) -> Path:
    """Return where the build of `out_dir` keeps its state."""
    return out_dir.parent / f".building-{out_dir.name}"


@contextmanager
def locked_building_folder(out_dir: Path) -> Iterator[Path]:
    """Yield the folder, made when missing, while no other process may use it; it stays as long as UNFINISHED is in it.

    Raises:
        RefusedError: another process builds this dataset.
    """
    directory = building_folder(out_dir)
    while True:
        make_directory(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(
                    f"Dataset refused: another process is building {out_dir}. Wait for it, or name another folder."
                ) from None
            if not _is_still(directory, descriptor):
                # The build before removed the folder between our two steps.
                continue
            try:
                yield directory
            finally:
                if not (directory / UNFINISHED).exists():
                    shutil.rmtree(directory)
            return
        finally:
            os.close(descriptor)


def _is_still(directory: Path, descriptor: int) -> bool:
    try:
        return directory.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
