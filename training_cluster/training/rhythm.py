"""What the workers of a training ask each other between two steps, and how often.

Its place in the flow: the session asks after each step and each part of an evaluation. All workers have
to do the same steps, so whether to end is a question to all of them. It costs an all-reduce, so with
several workers it is asked about once a second, however long a step takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifact_sync.clock import Clock

if TYPE_CHECKING:
    from training_cluster.training.workers import Workers

_SECONDS = 1.0


@dataclass(frozen=True)
class Answer:
    """What at least one worker wants."""

    is_stopping: bool
    wants_histograms: bool


_NOTHING = Answer(is_stopping=False, wants_histograms=False)


class Questions:
    """Asks all workers; each of them asks equally often.

    Args:
        workers: who is asked.
        clock: measures how long a step takes.
    """

    def __init__(self, workers: Workers, clock: Clock) -> None:
        self._workers = workers
        self._clock = clock
        self._asked_at = clock.monotonic()
        self._since = 0
        self._until = 1

    def ask(self, *, is_due: bool, is_stopping: bool, wants_histograms: bool = False) -> Answer:
        """Return what all workers want; between two questions nobody wants anything.

        Args:
            is_due: ask now; all workers say so at the same steps.
            is_stopping: whether this one was asked to end.
            wants_histograms: whether somebody wished for histograms here.
        """
        if self._workers.count == 1:
            return Answer(is_stopping, wants_histograms)
        self._since += 1
        if not is_due and self._since < self._until:
            return _NOTHING
        seconds = (self._clock.monotonic() - self._asked_at) / self._since
        wanted = max(1, min(int(_SECONDS / max(seconds, 1e-3)), 1000))
        answers = self._workers.gather([int(is_stopping), int(wants_histograms), wanted])
        self._since, self._until = 0, int(answers[:, 2].min())
        self._asked_at = self._clock.monotonic()
        return Answer(bool(answers[:, 0].any()), bool(answers[:, 1].any()))
