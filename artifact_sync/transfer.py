"""Several transfers at once: bounded, counted in bytes, and stopped together at the first failure.

Its place in the flow: push and pull both move a manifest's files through it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all; from any thread, but never from two at once."""


class Progress:
    """Counts the bytes of all transfers and tells the callback.

    Args:
        callback: told at the start and after each piece; None tells nobody.
        total_bytes: what there is to do in all.
    """

    def __init__(self, callback: ProgressCallback | None, *, total_bytes: int) -> None:
        self._callback = callback
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()

    def add(self, size_bytes: int) -> None:
        """Count `size_bytes` as done."""
        with self._lock:
            self._done_bytes += size_bytes
            if self._callback is not None:
                self._callback(self._done_bytes, self._total_bytes)


def run_all(job: Callable[[T], R], items: Iterable[T], *, workers: int, stop: threading.Event) -> list[R]:
    """Return `job(item)` for each item, in order; at most `workers` run at once.

    At the first failure, or an interrupt, `stop` is set, what has not begun is dropped, what runs is
    waited for, and the failure of the earliest item is raised.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(job, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]
