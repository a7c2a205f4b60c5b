"""Work that nobody waits for: copies of people's requests, made by few threads from a short queue.

Its place in the flow: the front end offers a copy once a person's answer is ready and goes on at
once; threads of its own ask the shadow. What hangs, fails or is too much costs copies, never answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

_LOG = logging.getLogger("liftgate.traffic.shadow")
CopyT = TypeVar("CopyT")


class CopyQueue(Generic[CopyT]):
    """A bounded queue and its threads; they run while it is used as a context manager.

    Args:
        work: done for each copy in a thread of the queue's own; it should keep a deadline.
        workers: how many copies are worked on at once, at most.
        max_waiting: how many copies may wait.
        max_waiting_bytes: how much memory the copies that wait may hold.
        stop_seconds: how long leaving the block waits for copies that are being worked on.
    """

    def __init__(
        self,
        work: Callable[[CopyT], None],
        *,
        workers: int,
        max_waiting: int,
        max_waiting_bytes: int,
        stop_seconds: float,
    ) -> None:
        self._work = work
        self._workers = workers
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._stop_seconds = stop_seconds
        self._waiting: deque[tuple[CopyT, int]] = deque()
        self._waiting_bytes = 0
        self._is_open = False
        # Held for a few instructions only and never while a copy is worked on, so taking it is no waiting.
        self._changed = threading.Condition(threading.Lock())
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._is_open = True
        self._threads = [
            threading.Thread(target=self._run, name=f"shadow-{number}", daemon=True) for number in range(self._workers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_open = False
            self._waiting.clear()
            self._waiting_bytes = 0
            self._changed.notify_all()
        end = time.monotonic() + self._stop_seconds
        for thread in self._threads:
            # One that ignores its deadline is left behind: it is a daemon and holds nothing that lasts.
            thread.join(max(0.0, end - time.monotonic()))

    def offer(self, copy: CopyT, *, size_bytes: int) -> bool:
        """Leave a copy to be worked on; return at once, False when it was not taken."""
        with self._changed:
            is_room = len(self._waiting) < self._max_waiting
            if not (self._is_open and is_room and self._waiting_bytes + size_bytes <= self._max_waiting_bytes):
                return False
            self._waiting.append((copy, size_bytes))
            self._waiting_bytes += size_bytes
            self._changed.notify()
            return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._is_open)
                if not self._is_open:
                    return
                copy, size_bytes = self._waiting.popleft()
                self._waiting_bytes -= size_bytes
            try:
                self._work(copy)
            except Exception:  # noqa: BLE001 - the thread's edge: a surprise must not end the copying
                _LOG.exception("a shadow copy was not foreseen")


def score_distance(
    labels: Sequence[str], scores: Sequence[float], other_labels: Sequence[str], other_scores: Sequence[float]
) -> float:
    """Return how far two answers for one photo lie apart: the total variation distance, 0 (same) to 1.

    It is half the sum of the differences over the labels that both have; versions may have different
    ones, in another order. Without a common label nothing is alike: 1.
    """
    mine = dict(zip(labels, scores, strict=True))
    others = dict(zip(other_labels, other_scores, strict=True))
    shared = mine.keys() & others.keys()
    if not shared:
        return 1.0
    # Scores that are no distribution (each label for itself) can differ by more than a whole.
    return min(1.0, sum(abs(float(mine[label]) - float(others[label])) for label in sorted(shared)) / 2)
