"""The processes that train together: which strategy, who is the chief, what all must agree on.

Its place in the flow: the trainer asks here once and then writes files only where `is_chief`. One
device needs no strategy, several GPUs of a host are mirrored, several hosts are named by TF_CONFIG
as TensorFlow documents it (worker 0 is the chief).
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import tensorflow as tf

from artifact_sync.errors import SettingsError
from training_cluster.training.checkpoint import Arrays


class Workers:
    """All processes of one training, seen from one of them."""

    def __init__(self, strategy: tf.distribute.Strategy, *, count: int, index: int) -> None:
        self.strategy = strategy
        self.count = count
        self.index = index
        # Made once: a new function would be traced anew at each question.
        self._add = tf.function(self._add_over_replicas)

    @classmethod
    def join(cls) -> Workers:
        """Make the strategy; with several workers it waits for the others. Call it before any other use of TensorFlow.

        Raises:
            SettingsError: TF_CONFIG is malformed.
        """
        count, index = _from_tf_config(os.environ.get("TF_CONFIG", ""))
        if count > 1:
            return cls(tf.distribute.MultiWorkerMirroredStrategy(), count=count, index=index)
        if len(tf.config.list_physical_devices("GPU")) > 1:
            return cls(tf.distribute.MirroredStrategy(), count=1, index=0)
        return cls(tf.distribute.get_strategy(), count=1, index=0)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, events and the export."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Return whether any worker says so; all must ask at the same step."""
        if self.count == 1:
            return flag
        return bool(self._sum(tf.constant(int(flag), tf.int64)) > 0)

    def step_of_chief(self, step: int) -> int:
        """Return the chief's value on every worker."""
        if self.count == 1:
            return step
        return int(self._sum(tf.constant(step if self.is_chief else 0, tf.int64), once=True))

    def arrays_of_chief(self, arrays: Arrays) -> Arrays:
        """Return the chief's arrays on every worker; the others hand in arrays of the same shapes."""
        if self.count == 1:
            return arrays
        return {name: self._from_chief(array) for name, array in arrays.items()}

    def _from_chief(self, array: Any) -> Any:
        # All-reduce knows no unsigned integers, which the states of Keras' seed generators are.
        carried = array.astype(np.int64) if array.dtype.kind in "iub" else array
        mine = carried if self.is_chief else np.zeros_like(carried)
        return self._sum(tf.constant(mine), once=True).numpy().astype(array.dtype)

    def _sum(self, value: Any, *, once: bool = False) -> Any:
        """Return the sum over all replicas, or over the first replica of each worker."""
        return self._add(value, tf.constant(once))

    def _add_over_replicas(self, value: Any, once: Any) -> Any:
        def reduce(value: Any, once: Any) -> Any:
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.count) == 0
            counted = tf.cast(tf.logical_or(is_first, tf.logical_not(once)), value.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value * counted)

        sums = self.strategy.run(reduce, args=(value, once))
        return self.strategy.experimental_local_results(sums)[0]


def _from_tf_config(text: str) -> tuple[int, int]:
    if not text:
        return 1, 0
    try:
        document = json.loads(text)
        return len(document["cluster"]["worker"]), int(document["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"Training refused: TF_CONFIG is not of the form "
            f'{{"cluster": {{"worker": [...]}}, "task": {{"type": "worker", "index": 0}}}}: {error!r}.'
        ) from None
