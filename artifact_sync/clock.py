"""Time as an argument: the clock that is handed to everything that needs to know or to wait.

Its place in the flow: composition builds one `SystemClock`; decisions take `now` as a value.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What code may ask of time."""

    def now(self) -> datetime:
        """Return the current time as an aware datetime in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the current time in UTC, whole seconds: records carry no finer time."""
        return datetime.now(UTC).replace(microsecond=0)

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of real time."""
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told: for simulations and tests of waiting code."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._elapsed_seconds = 0.0

    def now(self) -> datetime:
        """Return the time this clock was moved to."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds this clock was moved by since it was made."""
        return self._elapsed_seconds

    def sleep(self, seconds: float) -> None:
        """Move the clock forward by `seconds` without waiting."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_seconds += seconds
