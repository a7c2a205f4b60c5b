"""The counters of front ends at the beginning of a watch, kept over restarts of the agent.

Its place in the flow: version_watch.py compares them with the counters now. Counters are cumulative,
so two marks are all that is needed: `start`, when the watch began, and `before`, some time earlier.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import ClassVar

from artifact_sync.canonical import FrozenModel, Record
from artifact_sync.durable import write_durably
from artifact_sync.errors import RecordError
from artifact_sync.records import Number
from serving.agent_state import Label
from serving.traffic.observation import TrafficReport

_MOST_MARKS = 4
_READING_SECONDS = 30.0


class TrafficMark(FrozenModel):
    """All front ends' counters when a version's watch began, and some time before that."""

    label: Label
    release: Number
    version: Number
    before: tuple[TrafficReport, ...]
    start: tuple[TrafficReport, ...]


class _MarksRecord(Record):
    schema_name: ClassVar[str] = "liftgate.traffic-marks/1"
    marks: tuple[TrafficMark, ...]


class TrafficMarks:
    """Marks in a file, and the readings of the last while in memory.

    Args:
        path: the file.
        baseline_seconds: how far back `before` lies.
    """

    def __init__(self, path: Path, *, baseline_seconds: float) -> None:
        self._path = path
        self._baseline_seconds = baseline_seconds
        self._readings: deque[tuple[float, tuple[TrafficReport, ...]]] = deque()

    def remember(self, reports: tuple[TrafficReport, ...], *, at_seconds: float) -> None:
        """Keep a reading for as long as it may be somebody's `before`."""
        if reports and (not self._readings or at_seconds - self._readings[-1][0] >= _READING_SECONDS):
            self._readings.append((at_seconds, reports))
        while len(self._readings) > 1 and at_seconds - self._readings[1][0] >= self._baseline_seconds:
            self._readings.popleft()

    def mark(self, label: Label, *, release: int, version: int, reports: tuple[TrafficReport, ...]) -> TrafficMark:
        """Return the mark of a watch; the first call makes it from `reports`."""
        known = self.known(label, release=release, version=version)
        if known is not None:
            return known
        made = TrafficMark(label=label, release=release, version=version, before=self._before(), start=reports)
        kept = (*(mark for mark in self._read() if mark.release >= release - 1), made)[-_MOST_MARKS:]
        write_durably(self._path, _MarksRecord(marks=kept).to_json())
        return made

    def _before(self) -> tuple[TrafficReport, ...]:
        if not self._readings or self._readings[-1][0] - self._readings[0][0] < self._baseline_seconds / 2:
            # An agent that has not run for long knows no reading of then: all that was counted is "before".
            return ()
        return self._readings[0][1]

    def known(self, label: Label, *, release: int, version: int) -> TrafficMark | None:
        """Return the mark of a watch that began already."""
        wanted = (label, release, version)
        return next((mark for mark in self._read() if (mark.label, mark.release, mark.version) == wanted), None)

    def _read(self) -> tuple[TrafficMark, ...]:
        try:
            return _MarksRecord.from_json(self._path.read_bytes()).marks
        except (FileNotFoundError, RecordError):
            return ()
