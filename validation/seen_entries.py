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
        try:
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            seen = _parse(text, holdout_sha256=holdout_sha256)
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
                self._append(
                    [f"{holdout_sha256} {number:06d} {kind} {digests[number, kind]}" for number, kind in new],
                    is_torn=bool(text) and not text.endswith("\n"),
                )
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"The memory of budgets {self._path} cannot be used ({error}). Make the file readable and writable."
            ) from None

    def _append(self, lines: list[str], *, is_torn: bool) -> None:
        assert self._path is not None
        make_directory(self._path.parent)
        # One write: what two processes append at once does not mix. A line cut off by a crash is closed first.
        data = ("\n" if is_torn else "") + "".join(f"{line}\n" for line in lines)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, data.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parse(text: str, *, holdout_sha256: str) -> dict[tuple[int, str], str]:
    seen = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) == 4 and fields[0] == holdout_sha256 and fields[1].isdecimal() and len(fields[3]) == 64:
            seen[int(fields[1]), fields[2]] = fields[3]
    return seen
