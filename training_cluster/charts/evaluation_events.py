"""What TensorBoard shows of evaluations: loss and accuracy, each class, the confusion matrix, the worst mistakes.

Its place in the flow: the training session writes here after each epoch, `liftgate evaluate` beside it;
`tensorboard --logdir runs` shows both as curves in the same charts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from training_cluster.charts.pictures import draw_confusion_matrix, draw_mistakes
from training_cluster.training.evaluation import Evaluation, Mistakes

_CLASSES_WITH_CURVES = 100
"""More curves than this nobody looks through; the table of classes has them all."""


class EvaluationEvents:
    """Event files in one folder.

    Args:
        directory: where they lie; its name is the curve's.
        labels: the classes.
    """

    def __init__(self, directory: Path, *, labels: Sequence[str]) -> None:
        self._labels = labels
        self._writer = tf.summary.create_file_writer(str(directory))

    def write(self, found: Evaluation, mistakes: Mistakes | None) -> None:
        """Write one evaluation and make it visible to readers."""
        with self._writer.as_default(step=found.step):
            tf.summary.scalar("loss", found.loss)
            tf.summary.scalar("accuracy", found.accuracy)
            self._write_classes(found)
            tf.summary.image("confusion matrix", draw_confusion_matrix(found.confusion, self._labels)[None])
            if mistakes is not None:
                tf.summary.image("most confident mistakes", self._drawn(mistakes)[None])
        self._writer.flush()

    def close(self) -> None:
        """End the event files."""
        self._writer.close()

    def _write_classes(self, found: Evaluation) -> None:
        rows = list(zip(self._labels, found.recalls, found.precisions, strict=True))
        if len(rows) <= _CLASSES_WITH_CURVES:
            for label, recall, precision in rows:
                for name, value in (("recall", recall), ("precision", precision)):
                    if not np.isnan(value):
                        tf.summary.scalar(f"{name}/{label}", value)
        counts = found.confusion.sum(axis=1)
        lines = ["class | examples | recall | precision", "--- | --- | --- | ---"]
        lines += [f"{row[0]} | {count} | {row[1]:.3f} | {row[2]:.3f}" for row, count in zip(rows, counts, strict=True)]
        tf.summary.text("classes", "\n".join(lines))

    def _drawn(self, mistakes: Mistakes) -> np.ndarray:
        return draw_mistakes(
            mistakes.pixels,
            [self._labels[index] for index in mistakes.truth],
            [self._labels[index] for index in mistakes.predicted],
            [float(value) for value in mistakes.confidences],
        )
