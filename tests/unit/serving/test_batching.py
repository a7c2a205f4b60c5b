"""Batching without TensorFlow: parameters, queues, turns, and how tensors are put together and cut."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.embedded_server.batch_queue import Batch, BatchQueue
from serving.embedded_server.batch_tensors import merged_inputs, split_outputs
from serving.embedded_server.batching import (
    PER_MODEL_FILE,
    BatchingParameters,
    read_batching_parameters,
    read_model_parameters,
)
from serving.embedded_server.host_tensor import HostTensor, concatenated, from_array, to_array
from serving.embedded_server.run_task import Answer, RunTask
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.worker_pool import WorkerPool


def ignore(answer: Answer) -> None:
    """Take an answer that the test does not look at."""


def task(rows: int, *, kind: str = "x", start: int = 0) -> RunTask:
    values = HostTensor(4, (rows, 1), bytes((start + row) % 256 for row in range(rows)))
    return RunTask([values], rows=rows, kind=kind, timeout_seconds=None, done=ignore)


def parameters(**values: int | bool | tuple[int, ...]) -> BatchingParameters:
    limit = values.pop("max_batch_size", 4)
    values.setdefault("execution_batch_size", limit)
    return BatchingParameters(max_batch_size=limit, **values)


class World:
    """A queue, a clock that stands still, and turns that are taken when the test says so."""

    def __init__(self, found: BatchingParameters) -> None:
        self.now = 100.0
        self.turns: list[Callable[[], None]] = []
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.ran: list[list[int]] = []
        self.queue: BatchQueue[RunTask] = BatchQueue(found, turns=self, run=self.run, clock=lambda: self.now)

    def put(self, turn: Callable[[], None]) -> None:
        self.turns.append(turn)

    def put_at(self, moment: float, turn: Callable[[], None]) -> None:
        self.alarms.append((moment, turn))

    def run(self, batch: Batch[RunTask]) -> None:
        assert batch.rows == sum(task.rows for task in batch.tasks)
        self.ran.append([task.rows for task in batch.tasks])

    def offer(self, *rows: int, kind: str = "x") -> None:
        for count in rows:
            self.queue.offer(task(count, kind=kind))

    def take_turns(self) -> None:
        while self.turns:
            self.turns.pop(0)()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = [alarm for alarm in self.alarms if alarm[0] <= self.now]
        self.alarms = [alarm for alarm in self.alarms if alarm[0] > self.now]
        for _, alarm in due:
            alarm()


class TestQueue:
    def test_without_a_timeout_one_request_runs_at_once(self) -> None:
        world = World(parameters())
        world.offer(1)
        assert len(world.turns) == 1
        world.take_turns()
        assert world.ran == [[1]]
        assert (world.turns, world.alarms) == ([], [])

    def test_while_threads_are_busy_the_queue_fills_and_the_next_turn_takes_all(self) -> None:
        world = World(parameters())
        world.offer(1, 1, 1)
        assert len(world.turns) == 1
        world.take_turns()
        assert world.ran == [[1, 1, 1]]

    def test_a_full_batch_is_closed_and_what_does_not_fit_begins_the_next_one(self) -> None:
        world = World(parameters())
        world.offer(1, 3, 2, 3, 1)
        world.take_turns()
        assert world.ran == [[1, 3], [2], [3, 1]]

    def test_the_next_turn_is_asked_for_before_the_batch_runs_so_that_two_threads_can_work(self) -> None:
        world = World(parameters())
        world.offer(4, 4)
        first = world.turns.pop()
        first()
        assert world.ran == [[4]]
        assert len(world.turns) == 1

    def test_a_batch_that_is_not_full_waits_for_its_timeout(self) -> None:
        world = World(parameters(batch_timeout_micros=1000))
        world.offer(1)
        world.wait(0.0009)
        world.offer(1)
        assert world.turns == []
        world.wait(0.0001)
        world.take_turns()
        assert world.ran == [[1, 1]]

    def test_a_batch_that_gets_full_does_not_wait_and_what_comes_after_waits_its_own_time(self) -> None:
        world = World(parameters(batch_timeout_micros=1000))
        world.offer(2)
        world.wait(0.0005)
        world.offer(2, 1)
        world.take_turns()
        assert world.ran == [[2, 2]]
        world.wait(0.0005)
        world.take_turns()
        assert world.ran == [[2, 2]]
        world.wait(0.0005)
        world.take_turns()
        assert world.ran == [[2, 2], [1]]

    def test_a_request_larger_than_a_batch_is_refused(self) -> None:
        world = World(parameters())
        with pytest.raises(StatusError, match="Task size 5 is larger than maximum input batch size 4") as caught:
            world.offer(5)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert world.turns == []

    def test_a_full_queue_refuses_until_a_turn_is_taken(self) -> None:
        world = World(parameters(max_enqueued_batches=2))
        world.offer(4, 3)
        with pytest.raises(StatusError, match="The batch scheduling queue to which this task was submitted is full"):
            world.offer(2)
        world.offer(1)
        with pytest.raises(StatusError, match="full; currently 2 batches enqueued") as caught:
            world.offer(1)
        assert caught.value.code is Code.UNAVAILABLE
        world.turns.pop(0)()
        world.offer(1)
        world.take_turns()
        assert world.ran == [[4], [3, 1], [1]]

    def test_different_shapes_do_not_meet_and_share_the_queue_by_age(self) -> None:
        world = World(parameters(max_enqueued_batches=4))
        world.offer(1, kind="a")
        world.now += 1
        world.offer(4, kind="b")
        world.now += 1
        world.offer(1, kind="a")
        world.take_turns()
        assert world.ran == [[1, 1], [4]]

    def test_requests_without_rows_are_run_too(self) -> None:
        world = World(parameters())
        world.offer(0, 4, 0)
        world.take_turns()
        assert [sum(rows) for rows in world.ran] == [4, 0]

    def test_a_large_request_is_cut_to_fill_the_batches(self) -> None:
        world = World(parameters(max_batch_size=20, execution_batch_size=4, is_splitting=True))
        world.offer(3, 10)
        world.take_turns()
        assert world.ran == [[3, 1], [4], [4], [1]]

    def test_a_large_request_that_the_queue_cannot_hold_is_refused_whole(self) -> None:
        world = World(parameters(max_batch_size=20, execution_batch_size=4, is_splitting=True, max_enqueued_batches=2))
        world.offer(3)
        with pytest.raises(StatusError, match="full; task size is 6 but scheduling capacity is only 5"):
            world.offer(6)
        world.offer(5)
        world.take_turns()
        assert world.ran == [[3, 1], [4]]

    @given(seed=st.integers(0, 2**32), timeout=st.sampled_from([0, 1000]), splitting=st.booleans())
    def test_whatever_comes_is_run_once_in_order_and_within_the_limits(
        self, seed: int, timeout: int, splitting: bool
    ) -> None:
        chance = random.Random(seed)
        limits = {"max_batch_size": 9 if splitting else 4, "execution_batch_size": 4, "is_splitting": splitting}
        world = World(parameters(**limits, batch_timeout_micros=timeout, max_enqueued_batches=5))
        answers: dict[int, list[Answer]] = {}
        batches: list[list[RunTask]] = []

        def run(batch: Batch[RunTask]) -> None:
            assert batch.rows <= 4
            batches.append(batch.tasks)
            for each in batch.tasks:
                each.done([each.tensors[0]])

        world.queue._run = run
        taken: dict[int, int] = {}
        for number in range(60):
            rows = chance.randrange(0, 10 if splitting else 5)
            answers[number] = []
            values = HostTensor(4, (rows,), bytes([number] * rows))
            kind = chance.choice("aab")
            offered = RunTask([values], rows=rows, kind=kind, timeout_seconds=None, done=answers[number].append)
            with contextlib.suppress(StatusError):
                world.queue.offer(offered)
                taken[number] = rows
            if chance.random() < 0.4 and world.turns:
                world.turns.pop(0)()
            world.wait(chance.choice([0, 0.0005]))
        for _ in range(100):
            world.take_turns()
            world.wait(0.001)
        assert world.queue._open == {}
        for number, found in answers.items():
            expected = [[HostTensor(4, (taken[number],), bytes([number] * taken[number]))]] if number in taken else []
            assert found == expected
        for tasks in batches:
            assert len({each.kind for each in tasks}) == 1


class TestParameters:
    def read(self, tmp_path: Path, text: str) -> BatchingParameters:
        path = tmp_path / "batching.pbtxt"
        path.write_text(text)
        return read_batching_parameters(path)

    def test_an_empty_file_means_the_real_servers_defaults(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "")
        assert (found.max_batch_size, found.batch_timeout_micros, found.max_enqueued_batches) == (1000, 0, 10)
        assert found.num_batch_threads >= 1
        assert (found.allowed_batch_sizes, found.execution_batch_size, found.is_splitting) == ((), 1000, False)

    def test_a_file_as_operators_write_it_is_read(self, tmp_path: Path) -> None:
        found = self.read(
            tmp_path,
            """
            max_batch_size { value: 16 }  batch_timeout_micros { value: 2000 }  max_enqueued_batches { value: 7 }
            num_batch_threads { value: 3 }  thread_pool_name { value: "photos" }
            allowed_batch_sizes: 4  allowed_batch_sizes: 16  pad_variable_length_inputs: true
            enable_large_batch_splitting { value: true }  max_execution_batch_size { value: 8 }
            """,
        )
        assert found == BatchingParameters(16, 2000, 7, 3, "photos", (4, 16), True, 8, True)
        assert [found.padded_size(rows) for rows in (1, 4, 5, 16)] == [4, 4, 16, 16]

    def test_the_execution_size_counts_only_where_requests_are_split(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "max_batch_size { value: 16 } max_execution_batch_size { value: 8 }")
        assert found.execution_batch_size == 16

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "max_batch_size { value: 8 } allowed_batch_sizes: 4",
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
            ),
            ("allowed_batch_sizes: 4", "last entry was 4; expected 1000"),
            ("max_batch_size { value: 4 } allowed_batch_sizes: [2, 1, 4]", "must be positive and rise"),
            ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
            ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
            ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
            ("max_enqueued_batches { value: 0 }", "max_enqueued_batches must be positive; was 0"),
            (
                "max_batch_size { value: 4 } enable_large_batch_splitting { value: true } "
                "max_execution_batch_size { value: 8 }",
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal",
            ),
            ("max_batch_size: 4", "Invalid protobuf file: "),
            ("nonsense", "Invalid protobuf file: "),
        ],
    )
    def test_what_the_real_server_refuses_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(StatusError) as caught:
            self.read(tmp_path, text)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert message in caught.value.message

    def test_a_file_that_is_not_there_is_said_by_its_name(self, tmp_path: Path) -> None:
        with pytest.raises(StatusError, match=r"absent\.pbtxt") as caught:
            read_batching_parameters(tmp_path / "absent.pbtxt")
        assert caught.value.code is Code.NOT_FOUND

    def test_a_version_without_a_file_of_its_own_is_not_batched(self, tmp_path: Path) -> None:
        assert read_model_parameters(tmp_path) is None
        (tmp_path / PER_MODEL_FILE).write_text("max_batch_size { value: 2 }")
        found = read_model_parameters(tmp_path)
        assert found is not None
        assert found.max_batch_size == 2


class TestTensors:
    @given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=5), padding=st.integers(0, 3))
    def test_rows_go_in_and_come_out_where_they_belong(self, sizes: list[int], padding: int) -> None:
        tasks = [
            RunTask(
                [from_array(np.full((size, 2), number, np.float32))],
                rows=size,
                kind=None,
                timeout_seconds=None,
                done=ignore,
            )
            for number, size in enumerate(sizes)
        ]
        padding = padding if sum(sizes) else 0
        (parts,) = merged_inputs(tasks, padding=padding, is_padding_shapes=False)
        whole = concatenated(parts)
        assert whole.shape == (sum(sizes) + padding, 2)
        answers = split_outputs([whole], sizes, rows=whole.shape[0])
        for number, (size, (answer,)) in enumerate(zip(sizes, answers, strict=True)):
            assert np.array_equal(to_array(answer), np.full((size, 2), number, np.float32))
        if padding:
            last = max(number for number, size in enumerate(sizes) if size)
            assert np.array_equal(to_array(parts[-1]), np.full((padding, 2), last, np.float32))

    def test_strings_are_batched_and_padded_too(self) -> None:
        tasks = [
            RunTask(
                [HostTensor(7, (len(texts),), texts)], rows=len(texts), kind=None, timeout_seconds=None, done=ignore
            )
            for texts in ([b"a", b"b"], [b"c"])
        ]
        (parts,) = merged_inputs(tasks, padding=2, is_padding_shapes=False)
        whole = concatenated(parts)
        assert whole == HostTensor(7, (5,), [b"a", b"b", b"c", b"c", b"c"])
        assert split_outputs([whole], [2, 1], rows=5) == [
            [HostTensor(7, (2,), [b"a", b"b"])],
            [HostTensor(7, (1,), [b"c"])],
        ]

    def test_shapes_are_brought_to_the_largest_with_each_tensors_own_first_value(self) -> None:
        tasks = [
            RunTask([from_array(array)], rows=1, kind=None, timeout_seconds=None, done=ignore)
            for array in (np.array([[1, 2, 3]], np.int32), np.array([[7]], np.int32))
        ]
        (parts,) = merged_inputs(tasks, padding=0, is_padding_shapes=True)
        assert to_array(concatenated(parts)).tolist() == [[1, 2, 3], [7, 7, 7]]

    def test_what_cannot_be_padded_is_refused(self) -> None:
        def merge(*shapes: tuple[int, ...]) -> None:
            arrays = [np.zeros(shape, np.int8) for shape in shapes]
            tasks = [
                RunTask([from_array(array)], rows=1, kind=None, timeout_seconds=None, done=ignore) for array in arrays
            ]
            merged_inputs(tasks, padding=0, is_padding_shapes=True)

        with pytest.raises(StatusError, match="Got empty tensor in batch of non-empty tensors"):
            merge((1, 2), (1, 0))
        with pytest.raises(StatusError, match="Only tensors with rank from 1 to 6 can be padded"):
            merge((1, 1, 1, 1, 1, 1, 2), (1, 1, 1, 1, 1, 1, 1))

    @pytest.mark.parametrize(
        ("shape", "message"),
        [((), "Batched output tensor has 0 dimensions"), ((2, 1), "0th dimension does not equal the sum")],
    )
    def test_outputs_that_are_not_rows_are_refused(self, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(StatusError, match=message) as caught:
            split_outputs([from_array(np.zeros(shape, np.float32))], [1, 2], rows=3)
        assert caught.value.code is Code.FAILED_PRECONDITION


class TestSplitTask:
    def test_the_answer_is_put_together_in_order_when_the_last_part_is_done(self) -> None:
        answers: list[Answer] = []
        values = from_array(np.arange(6, dtype=np.int64))
        first = RunTask([values], rows=6, kind=None, timeout_seconds=None, done=answers.append)
        second = first.rest_after(1)
        third = second.rest_after(2)
        for part in (third, first, second):
            assert answers == []
            part.done([part.tensors[0]])
        assert answers == [[values]]

    def test_one_part_that_fails_fails_the_request(self) -> None:
        answers: list[Answer] = []
        first = RunTask([HostTensor(4, (2,), b"ab")], rows=2, kind=None, timeout_seconds=None, done=answers.append)
        second = first.rest_after(1)
        error = StatusError(Code.INTERNAL, "no")
        second.done(error)
        first.done([first.tensors[0]])
        assert answers == [error]


class TestPool:
    def test_work_is_done_in_its_order_alarms_at_their_time_and_a_bug_costs_no_thread(self) -> None:
        pool = WorkerPool(1)
        pool.start()
        done: list[str] = []
        rang = threading.Event()
        pool.put(lambda: done.append("first"))
        pool.put(lambda: 1 / 0)
        pool.put_at(0.0, lambda: (done.append("alarm"), rang.set()))
        pool.put_at(float("inf"), lambda: done.append("never"))
        pool.put(lambda: done.append("second"))
        assert rang.wait(30)
        pool.stop()
        assert [word for word in done if word != "alarm"] == ["first", "second"]

    def test_what_was_put_is_done_before_the_threads_end(self) -> None:
        pool = WorkerPool(3)
        pool.start()
        done: list[int] = []
        for number in range(100):
            pool.put(lambda number=number: done.append(number))
        pool.stop()
        assert sorted(done) == list(range(100))
