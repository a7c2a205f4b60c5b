"""Where labelled photos are found: a folder for each class, or a CSV file with one row a photo.

Its place in the flow: dataset build and the freezing of a holdout both start from these lists. A
list with a wrong row is refused, with every wrong row named.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from artifact_sync.errors import InputError
from artifact_sync.labelled_photo import LabelledPhoto

_SHOWN_FAULTS = 50


def photos_from_folder(directory: Path) -> tuple[LabelledPhoto, ...]:
    """Return the photos of `directory/<label>/…`, sorted; the folder's name is the label, hidden files are passed over.

    Raises:
        InputError: no such folder, a file outside of any class folder, or no photo at all.
    """
    if not directory.is_dir():
        raise InputError(f"Photos refused: there is no folder {directory}.")
    faults: list[str] = []
    photos: list[LabelledPhoto] = []
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        if len(parts) == 1:
            faults.append(f"{path.name}: it lies in no class folder, so it has no label")
            continue
        photos.append(LabelledPhoto(path, label=parts[0], source=f"folder:{'/'.join(parts)}"))
    _refuse(faults, where=str(directory), advice="Move each file into the folder of its class.")
    if not photos:
        raise InputError(
            f"Photos refused: {directory} holds none. It needs a folder for each class, with photos in it."
        )
    return tuple(photos)


def photos_from_csv(path: Path) -> tuple[LabelledPhoto, ...]:
    """Return the photos of a CSV file with the columns `path`, `label` and any slices beside them.

    Paths are relative to the CSV file. `source` is "<file>:<line>".

    Raises:
        InputError: no such file, not UTF-8, missing columns, or wrong rows; each row is named by its line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = _checked_columns(path, reader.fieldnames)
            photos, faults = _rows(path, reader)
    except OSError as error:
        raise InputError(f"Photos refused: {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Photos refused: {path} is not a CSV file in UTF-8: {error}.") from None
    _refuse(faults, where=str(path), advice=f"Correct these rows; each needs {', '.join(columns)}.")
    if not photos:
        raise InputError(f"Photos refused: {path} has no rows.")
    return tuple(photos)


def _checked_columns(path: Path, found: Sequence[str] | None) -> tuple[str, ...]:
    columns = tuple(found or ())
    missing = [name for name in ("path", "label") if name not in columns]
    if missing or len(set(columns)) != len(columns) or "" in columns:
        raise InputError(
            f"Photos refused: {path}:1: the columns must be path, label and slices of other names, each once; "
            f"found {', '.join(columns) or 'none'}."
        )
    return columns


def _rows(path: Path, reader: csv.DictReader[str]) -> tuple[list[LabelledPhoto], list[str]]:
    photos: list[LabelledPhoto] = []
    faults: list[str] = []
    for row in reader:
        place = f"{path.name}:{reader.line_num}"
        # DictReader puts what is too much under the key None, and None where something is missing.
        if None in row or None in row.values():
            faults.append(f"{place}: it has another number of columns than the first line")
        elif fault := _row_fault(row, base=path.parent):
            faults.append(f"{place}: {fault}")
        else:
            slices = {name: value for name, value in row.items() if name not in ("path", "label")}
            photos.append(LabelledPhoto(path.parent / row["path"], row["label"].strip(), source=place, slices=slices))
    return photos, faults


def _row_fault(row: Mapping[str, str], *, base: Path) -> str | None:
    if not row["label"].strip():
        return "it has no label"
    if not row["path"].strip():
        return "it has no path"
    if "\0" in row["path"]:
        return "its path has a NUL in it"
    if not (base / row["path"]).is_file():
        return f"there is no file {base / row['path']}"
    return None


def _refuse(faults: Sequence[str], *, where: str, advice: str) -> None:
    if not faults:
        return
    shown = [f"  {fault}" for fault in faults[:_SHOWN_FAULTS]]
    if len(faults) > _SHOWN_FAULTS:
        shown.append(f"  and {len(faults) - _SHOWN_FAULTS} more")
    raise InputError(
        f"Photos refused: {len(faults)} entries of {where} are wrong:\n" + "\n".join(shown) + f"\n{advice}"
    )
