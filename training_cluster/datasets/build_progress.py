"""How far a stage of a build is: done, in all, how fast, how long still.

Its place in the flow: dataset build tells it to whoever shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS_BETWEEN = 0.2


@dataclass(frozen=True)
class BuildProgress:
    """Where a build is.

    Attributes:
        stage: "listing", "reading", "comparing" or "writing".
        done: photos that are through this stage.
        total: photos that this stage has; None while nobody knows.
        rate: photos a second in this build; those done by an earlier one that was interrupted do not count.
        seconds_left: of this stage; None while nobody knows.
    """

    stage: str
    done: int
    total: int | None
    rate: float
    seconds_left: float | None


Progress = Callable[[BuildProgress], None]


class Meter:
    """Counts the photos of one stage and tells of them a few times a second, and at its end.

    Args:
        progress: who is told; None tells nobody.
        stage: the stage's name.
        total: how many photos it has, when that is known.
        done: how many of them an earlier build did.
    """

    def __init__(self, progress: Progress | None, stage: str, *, total: int | None = None, done: int = 0) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._before, self._done = done, done
        self._began = self._told = time.monotonic()

    def add(self, count: int = 1) -> None:
        """Count photos that are through."""
        self._done += count
        if self._progress is not None and time.monotonic() - self._told >= _SECONDS_BETWEEN:
            self._tell()

    def finish(self) -> None:
        """Tell how many there were."""
        self._tell()

    def _tell(self) -> None:
        if self._progress is None:
            return
        self._told = time.monotonic()
        rate = (self._done - self._before) / max(self._told - self._began, 1e-9)
        left = (self._total - self._done) / rate if self._total is not None and rate else None
        self._progress(BuildProgress(self._stage, self._done, self._total, rate, left))
