"""Reads parts of files that lie in a local folder.

Its place in the flow: a data source reads blocks through this when the dataset is on this host's disks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from artifact_sync.errors import IntegrityError, NotFoundError, TrainingError


class FolderRanges:
    """The files of one folder; safe to use from several threads.

    Attributes:
        connections: how many reads at once are worth while.
        is_near: bytes that were right once stay right.
    """

    connections = 4
    is_near = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Look whether files are there with their sizes, without reading them.

        Raises:
            IntegrityError: names every file that is missing or of another size.
        """
        wrong = [f"{name}: {fault}" for name, size in sizes.items() if (fault := self._size_fault(name, size))]
        if wrong:
            raise IntegrityError(
                f"The dataset in {self._directory} is not what its manifest says:\n  "
                + "\n  ".join(wrong)
                + "\nBuild it again, or copy it again."
            )

    def read_whole(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            NotFoundError: there is no such file.
            TrainingError: it cannot be read.
        """
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"There is no {name} in {self._directory}.") from None
        except OSError as error:
            raise self._unreadable(name, error) from None

    def read(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        """Return so many bytes of a file, or fewer where it ends before.

        Raises:
            TrainingError: it cannot be read.
        """
        try:
            data = os.pread(self._descriptor(name), size_bytes, offset)
            while 0 < len(data) < size_bytes:
                more = os.pread(self._descriptor(name), size_bytes - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise self._unreadable(name, error) from None
        return data

    def _size_fault(self, name: str, size_bytes: int) -> str | None:
        try:
            found = (self._directory / name).stat().st_size
        except OSError:
            return "missing"
        return None if found == size_bytes else f"{found} bytes instead of {size_bytes}"

    def _descriptor(self, name: str) -> int:
        with self._lock:
            if name not in self._descriptors:
                self._descriptors[name] = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
            return self._descriptors[name]

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _unreadable(self, name: str, error: OSError) -> TrainingError:
        return TrainingError(
            f"Training stopped: {self._directory / name} cannot be read: {error.strerror}. "
            "Bring the file or the disk back and start the run again; it goes on from its checkpoint."
        )
