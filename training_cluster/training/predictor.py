"""The model as it would be served: what evaluation and export call.

Its place in the flow: the session and `liftgate evaluate` hand it weights, of the training that goes on
or of a checkpoint, and ask it for answers; the export writes its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.records import InputContract
from training_cluster.config.training_config import TrainingConfig
from training_cluster.networks.network import build_model
from training_cluster.training.checkpoint import Arrays

AVERAGE_PREFIX = "average/"
"""Before the names of averaged weights in a training's state."""


class Predictor:
    """The model as it would be served, on this process's own device, for evaluation and export.

    It is a copy of the model in training: one that is spread over replicas can only be called by all of
    them together, and served weights are averaged ones and in float32.
    """

    def __init__(self, config: TrainingConfig, *, contract: InputContract, class_count: int) -> None:
        self.model = build_model(config.model, contract=contract, class_count=class_count)
        self._call = tf.function(lambda pixels: self.model(pixels, training=False), reduce_retracing=True)

    def take(self, arrays: Arrays) -> None:
        """Take over the weights of `TrainingLoop.served_weights`, or of a checkpoint."""
        weights = served_weights(arrays)
        for name, variable in named_variables("model", self.model.variables):
            variable.assign(weights[name])

    def answers(self, batches: tf.data.Dataset) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Yield the logits float32 [n, classes] and the labels int64 [n] of each batch."""
        for pixels, labels in batches:
            yield self._call(pixels).numpy(), labels.numpy()


def served_weights(arrays: Arrays) -> Arrays:
    """Return the model's weights out of a training's whole state: averages where they are kept."""
    weights = {name: array for name, array in arrays.items() if name.startswith("model/")}
    averages = {name: array for name, array in arrays.items() if name.startswith(AVERAGE_PREFIX)}
    return weights | {name.removeprefix(AVERAGE_PREFIX): array for name, array in averages.items()}


def named_variables(owner: str, variables: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each variable with a name that is unique and the same in every process."""
    for index, variable in enumerate(variables):
        yield f"{owner}/{index:04d}/{variable.name}", variable
