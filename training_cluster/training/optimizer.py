"""Optimizers by name, for gradients that were summed over all replicas before.

Its place in the flow: the loop sums the gradients itself, so that clipping sees the norm of the whole
batch's gradient and float16's overflow is noticed by all replicas alike. Keras' own would clip each
replica's part alone and sum afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from training_cluster.config.tables import OptimizationTable

_RMSPROP_EPSILON = 1e-3


class _Summed:
    """Mixed into Keras' optimizers: gradients come summed, so they are not summed again."""

    def _all_reduce_sum_gradients(self, gradients_and_variables: Iterable[Any]) -> list[Any]:
        return list(gradients_and_variables)


class _Adam(_Summed, keras.optimizers.Adam):  # type: ignore[misc]
    pass


class _AdamW(_Summed, keras.optimizers.AdamW):  # type: ignore[misc]
    pass


class _SGD(_Summed, keras.optimizers.SGD):  # type: ignore[misc]
    pass


class _RMSprop(_Summed, keras.optimizers.RMSprop):  # type: ignore[misc]
    pass


class _Lamb(_Summed, keras.optimizers.Lamb):  # type: ignore[misc]
    pass


def build_optimizer(table: OptimizationTable, variables: Sequence[Any], *, is_loss_scaled: bool) -> Any:
    """Return the optimizer with its state, all zero, for `variables`.

    Weight decay is apart from the gradient (Loshchilov and Hutter, 2019) with every optimizer, and
    leaves biases and normalisations alone: it takes only variables of two and more dimensions.

    Args:
        table: the configuration's [optimization].
        variables: all that is ever trained, frozen ones too.
        is_loss_scaled: for float16, whose small gradients would be 0 otherwise; steps that overflow are left out.
    """
    optimizer = _by_name(table)
    undecayed = [variable for variable in variables if len(variable.shape) < 2]
    optimizer.exclude_from_weight_decay(var_list=undecayed)
    if is_loss_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def forget_gradients(optimizer: Any) -> None:
    """Set the optimizer's memory of past gradients back to its beginning.

    Without it the first steps of a backbone that was frozen would be several times too long: its moments
    are empty, but the count of steps says that they are not.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in inner.variables:
        if variable.path != inner.learning_rate.path:
            variable.assign(tf.zeros(variable.shape, variable.dtype))


def _by_name(table: OptimizationTable) -> Any:
    shared: dict[str, Any] = {
        "name": table.optimizer,
        "learning_rate": table.learning_rate,
        "weight_decay": table.weight_decay or None,
        "global_clipnorm": table.gradient_clip_norm or None,
    }
    match table.optimizer:
        case "adam":
            return _Adam(**shared)
        case "adamw":
            return _AdamW(**{**shared, "weight_decay": table.weight_decay})
        case "sgd":
            return _SGD(**shared, momentum=table.momentum, nesterov=table.momentum > 0)
        case "rmsprop":
            return _RMSprop(**shared, momentum=table.momentum, epsilon=_RMSPROP_EPSILON)
        case "lamb":
            return _Lamb(**shared)
