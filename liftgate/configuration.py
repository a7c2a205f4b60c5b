"""Settings of one installation: one TOML file < environment < flags, each key checked.

Its place in the flow: every verb loads this first and hands each package its own frozen model.
The file has `model = "..."` and one table a package; an environment variable names table and key,
`LIFTGATE_STORE__URL`. Relative paths in the file are relative to the file's directory.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from artifact_sync.errors import SettingsError
from artifact_sync.records import ModelName
from artifact_sync.settings import StoreSettings, TrustSettings
from serving.settings import AgentSettings
from training_cluster.settings import TrainingSettings
from validation.settings import ValidationSettings
from web.settings import WebSettings

DEFAULT_FILE = "liftgate.toml"
_PREFIX = "LIFTGATE_"


class KeySettings(BaseModel):
    """The table [keys]: the signing keys that this person or machine has.

    Args:
        root: the root keys' files, of which `keys init` and `keys rotate` need the threshold.
        approver: the approver's own key file.
        releaser: the key file of the machine that promotes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: tuple[Path, ...] = ()
    approver: Path | None = None
    releaser: Path | None = None


class Settings(BaseModel):
    """Everything that can be set; a missing table means that table's defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName
    store: StoreSettings | None = None
    trust: TrustSettings | None = None
    keys: KeySettings = KeySettings()
    training: TrainingSettings = TrainingSettings()
    validation: ValidationSettings = ValidationSettings()
    agent: AgentSettings = AgentSettings()
    web: WebSettings = WebSettings()


def load_settings(path: Path | None, *, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read and merge the settings.

    Raises:
        SettingsError: no file, not TOML, an unknown key (with the nearest known one), a bad value.
    """
    path = _find_file(path, environment)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"Settings file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"Settings file {path} is not TOML: {error}.") from None
    _resolve_paths(document, Settings, path.resolve().parent)
    for name, value in environment.items():
        if name.startswith(_PREFIX) and "__" in name:
            _set_from_environment(document, name, value)
        elif name == f"{_PREFIX}MODEL":
            document["model"] = value
    _refuse_unknown_keys(document, Settings, where=str(path))
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"Setting {key} refused ({path}): {first['msg']}; found {first['input']!r}.") from None


def _find_file(path: Path | None, environment: Mapping[str, str]) -> Path:
    if path is None:
        path = Path(environment.get("LIFTGATE_CONFIG") or DEFAULT_FILE)
    if not path.is_file():
        raise SettingsError(
            f"No settings file at {path}. Name one with --config or LIFTGATE_CONFIG; "
            "docs/command-line.md shows a complete example."
        )
    return path


def _tables(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {}
    for name, field in model.model_fields.items():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found[name] = candidate
    return found


def _resolve_paths(document: dict[str, Any], model: type[BaseModel], base: Path) -> None:
    tables = _tables(model)
    for name, field in model.model_fields.items():
        value = document.get(name)
        if name in tables and isinstance(value, dict):
            _resolve_paths(value, tables[name], base)
        elif isinstance(value, str) and Path in (field.annotation, *get_args(field.annotation)):
            document[name] = str(base / Path(value).expanduser())
        elif isinstance(value, list) and Path in get_args(field.annotation):
            document[name] = [str(base / Path(entry).expanduser()) for entry in value]


def _set_from_environment(document: dict[str, Any], name: str, value: str) -> None:
    *tables, key = name.removeprefix(_PREFIX).lower().split("__")
    target = document
    for table in tables:
        target = target.setdefault(table, {})
        if not isinstance(target, dict):
            raise SettingsError(f"Environment variable {name} refused: {table} is a single value, not a table.")
    target[key] = value


def _refuse_unknown_keys(document: Mapping[str, Any], model: type[BaseModel], *, where: str, table: str = "") -> None:
    tables = _tables(model)
    for key, value in document.items():
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, model.model_fields, n=1)
            advice = f"Did you mean {table}{near[0]}?" if near else f"Known keys: {', '.join(model.model_fields)}."
            raise SettingsError(f"Unknown setting {table}{key} ({where}). {advice}")
        if key in tables and isinstance(value, Mapping):
            _refuse_unknown_keys(value, tables[key], where=where, table=f"{table}{key}.")
