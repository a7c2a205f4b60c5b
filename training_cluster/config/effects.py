"""Keys that a configuration gives but that would do nothing, and keys that need another one.

Its place in the flow: `load_config` refuses them, since a key that is silently ignored is believed to
work. Only what the user wrote is looked at: resolved configurations hold every key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training_cluster.config.training_config import TrainingConfig


def keys_without_effect(document: Mapping[str, Any], config: TrainingConfig) -> Iterator[str]:
    """Yield a line for each key of the file that does nothing with the others as they are."""
    given = {f"{name}.{key}" for name, table in document.items() for key in table}
    for key, is_used, reason in _rules(config):
        if key in given and not is_used:
            yield f"{key}: has no effect {reason}"


def _rules(config: TrainingConfig) -> Iterator[tuple[str, bool, str]]:
    model, optimization = config.model, config.optimization
    name, is_own = model.architecture, ":" in model.architecture
    yield "model.widths", is_own or name.startswith("small-cnn"), f"on {name}, only on the small CNNs"
    is_normed = name != "small-cnn" and not name.startswith("convnext")
    yield "model.batch_norm_momentum", is_normed, f"on {name}, which has no batch normalisation"
    yield "model.width_multiplier", is_own or name.startswith("mobilenet"), f"on {name}, only on the MobileNets"
    yield "model.fine_tune_factor", model.frozen_epochs > 0, "without model.frozen_epochs"
    is_kept_frozen = model.frozen_epochs == 0 or bool(model.weights)
    yield "model.frozen_epochs", is_kept_frozen, "worth having without model.weights: the backbone would stay as drawn"
    has_momentum = optimization.optimizer in ("sgd", "rmsprop")
    yield "optimization.momentum", has_momentum, f"with {optimization.optimizer}, only with sgd and rmsprop"
    is_scaled = optimization.learning_rate_rule != "fixed"
    yield "optimization.reference_batch_size", is_scaled, "with learning_rate_rule fixed"
    schedule = optimization.schedule
    for key in ("decay_epochs", "decay_factor"):
        yield f"optimization.{key}", schedule in ("step", "exponential"), f"with schedule {schedule}"
    yield "optimization.final_rate_share", schedule in ("cosine", "linear"), f"with schedule {schedule}"
    is_evaluated = optimization.early_stopping_epochs == 0 or config.execution.is_evaluated
    yield "optimization.early_stopping_epochs", is_evaluated, "with execution.is_evaluated = false"
