"""What TensorBoard shows of a run: scalars, pictures of the mistakes, the configuration.

Its place in the flow: the trainer writes here while it runs; `tensorboard --logdir runs` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training_cluster.charts.pictures import confusion_matrix, draw_confusion_matrix, draw_mistakes

_SHOWN_MISTAKES = 24


class TrainingEvents:
    """Event files of one run: `train` and `validation` are curves in the same charts.

    Args:
        directory: the run's events folder.
        labels: the classes.
    """

    def __init__(self, directory: Path, *, labels: Sequence[str]) -> None:
        self._labels = labels
        self._train = tf.summary.create_file_writer(str(directory / "train"))
        self._validation = tf.summary.create_file_writer(str(directory / "validation"))

    def configuration(self, resolved: Mapping[str, Any]) -> None:
        """Write the resolved configuration as text."""
        text = "\n".join(f"    {line}" for line in json.dumps(resolved, indent=2, sort_keys=True).splitlines())
        with self._train.as_default():
            tf.summary.text("configuration", text, step=0)

    def training(self, *, step: int, **scalars: float) -> None:
        """Write scalars of the training examples."""
        _write_scalars(self._train, scalars, step)

    def validation(
        self,
        *,
        step: int,
        pixels: npt.NDArray[np.uint8],
        truth: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float32],
        **scalars: float,
    ) -> None:
        """Write scalars, the confusion matrix and the most confident mistakes.

        Args:
            step: steps done.
            pixels: the first validation photos uint8 [m, h, w, c]; mistakes among these are shown.
            truth: int64 [n], n ≥ m.
            probabilities: float32 [n, classes].
            scalars: by name.
        """
        _write_scalars(self._validation, scalars, step)
        predicted = probabilities.argmax(axis=1)
        matrix = confusion_matrix(truth, predicted, class_count=len(self._labels))
        with self._validation.as_default():
            tf.summary.image("confusion matrix", draw_confusion_matrix(matrix, self._labels)[None], step=step)
            shown = len(pixels)
            sheet = self._mistakes(pixels, truth[:shown], predicted[:shown], probabilities[:shown].max(axis=1))
            tf.summary.image("most confident mistakes", sheet[None], step=step)

    def flush(self) -> None:
        """Make what was written visible to readers."""
        self._train.flush()
        self._validation.flush()

    def close(self) -> None:
        """End the event files."""
        self._train.close()
        self._validation.close()

    def _mistakes(
        self,
        pixels: npt.NDArray[np.uint8],
        truth: npt.NDArray[np.int64],
        predicted: npt.NDArray[np.int64],
        confidences: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.uint8]:
        wrong = np.flatnonzero(truth != predicted)
        worst = wrong[np.argsort(-confidences[wrong], kind="stable")][:_SHOWN_MISTAKES]
        return draw_mistakes(
            pixels[worst],
            [self._labels[index] for index in truth[worst]],
            [self._labels[index] for index in predicted[worst]],
            [float(value) for value in confidences[worst]],
        )


def _write_scalars(writer: Any, scalars: Mapping[str, float], step: int) -> None:
    with writer.as_default():
        for name, value in scalars.items():
            tf.summary.scalar(name, value, step=step)
