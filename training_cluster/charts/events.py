"""What TensorBoard shows of a training: curves, histograms, the configuration, the graph, the examples of an epoch.

Its place in the flow: the chief writes here while it trains; `tensorboard --logdir runs` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import summary_v2 as hparams_summary

from training_cluster.training.checkpoint import Arrays


class TrainingEvents:
    """Event files of one training, `train` in the run's events folder.

    Args:
        directory: the run's events folder.
    """

    def __init__(self, directory: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(directory / "train"))

    def beginning(self, resolved: Mapping[str, Any], *, distribution: Mapping[str, int], run_id: str) -> None:
        """Write what is known before the first step.

        Args:
            resolved: the configuration; runs are compared by its keys on the page of hyperparameters.
            distribution: examples that an epoch shows, by label.
            run_id: names the run on that page.
        """
        text = "\n".join(f"    {line}" for line in json.dumps(resolved, indent=2, sort_keys=True).splitlines())
        rows = [f"{label} | {count}" for label, count in distribution.items()]
        with self._writer.as_default(step=0):
            tf.summary.text("configuration", text)
            tf.summary.text("examples of an epoch", "\n".join(["class | examples", "--- | ---", *rows]))
            hparams_summary.hparams(dict(_flat(resolved)), trial_id=run_id)

    def graph(self, model: keras.Model) -> None:
        """Write the operations of the model as it is served."""
        spec = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
        concrete = tf.function(lambda pixels: model(pixels, training=False)).get_concrete_function(spec)
        with self._writer.as_default():
            tf.summary.graph(concrete.graph)

    def scalars(self, *, step: int, **scalars: float) -> None:
        """Write figures of the training examples."""
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def histograms(self, arrays: Arrays, *, step: int) -> None:
        """Write the distribution of the values of each array."""
        with self._writer.as_default(step=step):
            for name, array in arrays.items():
                tf.summary.histogram(name, array)
        self._writer.flush()

    def flush(self) -> None:
        """Make what was written visible to readers."""
        self._writer.flush()

    def close(self) -> None:
        """End the event files."""
        self._writer.close()


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the keys of all tables with their values, as the page of hyperparameters takes them."""
    flat: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", value if isinstance(value, (bool, int, float, str)) else json.dumps(value)))
    return flat
