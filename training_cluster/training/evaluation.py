"""How a model does on the validation examples: loss, accuracy, each class, and the photos it is most wrong about.

Its place in the flow: the session and `liftgate evaluate` count batch by batch into a `Tally`; several
workers add theirs up. Nothing grows with the number of examples. Without TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training_cluster.charts.pictures import confusion_matrix

_MISTAKES = 24


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found after `step` steps.

    Attributes:
        step: steps done.
        loss: the mean cross entropy.
        confusion: counts int64 [classes, classes]: row = what it is, column = what it was taken for.
    """

    step: int
    loss: float
    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    @property
    def is_number(self) -> bool:
        """Whether the loss is one; weights that give another answer are worthless."""
        return math.isfinite(self.loss)

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """For each class the share of its examples that were recognised; NaN for a class without examples."""
        return _shares(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precisions(self) -> npt.NDArray[np.float64]:
        """For each class the share of the answers that named it rightly; NaN for a class that was never named."""
        return _shares(np.diag(self.confusion), self.confusion.sum(axis=0))

    def to_document(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """Return it as JSON values; a share of nothing is null."""
        counts = self.confusion.sum(axis=1)
        classes = {
            label: {"examples": int(counts[index]), "recall": _number(recall), "precision": _number(precision)}
            for index, (label, recall, precision) in enumerate(zip(labels, self.recalls, self.precisions, strict=True))
        }
        return {
            "step": self.step,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "examples": int(counts.sum()),
            "classes": classes,
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The most confident wrong answers, the worst first.

    Attributes:
        pixels: uint8 [n, h, w, c].
        truth: int64 [n], what it is.
        predicted: int64 [n], what it was taken for.
        confidences: float64 [n].
    """

    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float64]

    def none(self) -> Mistakes:
        """Return no mistakes, of the same kind of pictures."""
        return Mistakes(self.pixels[:0], self.truth[:0], self.predicted[:0], self.confidences[:0])

    def merged(self, other: Mistakes) -> Mistakes:
        """Return the worst of both."""
        confidences = np.concatenate([self.confidences, other.confidences])
        kept = np.argsort(-confidences, kind="stable")[:_MISTAKES]
        return Mistakes(
            np.concatenate([self.pixels, other.pixels])[kept],
            np.concatenate([self.truth, other.truth])[kept],
            np.concatenate([self.predicted, other.predicted])[kept],
            confidences[kept],
        )


class Tally:
    """Counts answers.

    Args:
        class_count: the number of labels.
    """

    def __init__(self, class_count: int) -> None:
        self._class_count = class_count
        self._loss = 0.0
        self._confusion = np.zeros((class_count, class_count), np.int64)
        self._mistakes: Mistakes | None = None

    def add(self, logits: npt.NDArray[Any], labels: npt.NDArray[np.int64], pixels: npt.NDArray[np.uint8]) -> None:
        """Count one batch: logits [n, classes], labels [n], pixels [n, h, w, c]."""
        chances = _log_softmax(logits.astype(np.float64))
        predicted = chances.argmax(axis=1)
        self._loss -= float(chances[np.arange(len(labels)), labels].sum())
        self._confusion += confusion_matrix(labels, predicted, class_count=self._class_count)
        wrong = np.flatnonzero(predicted != labels)
        confidences = np.exp(chances[wrong].max(axis=1, initial=-np.inf))
        found = Mistakes(pixels[wrong], labels[wrong], predicted[wrong], confidences)
        self._mistakes = (self._mistakes or found.none()).merged(found)

    @property
    def sums(self) -> Mapping[str, npt.NDArray[Any]]:
        """What workers add up: "loss" float64 [1] and "confusion" int64 [classes, classes]."""
        return {"loss": np.array([self._loss]), "confusion": self._confusion}

    @property
    def mistakes(self) -> Mistakes | None:
        """The worst of what this tally saw; None before the first batch."""
        return self._mistakes


def concluded(sums: Mapping[str, npt.NDArray[Any]], *, step: int) -> Evaluation:
    """Return the evaluation that the sums of all workers make."""
    count = max(1, int(sums["confusion"].sum()))
    return Evaluation(step=step, loss=float(sums["loss"][0]) / count, confusion=sums["confusion"])


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    answer: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return answer


def _shares(right: npt.NDArray[np.int64], of: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    answer: npt.NDArray[np.float64] = np.divide(right, of, out=np.full(len(of), np.nan), where=of > 0)
    return answer


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
