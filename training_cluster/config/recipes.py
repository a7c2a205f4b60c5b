"""What a network is trained with where the configuration says nothing: starting points for each architecture.

Its place in the flow: `load_config` puts these under the keys of the user's file, and the resolved form
that goes into a run holds every value, so that a run never depends on this table as it is later.

| architecture | from scratch | with `model.weights` |
|---|---|---|
| small-cnn… | the defaults of tables.py | one frozen epoch, then a tenth of the rate |
| mobilenet-… | AdamW 1e-3, decay 0.02, dropout 0.2, crops ≥ 0.5 | AdamW 3e-4, crops ≥ 0.6, frozen as above |
| efficientnet-… | as MobileNet; dropout 0.3, crops ≥ 0.4, averages 0.999 | as MobileNet; dropout 0.3 |
| resnet-50 | SGD 0.1 · batch/256, decay 5e-4, crops ≥ 0.35 | SGD 0.01, decay 5e-4, else as MobileNet |
| convnext-… | AdamW 1e-3 · √(batch/256), decay 0.05, erased 0.25, averages 0.999 | the same at 1e-4, frozen as above |

All but the small CNNs have no hidden layer before the classes, warm up, smooth the labels by 0.1, clip the
gradient's norm at 1 and mirror pictures: set `augmentation.flip_horizontal = false` where left and right
are different things. A file that names another optimizer than its architecture's gets that optimizer's
own rate and decay. A network of the user's own gets the defaults of tables.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training_cluster.config.tables import ARCHITECTURES, ModelTable, OptimizationTable

Recipe = Mapping[str, Any]
"""Values by dotted key, "optimization.learning_rate"."""

_BY_OPTIMIZER: Mapping[str, Recipe] = {
    "adam": {},
    "adamw": {"optimization.weight_decay": 0.01},
    "sgd": {"optimization.learning_rate": 0.01},
    "rmsprop": {},
    "lamb": {"optimization.learning_rate": 2e-3, "optimization.weight_decay": 0.01},
}
_OF_ONE_OPTIMIZER = frozenset(
    f"optimization.{key}"
    for key in ("learning_rate", "learning_rate_rule", "reference_batch_size", "weight_decay", "momentum")
)

_PHOTOS: Recipe = {
    "model.dense_units": 0,
    "optimization.optimizer": "adamw",
    "optimization.learning_rate": 1e-3,
    "optimization.weight_decay": 0.02,
    "optimization.warmup_share": 0.05,
    "optimization.label_smoothing": 0.1,
    "optimization.gradient_clip_norm": 1.0,
    "augmentation.flip_horizontal": True,
    "augmentation.crop_share": 0.5,
    "augmentation.brightness": 0.1,
    "augmentation.contrast": 0.1,
}
_TUNED: Recipe = {"model.frozen_epochs": 1, "model.fine_tune_factor": 0.1}
_TUNED_PHOTOS: Recipe = {**_PHOTOS, **_TUNED, "optimization.learning_rate": 3e-4, "augmentation.crop_share": 0.6}
_EFFICIENT: Recipe = {"model.dropout": 0.3, "augmentation.crop_share": 0.4, "optimization.ema_decay": 0.999}
_RESIDUAL: Recipe = {
    "optimization.optimizer": "sgd",
    "optimization.learning_rate": 0.1,
    "optimization.learning_rate_rule": "linear",
    "optimization.weight_decay": 5e-4,
    "augmentation.crop_share": 0.35,
}
_CONVNEXT: Recipe = {
    "optimization.learning_rate_rule": "square-root",
    "optimization.weight_decay": 0.05,
    "optimization.ema_decay": 0.999,
    "augmentation.erase_share": 0.25,
}
_FAMILIES: Mapping[str, tuple[Recipe, Recipe]] = {
    "small-cnn": ({}, _TUNED),
    "mobilenet": ({**_PHOTOS, "model.dropout": 0.2}, {**_TUNED_PHOTOS, "model.dropout": 0.2}),
    "efficientnet": ({**_PHOTOS, **_EFFICIENT}, {**_TUNED_PHOTOS, "model.dropout": 0.3}),
    "resnet": (
        {**_PHOTOS, **_RESIDUAL},
        {
            **_TUNED_PHOTOS,
            "optimization.optimizer": "sgd",
            "optimization.learning_rate": 0.01,
            "optimization.weight_decay": 5e-4,
        },
    ),
    "convnext": (
        {**_PHOTOS, **_CONVNEXT},
        {**_TUNED_PHOTOS, **_CONVNEXT, "optimization.learning_rate": 1e-4},
    ),
}


def with_recipe(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's document with the values of its architecture and optimizer under its own."""
    model, optimization = _table(document, "model"), _table(document, "optimization")
    architecture = model.get("architecture", ModelTable().architecture)
    recipe = recipe_of(str(architecture), has_weights=bool(model.get("weights")))
    usual = recipe.get("optimization.optimizer", OptimizationTable().optimizer)
    optimizer = optimization.get("optimizer", usual)
    if optimizer != usual:
        recipe = {key: value for key, value in recipe.items() if key not in _OF_ONE_OPTIMIZER}
    own = _BY_OPTIMIZER.get(optimizer, {}) if isinstance(optimizer, str) else {}
    filled = {name: dict(table) if isinstance(table, Mapping) else table for name, table in document.items()}
    for key, value in {**own, **recipe}.items():
        name, _, entry = key.partition(".")
        table = filled.setdefault(name, {})
        if isinstance(table, dict) and _is_wanted(key, table):
            table.setdefault(entry, value)
    return filled


def recipe_of(architecture: str, *, has_weights: bool) -> Recipe:
    """Return what an architecture is trained with unless the configuration says otherwise."""
    if architecture not in ARCHITECTURES:
        return {}
    family = next(name for name in _FAMILIES if architecture.startswith(name))
    return _FAMILIES[family][has_weights]


def _is_wanted(key: str, table: Mapping[str, Any]) -> bool:
    """Return whether a value goes with what the user said: no factor after a freezing that was turned off."""
    return key != "model.fine_tune_factor" or table.get("frozen_epochs", 1) != 0


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    return table if isinstance(table, Mapping) else {}
