"""The configuration of one training: a TOML file that says everything a run depends on beside code and data.

Its place in the flow: `liftgate train` and the trainer read it; the resolved form, defaults included,
goes into run.json, and its digest into the lineage of a version.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from artifact_sync.canonical import FrozenModel, canonical_json, sha256_hex
from artifact_sync.errors import LiftgateError, SettingsError
from training_cluster.config.documents import JSON_SUFFIX, read_document, with_files
from training_cluster.config.effects import keys_without_effect
from training_cluster.config.recipes import with_recipe
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
    """Read a training's TOML file, or the resolved form that a run holds as JSON.

    What the TOML file leaves out has the values that are usual for its architecture (recipes.py). A boost
    manifest and weights that it names are looked for beside it.

    Raises:
        SettingsError: no such file, not TOML or JSON, or keys or values that are not known, or that do
            nothing; all are named at once.
    """
    document = read_document(path)
    if path.suffix == JSON_SUFFIX:
        return _validated(document, path)
    document = with_files(document, folder=path.parent)
    config = _validated(with_recipe(document), path)
    idle = list(keys_without_effect(document, config))
    if idle:
        raise _refused(path, idle)
    return config


def main(arguments: list[str]) -> int:
    """Write the resolved form of a TOML file as JSON: `IN.toml OUT.json`."""
    source, target = (Path(argument) for argument in arguments)
    try:
        target.write_bytes(canonical_json(load_config(source).resolved()))
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _validated(document: Mapping[str, Any], path: Path) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate(document)
    except ValidationError as error:
        # An alternative that does not fit is an error of its own; the key is named once.
        lines = dict.fromkeys(_explain(detail["type"], detail["loc"], detail["msg"]) for detail in error.errors())
        raise _refused(path, list(lines)) from None


def _refused(path: Path, lines: list[str]) -> SettingsError:
    listed = "\n  ".join(lines)
    return SettingsError(f"Training refused: {path} has {len(lines)} wrong keys:\n  {listed}")


def _explain(kind: str, location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in location)
    if name.startswith("optimization.class_weights."):
        return 'optimization.class_weights: "none", "balanced", or a number above 0 for each label that is named'
    if kind != "extra_forbidden":
        return f"{name}: {message.removeprefix('Value error, ')}"
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
