"""The threads in which models run.

Its place in the flow: one pool for all models. Work is done in the order in which it was put, so
that a model with much to do does not hold up another. A thread that waits costs nothing.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_SECONDS = 3600.0


class WorkerPool:
    """Threads that take work from one line; `start` before the first work, `stop` after the last.

    Args:
        thread_count: how many pieces of work are done at once.
        name: the beginning of the threads' names.
    """

    def __init__(self, thread_count: int, *, name: str = "run") -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._alarm_numbers = itertools.count()
        self._alarm_changed = threading.Condition()
        self._is_stopping = False
        self._threads = [
            threading.Thread(target=self._do_work, name=f"{name}_{number}", daemon=True)
            for number in range(thread_count)
        ]
        self._threads.append(threading.Thread(target=self._sound_alarms, name=f"{name}_alarms", daemon=True))
        self.put = self._work.put
        """Do a piece of work in one of the threads; it may not raise."""

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Do what was put, then end the threads; alarms that have not sounded are dropped."""
        with self._alarm_changed:
            self._is_stopping = True
            self._alarm_changed.notify()
        for _ in self._threads[:-1]:
            self._work.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def put_at(self, moment: float, alarm: Callable[[], None]) -> None:
        """Call `alarm` at a moment of time.monotonic(), in a thread of its own; it may neither block nor raise."""
        with self._alarm_changed:
            heapq.heappush(self._alarms, (moment, next(self._alarm_numbers), alarm))
            if self._alarms[0][0] == moment:
                self._alarm_changed.notify()

    def _do_work(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:  # noqa: BLE001  (the edge of a thread: one bug may not take it away from all models)
                _LOG.exception("work failed unexpectedly")
            # Else the last request's memory would stay until the next one comes.
            del work

    def _sound_alarms(self) -> None:
        while (alarm := self._next_alarm()) is not None:
            alarm()

    def _next_alarm(self) -> Callable[[], None] | None:
        with self._alarm_changed:
            while not self._is_stopping:
                wait_seconds = self._alarms[0][0] - time.monotonic() if self._alarms else None
                if wait_seconds is not None and wait_seconds <= 0:
                    return heapq.heappop(self._alarms)[2]
                self._alarm_changed.wait(None if wait_seconds is None else min(wait_seconds, _LONGEST_WAIT_SECONDS))
            return None
