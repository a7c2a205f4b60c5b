"""This machine's memory of the ledgers' entries, so that it notices when the bucket forgets some.

Its place in the flow: ledger.py asks it at every reading. One line an entry, only ever appended:

    <holdout> <number> <kind> <sha256>
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from artifact_sync.durable import make_directory
from artifact_sync.errors import IntegrityError, StoreError


class SeenEntries:
    """The entries that this machine has seen, in one file for each model.

    Args:
        path: the file; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def check(self, digests: Mapping[tuple[int, str], str], *, holdout_sha256: str) -> None:
        """Refuse a ledger that lacks what was seen of it; remember what is new.

        Raises:
            IntegrityError: an entry that was seen is gone or another.
            StoreError: the file cannot be read or written.
        """
        if self._path is None:
            return
        text = self._text()
        seen = _parse(text).get(holdout_sha256, {})
        for (number, kind), sha256 in sorted(seen.items()):
            if digests.get((number, kind)) != sha256:
                raise IntegrityError(
                    f"The budget of holdout {holdout_sha256[:12]} is refused: this machine has seen its entry "
                    f"{number:06d}.{kind} with the SHA-256 {sha256}, and the bucket has "
                    f"{digests.get((number, kind), 'none')}. Somebody set the budget back; restore the object from "
                    "a backup."
                )
        new = sorted(set(digests) - set(seen))
        if new:
            lines = [f"{holdout_sha256} {number:06d} {kind} {digests[number, kind]}\n" for number, kind in new]
            # A line that a crash cut off is closed first.
            self._append(("\n" if text and not text.endswith("\n") else "") + "".join(lines))

    def holdouts(self) -> frozenset[str]:
        """Return the digests of the holdouts whose entries were seen.

        Raises:
            StoreError: the file cannot be read.
        """
        return frozenset(_parse(self._text()))

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8") if self._path is not None and self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(error) from None

    def _append(self, text: str) -> None:
        assert self._path is not None
        try:
            make_directory(self._path.parent)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # One write: what two processes append at once does not mix.
                os.write(descriptor, text.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"The memory of budgets {self._path} cannot be used ({error}). Make the file readable and writable."
        )


def _parse(text: str) -> dict[str, dict[tuple[int, str], str]]:
    seen: dict[str, dict[tuple[int, str], str]] = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) == 4 and len(fields[0]) == len(fields[3]) == 64 and fields[1].isdecimal():
            seen.setdefault(fields[0], {})[int(fields[1]), fields[2]] = fields[3]
    return seen
