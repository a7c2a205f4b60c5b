"""One run of a graph through the C library, from bytes to bytes.

Its place in the flow: session.py runs all its plans through it, from any number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from serving.embedded_server.host_tensor import HostTensor
from serving.embedded_server.native_tensors import delete_input, new_tensor, read_tensor
from serving.embedded_server.run_memory import MemoryGate, available_bytes
from serving.embedded_server.run_options import RunOptions
from serving.embedded_server.run_plan import RunPlan, ThreadStatuses
from serving.embedded_server.tensorflow_library import TensorFlowLibrary

# Of the whole process: what one version takes the others do not have.
_GATE = MemoryGate(available_bytes)


class GraphRuns:
    """The runs of one TF_Session.

    Args:
        library: TensorFlow.
        session: the TF_Session; the caller closes it.
        is_in_callers_thread: whether runs stay in the thread that asks, where their time allows it.
    """

    def __init__(self, library: TensorFlowLibrary, session: Any, *, is_in_callers_thread: bool) -> None:
        self._library = library
        self._session = session
        self._options = RunOptions(library, is_in_callers_thread=is_in_callers_thread)
        self._statuses = ThreadStatuses(library)

    def execute(
        self, plan: RunPlan, feeds: Sequence[Sequence[HostTensor]], *, timeout_seconds: float | None
    ) -> list[HostTensor]:
        """Run the graph; what it takes and returns is said at `Session.execute`.

        Raises:
            StatusError: TensorFlow's own code and message.
        """
        input_bytes = sum([len(part.content) for parts in feeds for part in parts])
        with _GATE.holding(plan.memory.needed_bytes(input_bytes)):
            return self._execute(plan, feeds, input_bytes, timeout_seconds)

    def _execute(
        self, plan: RunPlan, feeds: Sequence[Sequence[HostTensor]], input_bytes: int, timeout_seconds: float | None
    ) -> list[HostTensor]:
        library = self._library
        values = plan.input_values()
        results = plan.output_values()
        try:
            for index, parts in enumerate(feeds):
                values[index] = new_tensor(library, parts)
            rows = _rows(feeds)
            limit = timeout_seconds
            if limit is not None and not plan.times.may_reach(limit, rows=rows):
                limit = None
            began = time.perf_counter()
            if plan.memory.is_worth_tracing(input_bytes):
                self._call_traced(plan, values, results, limit, input_bytes)
            elif limit is None:
                self._call(plan, values, results, self._options.usual, None)
            else:
                with self._options.special(timeout_seconds=limit, is_traced=False) as options:
                    self._call(plan, values, results, options, None)
            plan.times.add(time.perf_counter() - began, rows=rows)
            return [read_tensor(library, tensor) for tensor in results]
        finally:
            for tensor in values:
                if tensor:
                    delete_input(library, tensor)
            for tensor in results:
                if tensor:
                    library.delete_tensor(tensor)

    def _call(self, plan: RunPlan, values: Any, results: Any, options: Any, run_metadata: Any) -> None:
        status = self._statuses.own()
        self._library.session_run(
            *(self._session, options),
            *(plan.inputs, values, plan.input_count),
            *(plan.outputs, results, plan.output_count),
            *(None, 0, run_metadata, status),
        )
        self._library.check(status)

    def _call_traced(
        self, plan: RunPlan, values: Any, results: Any, timeout_seconds: float | None, input_bytes: int
    ) -> None:
        run_metadata = self._library.new_buffer()
        try:
            with self._options.special(timeout_seconds=timeout_seconds, is_traced=True) as options:
                self._call(plan, values, results, options, run_metadata)
            plan.memory.note(run_metadata, input_bytes=input_bytes)
        finally:
            self._library.delete_buffer(run_metadata)

    def close(self) -> None:
        """Give back what runs share; none may be under way."""
        self._options.close()


def _rows(feeds: Sequence[Sequence[HostTensor]]) -> int:
    return sum([part.shape[0] for part in feeds[0] if part.shape]) if feeds else 1
