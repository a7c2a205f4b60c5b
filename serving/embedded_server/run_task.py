"""One request to run a graph, from its arrival to the call that takes its answer.

Its place in the flow: the executor makes one for each request; batches are made of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Self, TypeAlias

from serving.embedded_server.host_tensor import HostTensor, concatenated
from serving.embedded_server.status import StatusError

Answer: TypeAlias = "list[HostTensor] | StatusError"
Done: TypeAlias = Callable[[Answer], None]
"""Takes the outputs or the error, exactly once, from any thread; it may neither block nor raise."""


class RunTask:
    """A request.

    Args:
        tensors: its inputs, in the plan's order.
        rows: its size in dimension 0.
        kind: what must be equal in a batch.
        timeout_seconds: how long its sender waits; None for ever.
        done: takes its answer.
    """

    __slots__ = ("_join", "deadline", "done", "enqueued_at", "kind", "rows", "tensors")

    def __init__(
        self,
        tensors: Sequence[HostTensor],
        *,
        rows: int,
        kind: Hashable,
        timeout_seconds: float | None,
        done: Done,
    ) -> None:
        self.tensors = tensors
        self.rows = rows
        self.kind = kind
        self.enqueued_at = time.monotonic()
        self.deadline = None if timeout_seconds is None else self.enqueued_at + timeout_seconds
        self.done = done
        self._join: _Join | None = None

    def rest_after(self, rows: int) -> Self:
        """Keep the first rows; return a task of the others. The answer is given when both are done."""
        if self._join is None:
            self._join = _Join(self.done)
            self.done = self._join.part()
        rest = type(self)(
            [tensor.rows(rows, self.rows - rows) for tensor in self.tensors],
            rows=self.rows - rows,
            kind=self.kind,
            timeout_seconds=None,
            done=self._join.part(),
        )
        rest.enqueued_at, rest.deadline, rest._join = self.enqueued_at, self.deadline, self._join
        self.tensors, self.rows = [tensor.rows(0, rows) for tensor in self.tensors], rows
        return rest


class _Join:
    """Puts the parts' answers together, in order; one error is the answer of all."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._lock = threading.Lock()
        self._answers: list[Answer | None] = []
        self._missing = 0

    def part(self) -> Done:
        number = len(self._answers)
        self._answers.append(None)
        self._missing += 1

        def done(answer: Answer) -> None:
            with self._lock:
                self._answers[number] = answer
                self._missing -= 1
                is_last = not self._missing
            if is_last:
                self._done(self._whole())

        return done

    def _whole(self) -> Answer:
        parts: list[list[HostTensor]] = []
        for answer in self._answers:
            if isinstance(answer, StatusError):
                return answer
            parts.append(answer or [])
        return [concatenated(list(pieces)) for pieces in zip(*parts, strict=True)]
