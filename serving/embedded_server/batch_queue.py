"""The requests that wait to be run together: which go into one batch, and when it may run.

Its place in the flow: the executor has one queue for each choice of inputs and outputs of a version.
A queue knows nothing of TensorFlow and has no thread: when a batch may run it asks its pool for a
turn, one turn at a time, so that all queues take turns; a turn takes one batch.

As in TensorFlow Serving, dimension 0 counts, batches keep the order of arrival, and one that is not
full waits for `batch_timeout_micros` at most. Unlike there, only requests of the same feature shapes
and types meet in a batch: nobody's request fails because somebody else's has another shape.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, Self, TypeVar

from serving.embedded_server.batching import BatchingParameters
from serving.embedded_server.status import Code, StatusError, invalid_argument


class Task(Protocol):
    """One request, as far as a queue looks at it."""

    rows: int
    kind: Hashable
    """What must be equal in a batch."""

    def rest_after(self, rows: int) -> Self:
        """Cut the task: it keeps its first `rows` rows; the others are returned as another one."""
        ...


TaskT = TypeVar("TaskT", bound=Task)


class Turns(Protocol):
    """Where a queue asks for a turn of a thread."""

    def put(self, turn: Callable[[], None]) -> None:
        """Run `turn` in one of the threads, after those that were put before."""
        ...

    def put_at(self, moment: float, turn: Callable[[], None]) -> None:
        """Run `turn` at a moment of time.monotonic(), where it may neither block nor compute."""
        ...


class Batch(Generic[TaskT]):
    """Tasks that run together."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.tasks: list[TaskT] = []
        self.rows = 0


class BatchQueue(Generic[TaskT]):
    """One queue.

    Args:
        parameters: sizes and times.
        turns: the threads.
        run: what is done with a batch, in one of the threads.
        clock: now, in seconds.
    """

    def __init__(
        self,
        parameters: BatchingParameters,
        *,
        turns: Turns,
        run: Callable[[Batch[TaskT]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parameters = parameters
        self._limit = parameters.execution_batch_size
        self._timeout_seconds = parameters.batch_timeout_micros / 1e6
        self._turns = turns
        self._run = run
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[Hashable, Batch[TaskT]] = {}
        self._closed: deque[Batch[TaskT]] = deque()
        self._has_turn = False
        self._has_alarm = False

    def offer(self, task: TaskT) -> None:
        """Take a task in; it is run later.

        Raises:
            StatusError: INVALID_ARGUMENT: it is too large; UNAVAILABLE: the queue is full.
        """
        with self._lock:
            self._check(task)
            while self._parameters.is_splitting and task.rows > (room := self._room(task)):
                rest = task.rest_after(room)
                self._add(task)
                task = rest
            self._add(task)
            self._ask()

    def take_turn(self) -> None:
        """Run the batch whose turn it is, if there is one."""
        with self._lock:
            self._has_turn = False
            batch = self._take()
            # Before it runs: another thread may begin with the next one.
            self._ask()
        if batch is not None:
            self._run(batch)

    # What follows runs under the lock.

    def _check(self, task: TaskT) -> None:
        parameters = self._parameters
        if task.rows > parameters.max_batch_size:
            raise invalid_argument(
                f"Task size {task.rows} is larger than maximum input batch size {parameters.max_batch_size}"
            )
        free_batches = max(0, parameters.max_enqueued_batches - len(self._closed) - len(self._open))
        room = self._room(task) if task.kind in self._open else 0
        if parameters.is_splitting:
            if task.rows > (capacity := room + free_batches * self._limit):
                raise _full(f"task size is {task.rows} but scheduling capacity is only {capacity}")
        elif not free_batches and (not room or task.rows > room):
            count = len(self._closed) + len(self._open)
            raise _full(f"currently {count} batches enqueued and max_enqueued_batches is {count}")

    def _room(self, task: TaskT) -> int:
        batch = self._open.get(task.kind)
        return self._limit if batch is None else self._limit - batch.rows

    def _add(self, task: TaskT) -> None:
        batch = self._open.get(task.kind)
        if batch is not None and batch.rows + task.rows > self._limit:
            self._closed.append(self._open.pop(task.kind))
            batch = None
        if batch is None:
            batch = self._open[task.kind] = Batch(self._clock())
        batch.tasks.append(task)
        batch.rows += task.rows
        if batch.rows >= self._limit:
            self._closed.append(self._open.pop(task.kind))

    def _take(self) -> Batch[TaskT] | None:
        kind = next(iter(self._open), None)
        is_due = kind is not None and self._is_due(self._open[kind])
        # The one that has waited longest, so that a busy shape does not hold up the others.
        if self._closed and not (is_due and self._open[kind].began < self._closed[0].began):
            return self._closed.popleft()
        return self._open.pop(kind) if is_due else None

    def _is_due(self, batch: Batch[TaskT]) -> bool:
        return not self._timeout_seconds or self._clock() >= batch.began + self._timeout_seconds

    def _ask(self) -> None:
        if self._has_turn:
            return
        first = next(iter(self._open.values()), None)
        if self._closed or (first is not None and self._is_due(first)):
            self._has_turn = True
            self._turns.put(self.take_turn)
        elif first is not None and not self._has_alarm:
            self._has_alarm = True
            self._turns.put_at(first.began + self._timeout_seconds, self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._has_alarm = False
            self._ask()


def _full(detail: str) -> StatusError:
    return StatusError(
        Code.UNAVAILABLE, f"The batch scheduling queue to which this task was submitted is full; {detail}"
    )
