"""How one run is carried out: in the thread that asks for it, or in TensorFlow's own threads.

Its place in the flow: session.py asks for each run.

A run in the caller's thread costs the small CNN 63 us of CPU instead of 146 us, since no operation
is handed from thread to thread, and MobileNetV2 6.5 ms instead of 7.3 ms (measured, one thread
inside an operation). But TensorFlow looks at the time only while it waits for its own threads: a
run in the caller's thread is not ended at its deadline. So a run that may come near its deadline
goes to TensorFlow's threads, and one that has always been much quicker stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from serving.embedded_server.tensorflow_library import TensorFlowLibrary
from serving.protos import runtime_pb2

_CALLERS_THREAD = -1
# Memory is measured from the first level on. Higher ones start a profiler, of which a process has only one:
# of first runs that come at once all but one would fail (ALREADY_EXISTS).
_TRACE_LEVEL = 1
_SAFETY_FACTOR = 20.0
_FORGETTING = 0.9


class RunTimes:
    """What is known of how long a row takes; of several threads' news some may be lost, which does no harm."""

    def __init__(self) -> None:
        # Unknown: the first runs, in which TensorFlow prepares the graph, take long.
        self._seconds_per_row = float("inf")

    def add(self, seconds: float, *, rows: int) -> None:
        """Note a run's time; slow ones are remembered for some dozens of runs."""
        per_row = seconds / max(1, rows)
        remembered = self._seconds_per_row * _FORGETTING
        self._seconds_per_row = per_row if remembered == float("inf") else max(per_row, remembered)

    def may_reach(self, timeout_seconds: float, *, rows: int) -> bool:
        """Return whether a run of so many rows could take as long as `timeout_seconds`."""
        return self._seconds_per_row * max(1, rows) * _SAFETY_FACTOR > timeout_seconds


class RunOptions:
    """The options of one session's runs.

    Args:
        library: TensorFlow.
        is_in_callers_thread: whether runs stay in the thread that asks, where their time allows it.
    """

    def __init__(self, library: TensorFlowLibrary, *, is_in_callers_thread: bool) -> None:
        self._library = library
        self._thread_pool = _CALLERS_THREAD if is_in_callers_thread else 0
        self._usual = self._new(0, self._thread_pool, 0)

    @contextlib.contextmanager
    def special(self, *, timeout_seconds: float | None, is_traced: bool) -> Iterator[Any]:
        """Return options for a run that TensorFlow ends when the time is over, or that it measures."""
        trace_level = _TRACE_LEVEL if is_traced else 0
        if timeout_seconds is None:
            options = self._new(trace_level, self._thread_pool, 0)
        else:
            options = self._new(trace_level, 0, max(1, int(timeout_seconds * 1000)))
        try:
            yield options
        finally:
            self._library.delete_buffer(options)

    @property
    def usual(self) -> Any:
        """Options of a run without a time limit; `close` gives them back."""
        return self._usual

    def close(self) -> None:
        """Give the options back."""
        self._library.delete_buffer(self._usual)

    def _new(self, trace_level: int, thread_pool: int, timeout_milliseconds: int) -> Any:
        content = runtime_pb2.RunOptions(
            trace_level=trace_level, inter_op_thread_pool=thread_pool, timeout_in_ms=timeout_milliseconds
        ).SerializeToString()
        return self._library.new_buffer_from_string(content, len(content))
