"""Reads parts of files that lie in a local folder.

Its place in the flow: a data source reads blocks through this when the dataset is on this host's disks.
"""

from __future__ import annotations

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
        # Opened for each read: a dataset may have more shards than a process may have descriptors.
        try:
            with (self._directory / name).open("rb", buffering=0) as stream:
                stream.seek(offset)
                data = stream.read(size_bytes)
                while 0 < len(data) < size_bytes and (more := stream.read(size_bytes - len(data))):
                    data += more
        except OSError as error:
            raise self._unreadable(name, error) from None
        return data

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _size_fault(self, name: str, size_bytes: int) -> str | None:
        try:
            found = (self._directory / name).stat().st_size
        except OSError:
            return "missing"
        return None if found == size_bytes else f"{found} bytes instead of {size_bytes}"

    def _unreadable(self, name: str, error: OSError) -> TrainingError:
        return TrainingError(
            f"Training stopped: {self._directory / name} cannot be read: {error.strerror}. "
            "Bring the file or the disk back and start the run again; it goes on from its checkpoint."
        )
