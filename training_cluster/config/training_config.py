"""The configuration of one training: a TOML file that says everything a run depends on beside code and data.

Its place in the flow: `liftgate train` and the trainer read it; the resolved form, defaults included,
goes into run.json, and its digest into the lineage of a version.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from artifact_sync.canonical import FrozenModel, canonical_json, sha256_hex
from artifact_sync.errors import SettingsError

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class ModelTable(FrozenModel):
    """[model]: which network.

    Attributes:
        architecture: the builder's name.
        widths: channels of each stage of the small CNNs.
        dense_units: units of the hidden layer before the classes; 0 leaves it out.
        dropout: share of units dropped before the classes while training.
        batch_norm_momentum: of the running means; 0.9 settles in a few hundred steps, 0.99 does not.
        width_multiplier: the alpha of MobileNetV2.
    """

    architecture: Literal["small-cnn", "small-cnn-batchnorm", "mobilenet-v2"] = "small-cnn"
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=6)] = (16, 32)
    dense_units: Annotated[int, Field(ge=0)] = 128
    dropout: Share = 0.0
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    width_multiplier: Annotated[float, Field(gt=0, le=2)] = 1.0


class OptimizationTable(FrozenModel):
    """[optimization]: how long and how fast; the rate follows a cosine to 0 after a linear warm-up.

    Attributes:
        batch_size: examples of one step over all devices of all hosts.
        warmup_share: the share of all steps in which the rate rises.
    """

    epochs: PositiveInt = 5
    batch_size: PositiveInt = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_share: Share = 0.0
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Share = 0.0


class AugmentationTable(FrozenModel):
    """[augmentation]: random changes of the training pixels, drawn from seed and step, never from a shared state."""

    flip_horizontal: bool = False
    shift_pixels: Annotated[int, Field(ge=0, le=256)] = 0


class DataTable(FrozenModel):
    """[data]: what of the shards is used.

    Attributes:
        validation_share: share of the examples kept from training: the first in order of their
            digests, so that an example stays on its side when others come or go.
        max_examples: train on only so many; 0 takes all that are not for validation.
        shuffle_megabytes: memory that holds the examples from which the next one is drawn.
    """

    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    max_examples: Annotated[int, Field(ge=0)] = 0
    shuffle_megabytes: PositiveInt = 256


class ExecutionTable(FrozenModel):
    """[execution]: seeds, threads and the rhythm of writing.

    Attributes:
        is_deterministic: the same seed, threads and machine kind give the same bits; costs 0 to 3 %.
        threads: of one TensorFlow operation and between operations; 0 leaves it to TensorFlow.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    is_deterministic: bool = True
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    checkpoint_every_steps: PositiveInt = 500
    log_every_steps: PositiveInt = 20


class TrainingConfig(FrozenModel):
    """One training, resolved: every key has a value."""

    model: ModelTable = ModelTable()
    optimization: OptimizationTable = OptimizationTable()
    augmentation: AugmentationTable = AugmentationTable()
    data: DataTable = DataTable()
    execution: ExecutionTable = ExecutionTable()

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
