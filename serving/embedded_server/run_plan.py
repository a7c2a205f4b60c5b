"""What one kind of run needs every time, made once: which tensors go in and out, and a status to write to.

Its place in the flow: session.py makes a plan for each choice of inputs and outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from serving.embedded_server.run_memory import RunMemory
from serving.embedded_server.run_options import RunTimes
from serving.embedded_server.tensorflow_library import Output, Pointer, TensorFlowLibrary


class RunPlan:
    """Which tensors of a graph are fed and fetched, looked up once, and how much that has taken so far."""

    def __init__(self, feeds: Sequence[Output], fetches: Sequence[Output]) -> None:
        self.input_count, self.output_count = len(feeds), len(fetches)
        self.inputs = (Output * len(feeds))(*feeds)
        self.outputs = (Output * len(fetches))(*fetches)
        self.input_values = Pointer * len(feeds)
        self.output_values = Pointer * len(fetches)
        self.times = RunTimes()
        self.memory = RunMemory()


class ThreadStatuses(threading.local):
    """One TF_Status for each thread, used by run after run."""

    def __init__(self, library: TensorFlowLibrary) -> None:
        self._own = _Status(library)

    def own(self) -> Any:
        """Return this thread's."""
        return self._own.pointer


class _Status:
    def __init__(self, library: TensorFlowLibrary) -> None:
        self.pointer = library.new_status()
        self._delete = library.delete_status

    def __del__(self) -> None:
        # When its thread ends, or the session is gone.
        self._delete(self.pointer)
