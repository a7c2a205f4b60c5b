"""The configuration of one training: a TOML file that says everything a run depends on beside code and data.

Its place in the flow: `liftgate train` and the trainer read it; the resolved form, defaults included,
goes into run.json, and its digest into the lineage of a version.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from artifact_sync.canonical import FrozenModel, canonical_json, sha256_hex
from artifact_sync.errors import SettingsError
from training_cluster.config.tables import (
    AugmentationTable,
    DataTable,
    ExecutionTable,
    ExportTable,
    ModelTable,
    OptimizationTable,
)


class TrainingConfig(FrozenModel):
    """One training, resolved: every key has a value."""

    model: ModelTable = ModelTable()
    optimization: OptimizationTable = OptimizationTable()
    augmentation: AugmentationTable = AugmentationTable()
    data: DataTable = DataTable()
    execution: ExecutionTable = ExecutionTable()
    export: ExportTable = ExportTable()

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, as JSON values."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """The digest of the resolved configuration's canonical JSON."""
        return sha256_hex(canonical_json(self.resolved()))


def load_config(path: Path) -> TrainingConfig:
    """Read a training's TOML file.

    Raises:
        SettingsError: no such file, not TOML, or keys or values that are not known; all are named at once.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"Training refused: there is no configuration {path}. Name one that is there.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"Training refused: {path} is not TOML: {error}.") from None
    try:
        return TrainingConfig.model_validate(document)
    except ValidationError as error:
        lines = [_explain(detail["type"], detail["loc"], detail["msg"]) for detail in error.errors()]
        raise SettingsError(f"Training refused: {path} has {len(lines)} wrong keys:\n  " + "\n  ".join(lines)) from None


def _explain(kind: str, location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in location)
    if kind != "extra_forbidden":
        return f"{name}: {message}"
    near = _nearest(name, list(_known_names(TrainingConfig)))
    hint = f"did you mean {near}?" if near else f"known tables are {', '.join(TrainingConfig.model_fields)}."
    return f"{name}: unknown key; {hint}"


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the known name that is meant: the same key of another table, else one that is spelled alike."""
    key = name.rpartition(".")[2]
    elsewhere = [entry for entry in known if entry.rpartition(".")[2] == key]
    return next(iter([*elsewhere, *difflib.get_close_matches(name, known, n=1, cutoff=0.7)]), None)


def _known_names(table: type[BaseModel], prefix: str = "") -> Iterable[str]:
    fields: Mapping[str, Any] = table.model_fields
    for name, field in fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _known_names(field.annotation, f"{prefix}{name}.")
