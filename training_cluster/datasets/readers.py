"""Where labelled photos are found: a folder for each class, or a CSV file with one row a photo.

Its place in the flow: dataset build and the freezing of a holdout both start from these lists. They
are read as they go, so that a list of a million photos is never held; one with wrong entries is
refused at its end, with the wrong ones named. Photos in buckets: stored_photos.py.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from artifact_sync.errors import InputError
from artifact_sync.labelled_photo import LabelledPhoto
from training_cluster.datasets.stored_photos import StoredPhoto

Photo = LabelledPhoto | StoredPhoto

_SHOWN_FAULTS = 50
_NOT_SLICES = ("path", "label", "annotator", "source")


def photos_from_folder(directory: Path) -> Iterator[LabelledPhoto]:
    """Yield the photos of `directory/<label>/…` in no order; the folder's name is the label.

    Hidden files are passed over.

    Raises:
        InputError: no such folder, a file outside of any class folder, or no photo at all.
    """
    if not directory.is_dir():
        raise InputError(f"Photos refused: there is no folder {directory}.")
    faults = _Faults()
    count = 0
    for name in _files(directory):
        if fault := _name_fault(name):
            faults.add(fault)
            continue
        count += 1
        yield LabelledPhoto(directory / name, label=name.partition("/")[0], source=f"folder:{name}")
    faults.refuse(where=str(directory), advice="Move each file into the folder of its class.")
    if not count:
        raise InputError(
            f"Photos refused: {directory} holds none. It needs a folder for each class, with photos in it."
        )


def photos_from_csv(path: Path) -> Iterator[Photo]:
    """Yield the photos of a CSV file with the columns `path`, `label` and any others beside them.

    Paths are relative to the CSV file, or s3://bucket/key. The columns `annotator` (who gave the label) and
    `source` (photos of the same one, such as a patient or a camera burst, stay together when examples are
    split) are known; any other column is a slice. A photo's own `source` is "<file>:<line>".

    Raises:
        InputError: no such file, not UTF-8, missing columns, or wrong rows; each row is named by its line.
    """
    faults = _Faults()
    count = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = _checked_columns(path, reader.fieldnames)
            for row in reader:
                place = f"{path.name}:{reader.line_num}"
                if fault := _row_fault(row, base=path.parent):
                    faults.add(f"{place}: {fault}")
                    continue
                count += 1
                yield _photo(row, base=path.parent, place=place)
    except OSError as error:
        raise InputError(f"Photos refused: {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Photos refused: {path} is not a CSV file in UTF-8: {error}.") from None
    faults.refuse(where=str(path), advice=f"Correct these rows; each needs {', '.join(columns)}.")
    if not count:
        raise InputError(f"Photos refused: {path} has no rows.")


class _Faults:
    """The first wrong entries of a list, and how many there are."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0

    def add(self, fault: str) -> None:
        self._count += 1
        if self._count <= _SHOWN_FAULTS:
            self._shown.append(fault)

    def refuse(self, *, where: str, advice: str) -> None:
        """Raise when there are any."""
        if not self._count:
            return
        shown = [f"  {fault}" for fault in sorted(self._shown)]
        if self._count > len(shown):
            shown.append(f"  and {self._count - len(shown)} more")
        raise InputError(
            f"Photos refused: {self._count} entries of {where} are wrong:\n" + "\n".join(shown) + f"\n{advice}"
        )


def _files(directory: Path, prefix: str = "") -> Iterator[str]:
    """Yield the files under a folder as "label/more/name", without hidden ones, one folder's entries at a time."""
    folders: list[str] = []
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield f"{prefix}{entry.name}"
    for folder in folders:
        yield from _files(directory, folder)


def _name_fault(name: str) -> str | None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{name!a}: its name is not UTF-8; rename it"
    if "/" not in name:
        return f"{name}: it lies in no class folder, so it has no label"
    return None


def _checked_columns(path: Path, found: Sequence[str] | None) -> tuple[str, ...]:
    columns = tuple(found or ())
    missing = [name for name in ("path", "label") if name not in columns]
    if missing or len(set(columns)) != len(columns) or "" in columns:
        raise InputError(
            f"Photos refused: {path}:1: the columns must be path, label, if you like annotator and source, and slices "
            f"of other names, each once; found {', '.join(columns) or 'none'}."
        )
    return columns


def _photo(row: Mapping[str, str], *, base: Path, place: str) -> Photo:
    said = {
        "label": row["label"].strip(),
        "source": place,
        "annotator": row.get("annotator", "").strip(),
        "origin": row.get("source", "").strip(),
    }
    slices = {name: value for name, value in row.items() if name not in _NOT_SLICES}
    if row["path"].startswith("s3://"):
        return StoredPhoto(row["path"], slices=slices, **said)
    return LabelledPhoto(base / row["path"], slices=slices, **said)


def _row_fault(row: Mapping[str, str], *, base: Path) -> str | None:
    # DictReader puts what is too much under the key None, and None where something is missing.
    if None in row or None in row.values():
        return "it has another number of columns than the first line"
    path = row["path"]
    if not row["label"].strip():
        return "it has no label"
    if not path.strip():
        return "it has no path"
    if "\0" in path:
        return "its path has a NUL in it"
    is_here = path.startswith("s3://") or (base / path).is_file()
    return None if is_here else f"there is no file {base / path}"
