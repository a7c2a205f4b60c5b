"""The files that make up a configuration: TOML or resolved JSON, and the files that it names.

Its place in the flow: `load_config` reads them here and puts their content in, so that a resolved
configuration stands for itself.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifact_sync.errors import SettingsError

JSON_SUFFIX = ".json"
_FETCHED_WEIGHTS = "imagenet"


def read_document(path: Path, *, kind: str = "configuration") -> dict[str, Any]:
    """Return what a TOML or JSON file holds.

    Raises:
        SettingsError: there is no such file, or it is neither.
    """
    language = "JSON" if path.suffix == JSON_SUFFIX else "TOML"
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if language == "JSON" else tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"Training refused: there is no {kind} {path}. Name one that is there.") from None
    except OSError as error:
        raise SettingsError(f"Training refused: the {kind} {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"Training refused: {path} is not {language}: {error}.") from None
    if not isinstance(document, dict):
        raise SettingsError(f"Training refused: {path} holds no tables.")
    return document


def with_files(document: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return the document with the boost manifest's content, and paths of weights made absolute.

    A boost manifest has a table [classes] and tables [slices.COLUMN], as `data.boost` has.

    Raises:
        SettingsError: the boost manifest is not there, or is neither TOML nor JSON.
    """
    filled = dict(document)
    data, model = document.get("data"), document.get("model")
    if isinstance(data, dict) and isinstance(data.get("boost"), str):
        filled["data"] = {**data, "boost": read_document(folder / data["boost"], kind="boost manifest")}
    if isinstance(model, dict) and isinstance(model.get("weights"), str):
        weights = model["weights"]
        if weights not in ("", _FETCHED_WEIGHTS):
            filled["model"] = {**model, "weights": str((folder / weights).absolute())}
    return filled
