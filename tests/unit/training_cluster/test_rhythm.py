"""What workers ask each other: equally often, about once a second, and all hear the answer at the same step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from artifact_sync.clock import ManualClock
from training_cluster.training.rhythm import Questions


class _Together:
    """Threads that stand for the processes of a training; who asks waits for the others to ask too."""

    def __init__(self, count: int) -> None:
        self.numbers: list[Sequence[int]] = [()] * count
        self.barrier = threading.Barrier(count, timeout=5)


class _Worker:
    def __init__(self, together: _Together, index: int) -> None:
        self.count = len(together.numbers)
        self.asked = 0
        self._together = together
        self._index = index

    def gather(self, numbers: Sequence[int]) -> np.ndarray:
        self.asked += 1
        self._together.numbers[self._index] = numbers
        self._together.barrier.wait()
        answer = np.array(self._together.numbers)
        self._together.barrier.wait()
        return answer


def _steps_until_end(*, step_seconds: Sequence[float], asked_at: int, log_every: int = 10_000) -> list[tuple[int, int]]:
    """Return for each worker at which step it heard of the end that the last was asked for, and its questions."""
    together = _Together(len(step_seconds))
    found: dict[int, tuple[int, int]] = {}

    def train(index: int) -> None:
        worker: Any = _Worker(together, index)
        clock = ManualClock(datetime(2026, 11, 20, tzinfo=UTC))
        questions = Questions(worker, clock)
        for step in range(1, 10_000):
            clock.sleep(step_seconds[index])
            is_asked = index == len(step_seconds) - 1 and step >= asked_at
            if questions.ask(is_due=step % log_every == 0, is_stopping=is_asked).is_stopping:
                found[index] = (step, worker.asked)
                return

    threads = [threading.Thread(target=train, args=(index,)) for index in range(len(step_seconds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(len(step_seconds))]


def test_one_alone_hears_at_once() -> None:
    worker: Any = _Worker(_Together(1), 0)
    questions = Questions(worker, ManualClock(datetime(2026, 11, 20, tzinfo=UTC)))
    assert not questions.ask(is_due=False, is_stopping=False).is_stopping
    assert questions.ask(is_due=False, is_stopping=True).is_stopping
    assert worker.asked == 0


@pytest.mark.parametrize(
    ("step_seconds", "latest", "most_questions"),
    [((0.01, 0.01), 200, 3), ((0.01, 0.02), 150, 4), ((5.0, 5.0), 100, 100), ((0.3, 0.1, 0.2), 103, 40)],
)
def test_all_hear_at_the_same_step_about_a_second_later(
    step_seconds: tuple[float, ...], latest: int, most_questions: int
) -> None:
    ends = _steps_until_end(step_seconds=step_seconds, asked_at=100)
    assert len(set(ends)) == 1
    step, questions = ends[0]
    assert 100 <= step <= latest
    assert questions <= most_questions


def test_a_question_that_is_due_is_asked_by_all() -> None:
    assert {step for step, _ in _steps_until_end(step_seconds=(0.01, 0.01), asked_at=41, log_every=50)} == {50}
