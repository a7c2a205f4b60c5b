"""Judges rates of the inputs: what holds them up, and whether GPUs of a stated speed would wait for them.

Its place in the flow: pure; `liftgate data bench` prints what it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training_cluster.measure.stages import StageName, StageRate

_REMEDIES: dict[StageName, str] = {
    "reading": "bring the dataset nearer: a local disk, or a cache there for one that is streamed",
    "parsing": "it is copying in memory: more cores, or smaller pictures",
    "augmenting": "fewer changes in [augmentation], or more cores",
    "handing over": "a larger optimization.batch_size",
    "to the device": "the bus to the GPU is the limit: smaller pictures, or GPUs on another root",
}


@dataclass(frozen=True)
class Feeding:
    """Whether GPUs that take so many images a second can be fed.

    Attributes:
        gpu_rate: what the GPUs take.
        hosts: how many hosts like this one feed them together.
        busy_share: how much of the time the GPUs work when this host alone feeds them; at most 1.
    """

    gpu_rate: float
    hosts: int
    busy_share: float

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        if self.hosts == 1:
            return f"GPUs that take {self.gpu_rate:,.0f} images/s are fed by this host."
        return (
            f"GPUs that take {self.gpu_rate:,.0f} images/s would wait {1 - self.busy_share:.0%} of the time on this "
            f"host; {self.hosts} hosts like it feed them."
        )


def bottleneck(stages: Sequence[StageRate]) -> StageRate:
    """Return the stage that gives the fewest images alone."""
    return min(stages, key=lambda stage: stage.images_per_second)


def remedy(stage: StageName) -> str:
    """Return what helps when this stage holds the others up."""
    return _REMEDIES[stage]


def feeding(images_per_second: float, *, gpu_rate: float) -> Feeding:
    """Judge whether inputs of `images_per_second` feed GPUs that take `gpu_rate`."""
    return Feeding(gpu_rate, math.ceil(gpu_rate / images_per_second), min(1.0, images_per_second / gpu_rate))
