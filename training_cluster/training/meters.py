"""What a training costs: the time that steps take, that they wait for data, that checkpoints take.

Its place in the flow: the session measures with these between its looks; the figures go into the
progress lines, the charts and run.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from artifact_sync.clock import Clock
from training_cluster.inputs.meter import InputMeter


class Window:
    """The steps since the last look; their figures stay on the device until they are asked for.

    Args:
        clock: measures.
        meter: knows how long steps waited for data.
    """

    def __init__(self, clock: Clock, meter: InputMeter) -> None:
        self._clock = clock
        self._meter = meter
        self._began = clock.monotonic()
        self._waited_before = meter.waited_seconds
        self._figures: list[tuple[Any, Any]] = []

    def add(self, loss: Any, accuracy: Any) -> None:
        """Count a step."""
        self._figures.append((loss, accuracy))

    def means(self) -> tuple[float, float]:
        """Return mean loss and mean accuracy; it waits for the device."""
        loss, accuracy = np.array([[float(loss), float(accuracy)] for loss, accuracy in self._figures]).mean(axis=0)
        return float(loss), float(accuracy)

    @property
    def steps(self) -> int:
        """Steps in it."""
        return len(self._figures)

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return max(self._clock.monotonic() - self._began, 1e-9)

    @property
    def waited_seconds(self) -> float:
        """How long its steps waited for data."""
        return self._meter.waited_seconds - self._waited_before

    @property
    def steps_per_second(self) -> float:
        """How fast it went."""
        return self.steps / self.seconds

    @property
    def wait_share(self) -> float:
        """The part of its time in which it waited for data."""
        return min(1.0, self.waited_seconds / self.seconds)


class Costs:
    """Seconds of one start of the trainer.

    Args:
        clock: measures.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._first_step_seconds = 0.0
        self._checkpoints: list[float] = []
        self._step_seconds = 0.0
        self._waited_seconds = 0.0
        self._rates: list[tuple[int, float]] = []

    def first_step(self) -> None:
        """Note when a step ended, if it is the first."""
        self._first_step_seconds = self._first_step_seconds or self._clock.monotonic() - self._began

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Count what is done inside as the cost of one checkpoint."""
        began = self._clock.monotonic()
        yield
        self._checkpoints.append(self._clock.monotonic() - began)

    def add(self, window: Window) -> None:
        """Count the steps of a window."""
        self._rates.append((window.steps, window.seconds))
        self._step_seconds += window.seconds
        self._waited_seconds += window.waited_seconds

    @property
    def steps_per_second(self) -> float:
        """How fast it went; without the first window, in which the step was compiled, when there are others."""
        rates = self._rates[1:] or self._rates
        return sum(steps for steps, _ in rates) / max(sum(seconds for _, seconds in rates), 1e-9)

    def figures(self) -> dict[str, float]:
        """Return the figures for run.json: seconds, and shares of the time that steps and checkpoints took."""
        saved = sum(self._checkpoints)
        return {
            "first_step_seconds": self._first_step_seconds,
            "checkpoint_seconds_mean": saved / max(1, len(self._checkpoints)),
            "checkpoint_share": saved / max(self._step_seconds + saved, 1e-9),
            "input_wait_share": min(1.0, self._waited_seconds / max(self._step_seconds, 1e-9)),
        }
