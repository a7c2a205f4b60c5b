"""Copies wait in a short queue, are worked on by its own threads, and never hold up who offers them."""

from __future__ import annotations

import threading
import time

import pytest

from serving.traffic.shadow import CopyQueue, score_distance


class Work:
    """Notes each copy and its thread; blocks until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.done: list[tuple[str, str]] = []
        self.active = self.most_active = 0
        self._lock = threading.Lock()

    def __call__(self, copy: str) -> None:
        with self._lock:
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        self.begun.release()
        self.let_go.wait()
        with self._lock:
            self.active -= 1
            self.done.append((copy, threading.current_thread().name))
        if copy == "surprise":
            raise KeyError(copy)


def queue_of(work: Work, **changed) -> CopyQueue[str]:
    sizes = {"workers": 2, "max_waiting": 3, "max_waiting_bytes": 1000, "stop_seconds": 60.0}
    return CopyQueue(work, **sizes | changed)


def test_who_offers_never_waits_and_what_is_too_much_is_refused():
    work = Work()
    with queue_of(work) as queue:
        # Both threads hang in their work and stay so: were an offer to wait for them, this would not end.
        for name in ("a", "b"):
            assert queue.offer(name, size_bytes=1)
            work.begun.acquire()
        assert [queue.offer(name, size_bytes=1) for name in ("c", "d", "e", "f", "g")] == [True] * 3 + [False] * 2
        assert work.done == []
        work.let_go.set()
        for _ in range(3):
            work.begun.acquire()
    assert sorted(copy for copy, _ in work.done) == ["a", "b", "c", "d", "e"]
    assert {thread for _, thread in work.done} <= {"shadow-0", "shadow-1"}
    assert work.most_active == 2


def test_between_many_threads_each_copy_is_worked_on_once_or_refused():
    done: list[int] = []
    taken: list[int] = []
    with CopyQueue(done.append, workers=4, max_waiting=50, max_waiting_bytes=10**9, stop_seconds=60.0) as queue:

        def offer(start: int) -> None:
            taken.extend(number for number in range(start, start + 2_000) if queue.offer(number, size_bytes=1))

        threads = [threading.Thread(target=offer, args=(2_000 * index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while len(done) < len(taken):
            time.sleep(0.001)
    assert sorted(done) == sorted(taken)
    assert len(taken) >= 50


def test_memory_of_what_waits_is_bounded_and_given_back():
    work = Work()
    with queue_of(work, workers=1) as queue:
        assert queue.offer("a", size_bytes=1)
        work.begun.acquire()
        assert queue.offer("b", size_bytes=600)
        assert not queue.offer("c", size_bytes=401)
        assert queue.offer("d", size_bytes=400)
        work.let_go.set()
        for _ in range(2):
            work.begun.acquire()
        assert queue.offer("e", size_bytes=1000)
        work.begun.acquire()


def test_a_copy_that_goes_wrong_does_not_end_the_copying(caplog):
    work = Work()
    work.let_go.set()
    with queue_of(work, workers=1) as queue:
        for name in ("surprise", "after"):
            assert queue.offer(name, size_bytes=1)
            work.begun.acquire()
    assert [copy for copy, _ in work.done] == ["surprise", "after"]
    assert "not foreseen" in caplog.text


def test_outside_its_block_it_takes_nothing():
    work = Work()
    work.let_go.set()
    queue = queue_of(work)
    assert not queue.offer("before", size_bytes=1)
    with queue:
        pass
    assert not queue.offer("after", size_bytes=1)
    assert work.done == []


def test_leaving_drops_what_waits_and_does_not_wait_for_ever_on_what_hangs():
    work = Work()
    with queue_of(work, workers=1, stop_seconds=0.01) as queue:
        assert queue.offer("hangs", size_bytes=1)
        work.begun.acquire()
        assert queue.offer("waits", size_bytes=1)
    work.let_go.set()
    assert not work.begun.acquire(blocking=False)


@pytest.mark.parametrize(
    ("mine", "others", "distance"),
    [
        ({"cat": 0.9, "dog": 0.1}, {"cat": 0.9, "dog": 0.1}, 0.0),
        ({"cat": 0.9, "dog": 0.1}, {"dog": 0.1, "cat": 0.9}, 0.0),
        ({"cat": 1.0, "dog": 0.0}, {"cat": 0.0, "dog": 1.0}, 1.0),
        ({"cat": 0.8, "dog": 0.2}, {"cat": 0.5, "dog": 0.5}, 0.3),
        # A label that only one of them has is not compared: 0.9 against 0.1 for the cat.
        ({"cat": 0.9, "dog": 0.1}, {"cat": 0.1, "bird": 0.9}, 0.4),
        ({"cat": 1.0}, {"bird": 1.0}, 1.0),
        # Each label for itself: the differences add up to more than a whole.
        ({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.0, "b": 0.0, "c": 0.0}, 1.0),
    ],
)
def test_the_distance_of_two_answers(mine, others, distance):
    found = score_distance(tuple(mine), tuple(mine.values()), tuple(others), tuple(others.values()))
    assert found == pytest.approx(distance)
    assert found == score_distance(tuple(others), tuple(others.values()), tuple(mine), tuple(mine.values()))
