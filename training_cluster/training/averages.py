"""The moving average of the weights: what is evaluated and exported when `ema_decay` is set.

Its place in the flow: the loop lets it follow after each step and keeps it in the checkpoints; the
weights in training are never touched by it. Running means of normalisations are averaged too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from training_cluster.training.predictor import AVERAGE_PREFIX

_FIRST_STEPS = 10.0
"""In the first steps the average is shorter than `ema_decay` says: the drawn weights are soon forgotten."""


class WeightAverages:
    """One average for each floating-point variable of a model.

    Args:
        strategy: whose scope the averages are made in.
        variables: the model's, with their names.
        decay: the share of the old average in the new one.
    """

    def __init__(self, strategy: Any, variables: Iterator[tuple[str, Any]], *, decay: float) -> None:
        self._strategy = strategy
        self._decay = decay
        self._followed: dict[str, Any] = {}
        self._averages: dict[str, Any] = {}
        for name, variable in variables:
            if tf.as_dtype(variable.dtype).is_floating:
                self._followed[name] = variable.value
                self._averages[name] = tf.Variable(variable.numpy(), trainable=False)

    def follow(self, step: Any) -> None:
        """Take in the weights after step `step`, a tensor counted from 0; inside the step's function."""
        kept = tf.minimum(self._decay, (1.0 + step) / (_FIRST_STEPS + step))

        def move(average: Any, value: Any) -> None:
            average.assign_sub((average - value) * (1.0 - kept))

        for name, average in self._averages.items():
            self._strategy.extended.update(average, move, args=(self._followed[name],), group=False)

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yield each average by the name of the variable that it follows, with `AVERAGE_PREFIX` before it."""
        for name, average in self._averages.items():
            yield f"{AVERAGE_PREFIX}{name}", average
