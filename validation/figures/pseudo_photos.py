"""A metric as a mean over photos, so that a bound for means serves any metric.

Its place in the flow: metric_comparison.py bounds metrics by bounded_mean.py through here, and asks
how many labels would do. Each photo's value is what the jackknife says that it adds (Tukey's
pseudo-value; for a metric that is a mean, just its own value), and the worst one is that of a
photo that was not drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from validation.figures.bootstrap import influence_of
from validation.figures.bounded_mean import lower_bound
from validation.figures.metric_sums import SummedFigure
from validation.figures.metrics import Floats
from validation.figures.power import smallest_count


@dataclass(frozen=True)
class PseudoPhotos:
    """A figure as a mean over photos.

    Attributes:
        value: the figure.
        values: what each kind of photo adds; their mean is the figure, or near it.
        counts: how many photos of each kind there are.
        worst, best: the least and the greatest that any photo could add.
    """

    value: float
    values: Floats
    counts: Floats
    worst: float
    best: float

    @classmethod
    def of(cls, figure: SummedFigure) -> PseudoPhotos:
        """Return the pseudo-values of a figure of two photos or more."""
        value, photos = figure.value, figure.photos
        unseen = value + (photos + 1) * (figure.moved(figure.extremes, sign=1) - value)
        values = value + influence_of(figure)
        return cls(
            value=value,
            values=values,
            counts=figure.counts.astype(np.float64),
            worst=float(min(unseen.min(), values.min())),
            best=float(max(unseen.max(), values.max())),
        )

    def mirrored(self) -> PseudoPhotos:
        """Return the same figure with its sign changed."""
        return PseudoPhotos(
            value=-self.value, values=-self.values, counts=self.counts, worst=-self.best, best=-self.worst
        )

    def moved_to(self, value: float | None) -> PseudoPhotos:
        """Return photos as they would be if the figure were `value`; None leaves them."""
        return self if value is None else replace(self, value=value, values=self.values + value - self.value)

    def lower_bound(self, level: float, *, photos: float | None = None) -> float:
        """Return the bound at `level`, for as many photos as there are or `photos` alike."""
        times = 1.0 if photos is None else photos / float(self.counts.sum())
        return lower_bound(self.values, self.counts * times, worst=self.worst, level=level)

    def labels_to_exceed(self, line: float, *, level: float, power: float) -> int | None:
        """Return how many photos alike put the bound over `line` with probability `power`."""
        if self.value <= line:
            return None
        spread = math.sqrt(float(self.counts @ (self.values - self.value) ** 2 / self.counts.sum()))
        chance = float(stats.norm.ppf(power)) * spread

        def is_enough(photos: int) -> bool:
            return self.lower_bound(level, photos=photos) - chance / math.sqrt(photos) > line

        return smallest_count(is_enough, more_than=1)
