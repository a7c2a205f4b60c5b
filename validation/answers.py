"""What both models answered to a set of photos, and what people said of them: the gate's raw material.

Its place in the flow: measure.py fills it, report.py counts it, gate.py tests it. It lives in memory
only, so that no file tells what the sealed photos said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.photos.holdout_record import HoldoutItem


@dataclass(frozen=True)
class Answers:
    """Scores of candidate and champion for the same photos, rows and columns in the holdout's order.

    Attributes:
        labels: the classes, the columns' names.
        items: the photos with their labels and slices.
        truth: the index of each photo's label, int64 [n].
        candidate: float32 [n, classes].
        champion: float32 [n, classes]; None for a first model.
    """

    labels: tuple[str, ...]
    items: tuple[HoldoutItem, ...]
    truth: NDArray[np.int64]
    candidate: NDArray[np.float32]
    champion: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.items)

    def select(self, mask: NDArray[np.bool_]) -> Answers:
        """Return the photos where `mask` [n] holds, in the same order."""
        return Answers(
            labels=self.labels,
            items=tuple(item for item, is_kept in zip(self.items, mask, strict=True) if is_kept),
            truth=self.truth[mask],
            candidate=self.candidate[mask],
            champion=None if self.champion is None else self.champion[mask],
        )

    @property
    def is_open(self) -> NDArray[np.bool_]:
        """Which photos are open, bool [n]."""
        return np.array([item.is_open for item in self.items], dtype=np.bool_)
