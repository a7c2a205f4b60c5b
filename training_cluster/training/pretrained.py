"""Where a backbone's weights come from when they are not drawn: ImageNet, a file, another run.

Its place in the flow: the loop calls it once, before the optimizer and the averages see the weights.
Only arrays are read, never a file that could hold code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.errors import IntegrityError, SettingsError
from training_cluster.config.tables import ModelTable
from training_cluster.networks.backbones import PUBLISHED
from training_cluster.networks.network import HEAD_LAYERS
from training_cluster.training.checkpoint import read_checkpoint
from training_cluster.training.predictor import named_variables, served_weights

IMAGENET = "imagenet"
_PUBLISHED_SHAPE = (224, 224, 3)
_SUFFIX = ".checkpoint"


def load_backbone(model: keras.Model, table: ModelTable) -> str:
    """Give the model's backbone the weights that the configuration names; return what they were, with a digest.

    Raises:
        SettingsError: they cannot be had, or belong to another network.
    """
    if not table.weights:
        return ""
    if table.weights == IMAGENET:
        return _load_imagenet(model, table)
    path = Path(table.weights)
    if path.suffix == ".h5":
        return _load_file(model, path, table)
    return _load_checkpoint(model, path, table)


def _load_imagenet(model: keras.Model, table: ModelTable) -> str:
    published = PUBLISHED.get(table.architecture)
    if published is None:
        raise SettingsError(
            f"Training refused: there are no ImageNet weights for {table.architecture}. Leave out model.weights, "
            "or name a run or a file."
        )
    backbone = _backbone_of(model, table)
    try:
        fetched = published.model(table, _PUBLISHED_SHAPE, weights=IMAGENET)
    except ValueError as error:
        raise SettingsError(f"Training refused: no ImageNet weights for this {table.architecture}: {error}") from None
    # Keras raises plain exceptions when it cannot fetch.
    except Exception as error:
        raise SettingsError(_not_fetched(table, error)) from error
    for mine, theirs in zip(backbone.variables, fetched.variables, strict=True):
        mine.assign(theirs.numpy())
    return f"{IMAGENET} {_digest({str(index): v.numpy() for index, v in enumerate(fetched.variables)})}"


def _not_fetched(table: ModelTable, error: Exception) -> str:
    urls = re.findall(r"https?://[^\s'\"]+?(?=:?(?:\s|$))", str(error))
    where = urls[0] if urls else "keras.io/api/applications"
    return (
        f"Training refused: the ImageNet weights of {table.architecture} cannot be fetched from here "
        f"({str(error).splitlines()[0]}). Fetch {where} where there is a way out, put it on every host under one "
        "path, and name that in model.weights."
    )


def _load_file(model: keras.Model, path: Path, table: ModelTable) -> str:
    try:
        _backbone_of(model, table).load_weights(path)
        return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except FileNotFoundError:
        raise SettingsError(f"Training refused: there are no weights {path} on this host.") from None
    # What h5py and Keras raise depends on where the file stops to fit.
    except (ValueError, KeyError, OSError, IndexError, TypeError) as error:
        raise SettingsError(
            f"Training refused: {path} does not hold the weights of a {table.architecture} without its classes: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _load_checkpoint(model: keras.Model, path: Path, table: ModelTable) -> str:
    file = _checkpoint_file(path)
    try:
        found = served_weights(read_checkpoint(file).arrays)
    except IntegrityError as error:
        raise SettingsError(f"Training refused: model.weights: {error}") from None
    wanted = _backbone_variables(model)
    for name, variable in wanted.items():
        shape = np.shape(found[name]) if name in found else None
        if shape != tuple(variable.shape):
            raise SettingsError(
                f"Training refused: {file} holds another network than {table.architecture} with this [model]: "
                f"its {name.removeprefix('model/')} has shape {shape}, {tuple(variable.shape)} is needed."
            )
    for name, variable in wanted.items():
        variable.assign(found[name])
    return f"{file.parent.parent.name}/{file.name} {_digest({name: found[name] for name in wanted})}"


def _checkpoint_file(path: Path) -> Path:
    """Return the file that is meant: itself, or a run's best, or its newest."""
    if path.suffix == _SUFFIX and path.is_file():
        return path
    for folder in (path / "checkpoints", path):
        found = [*folder.glob(f"best{_SUFFIX}"), *sorted(folder.glob(f"step-*{_SUFFIX}"), reverse=True)]
        if found:
            return found[0]
    raise SettingsError(
        f"Training refused: model.weights {path} is no .h5 file, no checkpoint and no run folder with checkpoints "
        "on this host."
    )


def _backbone_of(model: keras.Model, table: ModelTable) -> keras.Model:
    backbone = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    if backbone is None:
        raise SettingsError(
            f"Training refused: {table.architecture} is a network of your own, whose weights can come only from a run "
            "or a checkpoint of it."
        )
    return backbone


def _backbone_variables(model: keras.Model) -> dict[str, Any]:
    own = {id(v) for layer in model.layers if layer.name not in HEAD_LAYERS for v in layer.variables}
    named = named_variables("model", model.variables)
    return {name: v for name, v in named if id(v) in own and tf.as_dtype(v.dtype).is_floating}


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"
