"""How fast models answer on this machine's CPU, one beside the other.

Its place in the flow: an export tells run.json what folding and bfloat16 gained where it was made;
a host without fast bfloat16 would measure something else, so nothing is claimed that was not seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from training_cluster.exports.answers import Answer, Pixels

BATCH_SIZES = (1, 8, 32)

_ROUNDS = 30
_SECONDS = 0.7
"""After so long a batch size has been looked at enough; slow networks are asked twice at least."""
_LONGEST_SECONDS = 4.0
"""When one round takes longer, larger batches are not measured."""


@dataclass
class Speeds:
    """Seconds that each model took for a batch, in rounds of all models, by size of the batch."""

    seconds: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    def images_per_second(self, name: str) -> dict[int, float]:
        """Return the rate of one model at each size of a batch."""
        return {size: size / float(np.median(taken[name])) for size, taken in self.seconds.items()}

    def gain(self, name: str, *, over: str) -> dict[int, float]:
        """Return how many times as fast as another a model is: the median over the rounds, in which both had a turn."""
        return {size: float(np.median(np.divide(taken[over], taken[name]))) for size, taken in self.seconds.items()}


def measured_speeds(answers: Mapping[str, Answer], pixels: Pixels) -> Speeds:
    """Let models answer batches of `pixels`, repeated where they are too few, in turn."""
    speeds = Speeds()
    for size in BATCH_SIZES:
        batch = np.resize(pixels, (size, *pixels.shape[1:]))
        longest = sum(_seconds(answer, batch) for answer in answers.values())
        if longest > _LONGEST_SECONDS:
            break
        taken: dict[str, list[float]] = {name: [] for name in answers}
        began = time.perf_counter()
        for number in range(_ROUNDS):
            if number > 1 and time.perf_counter() - began > _SECONDS:
                break
            for name, answer in answers.items():
                taken[name].append(_seconds(answer, batch))
        speeds.seconds[size] = taken
    return speeds


def _seconds(answer: Answer, batch: Pixels) -> float:
    began = time.perf_counter()
    answer(batch)
    return time.perf_counter() - began
