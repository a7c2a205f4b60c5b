"""Where in an epoch a training is, and which part of each batch one process feeds.

Its place in the flow: the session keeps the position in its checkpoints; the input pipeline makes from
it exactly the examples that are still to be seen in this epoch, whatever number of hosts saw the others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Steps of one epoch that were done by so many input pipelines (one a host)."""

    pipelines: int
    steps: int


@dataclass(frozen=True)
class EpochPosition:
    """An epoch and what was done of it, in order; a change of the number of hosts begins another segment."""

    epoch: int
    done: tuple[Segment, ...] = ()

    @property
    def steps(self) -> int:
        """Steps of the epoch that are done."""
        return sum(segment.steps for segment in self.done)

    def after(self, steps: int, *, pipelines: int) -> EpochPosition:
        """Return the position after `steps` more steps by so many pipelines."""
        if not steps:
            return self
        *before, last = (*self.done, Segment(pipelines, 0)) if not self.done else self.done
        if last.pipelines != pipelines:
            return EpochPosition(self.epoch, (*self.done, Segment(pipelines, steps)))
        return EpochPosition(self.epoch, (*before, Segment(pipelines, last.steps + steps)))


@dataclass(frozen=True)
class ReplicaShare:
    """Which part of each global batch an input pipeline feeds: `replicas` of `replicas * pipelines` in all."""

    pipelines: int = 1
    pipeline: int = 0
    replicas: int = 1
