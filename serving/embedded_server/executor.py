"""A loaded version as requests see it: run at once, run later in the pool, or run in batches.

Its place in the flow: the lifecycle opens one for each session; predict starts runs on it. Errors are
TensorFlow's own or those of TensorFlow Serving's batching.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import numpy.typing as npt

from serving.embedded_server.batch_queue import Batch, BatchQueue
from serving.embedded_server.batch_tensors import merged_inputs, split_outputs
from serving.embedded_server.batching import BatchingParameters
from serving.embedded_server.host_tensor import HostTensor, from_array, to_array
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.run_plan import RunPlan
from serving.embedded_server.run_task import Answer, Done, RunTask
from serving.embedded_server.session import Session
from serving.embedded_server.signature_plan import SignaturePlans
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.embedded_server.worker_pool import WorkerPool
from serving.protos import tfs_pb2

_LOG = logging.getLogger(__name__)
_MAX_QUEUES = 64


class ExecutedModel:
    """A version in memory; `open_model` makes it."""

    def __init__(
        self,
        session: Session,
        *,
        batching: BatchingParameters | None,
        pool: WorkerPool,
        metrics: Metrics,
        model: str,
        version: int,
    ) -> None:
        self._session = session
        self._batching = batching
        self._is_padding = batching is not None and batching.pad_variable_length_inputs
        self._pool = pool
        self._metrics = metrics
        self.model = model
        self.version = version
        self.signatures = SignaturePlans(session, model=model, version=version)
        self._queues: dict[RunPlan, BatchQueue[RunTask]] = {}

    @property
    def signature_defs(self) -> Mapping[str, tfs_pb2.SignatureDef]:
        """Every signature by its key."""
        return self._session.signature_defs

    def plan(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> RunPlan:
        """Return what `start` needs for tensors of these names.

        Raises:
            StatusError: INVALID_ARGUMENT: the graph has no such tensor.
        """
        return self._session.plan(feeds, fetches)

    def start(self, plan: RunPlan, tensors: Sequence[HostTensor], *, timeout_seconds: float | None, done: Done) -> None:
        """Run the graph in the pool; return at once. Errors go to `done`, as outputs do."""
        try:
            queue = self._queue(plan)
            if queue is None:
                task = RunTask(tensors, rows=0, kind=None, timeout_seconds=timeout_seconds, done=done)
                self._pool.put(lambda: self._run_one(plan, task))
            else:
                rows, kind = _rows_and_kind(tensors, is_padding=self._is_padding)
                queue.offer(RunTask(tensors, rows=rows, kind=kind, timeout_seconds=timeout_seconds, done=done))
        except StatusError as error:
            done(error)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], fetches: Sequence[str], *, timeout_seconds: float | None
    ) -> list[npt.NDArray[Any]]:
        """Run the graph with arrays by tensor name, and return arrays in the order of `fetches`.

        Raises:
            StatusError: of TensorFlow, or of the batch.
        """
        if self._batching is None:
            in_order = {name: feeds[name] for name in sorted(feeds)}
            return self._session.run(in_order, fetches, timeout_seconds=timeout_seconds)
        answers: SimpleQueue[list[npt.NDArray[Any]] | StatusError] = SimpleQueue()
        self.submit(feeds, fetches, timeout_seconds=timeout_seconds, done=answers.put)
        answer = answers.get()
        if isinstance(answer, StatusError):
            raise answer
        return answer

    def submit(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        fetches: Sequence[str],
        *,
        timeout_seconds: float | None,
        done: Callable[[list[npt.NDArray[Any]] | StatusError], None],
    ) -> None:
        """Run the graph in the pool with arrays by tensor name; `done` takes arrays in the order of `fetches`."""

        def take(answer: Answer) -> None:
            done(answer if isinstance(answer, StatusError) else [to_array(tensor) for tensor in answer])

        # In one order, whatever the sender's: else the same inputs would wait in different queues.
        names = sorted(feeds)
        try:
            plan = self.plan(tuple(names), tuple(fetches))
        except StatusError as error:
            done(error)
        else:
            self.start(plan, [from_array(feeds[name]) for name in names], timeout_seconds=timeout_seconds, done=take)

    def close(self) -> None:
        """Give its memory back; no run may be under way."""
        self._queues.clear()
        self._session.close()

    def _queue(self, plan: RunPlan) -> BatchQueue[RunTask] | None:
        queue = self._queues.get(plan)
        if queue is not None or self._batching is None or len(self._queues) >= _MAX_QUEUES:
            # Clients may ask for outputs in any order; what few ask for runs without a batch.
            return queue
        made: BatchQueue[RunTask] = BatchQueue(
            self._batching, turns=self._pool, run=lambda batch: self._run_batch(plan, batch)
        )
        # Of two threads that get here at once one queue is kept.
        return self._queues.setdefault(plan, made)

    # What follows runs in the pool's threads.

    def _run_one(self, plan: RunPlan, task: RunTask) -> None:
        timeout_seconds = None if task.deadline is None else task.deadline - time.monotonic()
        answer: Answer
        try:
            if timeout_seconds is not None and timeout_seconds <= 0:
                raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded while waiting for a free thread")
            answer = self._session.execute(plan, [[tensor] for tensor in task.tensors], timeout_seconds=timeout_seconds)
        except StatusError as error:
            answer = error
        except Exception as error:  # noqa: BLE001  (the sender waits for an answer, whatever happened)
            _LOG.exception("model %s version %d: a run failed unexpectedly", self.model, self.version)
            answer = _internal(error)
        task.done(answer)

    def _run_batch(self, plan: RunPlan, batch: Batch[RunTask]) -> None:
        now = time.monotonic()
        tasks = []
        for task in batch.tasks:
            if task.deadline is not None and task.deadline <= now:
                late = "Run() timeout exceeded while waiting in batching queue"
                task.done(StatusError(Code.RESOURCE_EXHAUSTED, late))
            else:
                tasks.append(task)
        if not tasks:
            return
        answers: Sequence[Answer]
        try:
            answers = self._run_tasks(plan, tasks, now)
        except StatusError as error:
            answers = [error] * len(tasks)
        except Exception as error:  # noqa: BLE001  (the senders wait for answers, whatever happened)
            _LOG.exception("model %s version %d: a batch failed unexpectedly", self.model, self.version)
            answers = [_internal(error)] * len(tasks)
        for task, answer in zip(tasks, answers, strict=True):
            task.done(answer)

    def _run_tasks(self, plan: RunPlan, tasks: Sequence[RunTask], now: float) -> list[list[HostTensor]]:
        assert self._batching is not None, "only batches come here"
        row_counts = [task.rows for task in tasks]
        wanted = sum(row_counts)
        rows = self._batching.padded_size(wanted) if wanted else 0
        inputs = merged_inputs(tasks, padding=rows - wanted, is_padding_shapes=self._is_padding)
        self._metrics.batch(
            model=self.model,
            version=self.version,
            queuing_microseconds=[(now - task.enqueued_at) * 1e6 for task in tasks],
            input_sizes=row_counts,
            batch_size=rows,
            padding=rows - wanted,
            thread_pool_name=self._batching.thread_pool_name,
        )
        deadlines = [task.deadline for task in tasks]
        # The most patient of them decides; the others' senders have their own clocks.
        latest = None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None)
        outputs = self._session.execute(plan, inputs, timeout_seconds=None if latest is None else latest - now)
        return split_outputs(outputs, row_counts, rows=rows)


def open_model(
    session: Session,
    *,
    batching: BatchingParameters | None,
    pool: WorkerPool,
    metrics: Metrics,
    model: str,
    version: int,
) -> ExecutedModel:
    """Return a session as a version that answers requests.

    Args:
        session: the loaded graph, which is the version's from now on.
        batching: how to put requests together; None: each runs alone.
        pool: the threads for it, shared by all.
        metrics: where batches are counted.
        model: its model's name, for metrics and the log.
        version: its number.
    """
    return ExecutedModel(session, batching=batching, pool=pool, metrics=metrics, model=model, version=version)


def _rows_and_kind(tensors: Sequence[HostTensor], *, is_padding: bool) -> tuple[int, Any]:
    if not tensors:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    for _, shape, _ in tensors:
        if not shape:
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        if shape[0] != tensors[0].shape[0]:
            raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    if is_padding:
        return tensors[0].shape[0], tuple([(data_type, len(shape)) for data_type, shape, _ in tensors])
    return tensors[0].shape[0], tuple([(data_type, shape[1:]) for data_type, shape, _ in tensors])


def _internal(error: Exception) -> StatusError:
    return StatusError(Code.INTERNAL, f"Internal error; see the server's log: {type(error).__name__}: {error}")
