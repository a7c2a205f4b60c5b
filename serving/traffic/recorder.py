"""Counts what each version answered and how its shadow compared; cheap, and safe to share by threads.

Its place in the flow: the front end tells it of every question to the model server; the listener for
metrics asks it for a report.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from artifact_sync.clock import Clock
from serving.traffic.observation import LATENCY_BOUNDS_MS, ShadowTraffic, TrafficReport, VersionTraffic


class TrafficRecorder:
    """The counters of one front end, from zero when it is made.

    Args:
        model: the model whose versions are asked.
        front_end: this front end's name.
        clock: the time of the start and of reports.
    """

    def __init__(self, *, model: str, front_end: str, clock: Clock) -> None:
        self._model = model
        self._front_end = front_end
        self._clock = clock
        self._started_at = clock.now()
        self._lock = threading.Lock()
        self._versions: dict[int, _VersionCounts] = {}
        self._shadows: dict[int, _ShadowCounts] = {}

    def answered(self, version: int, *, top_label: str, seconds: float) -> None:
        """Count an answer of a version: the label that won, and how long the model server took."""
        bucket = bisect_left(LATENCY_BOUNDS_MS, seconds * 1000.0)
        with self._lock:
            counts = self._version(version)
            counts.latencies[bucket] += 1
            counts.latency_sum_ms += seconds * 1000.0
            counts.tops[top_label] += 1

    def failed(self, version: int) -> None:
        """Count a question to a version that got no usable answer."""
        with self._lock:
            self._version(version).errors += 1

    def fell_back(self, version: int) -> None:
        """Count a person who should have had a version and got the stable one without an error of it."""
        with self._lock:
            self._version(version).fallbacks += 1

    def compared(self, version: int, *, is_agreed: bool, distance: float) -> None:
        """Count a copy that a shadow answered: whether the same label won, and how far the scores lie apart."""
        with self._lock:
            counts = self._shadow(version)
            counts.compared += 1
            counts.agreed += is_agreed
            counts.distance_sum += distance
            counts.distance_max = max(counts.distance_max, distance)

    def copy_failed(self, version: int) -> None:
        """Count a copy without a usable answer."""
        with self._lock:
            self._shadow(version).failed += 1

    def copy_dropped(self, version: int) -> None:
        """Count a copy that was not made because too many waited."""
        with self._lock:
            self._shadow(version).dropped += 1

    def report(self) -> TrafficReport:
        """Return every counter as it is now."""
        with self._lock:
            return TrafficReport(
                model=self._model,
                front_end=self._front_end,
                started_at=self._started_at,
                at=self._clock.now(),
                versions=tuple(counts.record(version) for version, counts in sorted(self._versions.items())),
                shadows=tuple(counts.record(version) for version, counts in sorted(self._shadows.items())),
            )

    def _version(self, version: int) -> _VersionCounts:
        return self._versions.setdefault(version, _VersionCounts())

    def _shadow(self, version: int) -> _ShadowCounts:
        return self._shadows.setdefault(version, _ShadowCounts())


@dataclass
class _VersionCounts:
    errors: int = 0
    fallbacks: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))
    latency_sum_ms: float = 0.0
    tops: Counter[str] = field(default_factory=Counter)

    def record(self, version: int) -> VersionTraffic:
        return VersionTraffic(
            version=version,
            requests=sum(self.latencies) + self.errors,
            errors=self.errors,
            fallbacks=self.fallbacks,
            latency_counts=tuple(self.latencies),
            latency_sum_ms=self.latency_sum_ms,
            top_counts=dict(self.tops),
        )


@dataclass
class _ShadowCounts:
    compared: int = 0
    agreed: int = 0
    distance_sum: float = 0.0
    distance_max: float = 0.0
    dropped: int = 0
    failed: int = 0

    def record(self, version: int) -> ShadowTraffic:
        return ShadowTraffic(
            version=version,
            compared=self.compared,
            agreed=self.agreed,
            score_distance_sum=self.distance_sum,
            score_distance_max=self.distance_max,
            dropped=self.dropped,
            failed=self.failed,
        )
