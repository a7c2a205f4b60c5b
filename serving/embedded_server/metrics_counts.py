"""The counts behind the metrics, each in its finest grain, in a bounded number of them.

Its place in the flow: metrics.py adds to them under its lock; metrics_families.py adds them up.
Versions come and go for as long as the server lives, so that only the newest of a model have
counts of their own: what older ones counted goes on under the version "older", and no sum shrinks.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.embedded_server.metrics_text import exponential_bounds
from serving.embedded_server.status import Code

LATENCY_BOUNDS = exponential_bounds(10, 1.8, 33)
_QUEUING_BOUNDS = exponential_bounds(100, 1.2, 52)
_SIZE_BOUNDS = exponential_bounds(1, 2, 15)
MAX_VERSIONS = 16
"""How many versions of a model have counts of their own."""

_MAX_PATHS = 32
_MAX_BATCH_SIZES = 32
OLDER = "older"

RequestKey = tuple[str, "int | str | None", str, str, Code]


class Distribution:
    """Values counted by bucket, with their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add_value(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Distribution) -> None:
        """Take another's values in; both have the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


@dataclass
class Batches:
    """The batches of one version."""

    queuing: Distribution = field(default_factory=lambda: Distribution(_QUEUING_BOUNDS))
    sizes: Distribution = field(default_factory=lambda: Distribution(_SIZE_BOUNDS))

    def add(self, other: Batches) -> None:
        """Take another's in."""
        self.queuing.add(other.queuing)
        self.sizes.add(other.sizes)


@dataclass
class Loads:
    """How often something was loaded or warmed up with one outcome, and how long it took in all."""

    count: int = 0
    microseconds: float = 0.0
    records: int = 0

    def add(self, other: Loads) -> None:
        """Take another's in."""
        self.count += other.count
        self.microseconds += other.microseconds
        self.records += other.records


VersionKey = tuple[str, "int | str | None"]


class Counts:
    """Everything that is counted; the caller holds a lock."""

    def __init__(self) -> None:
        self.requests: dict[RequestKey, Distribution] = {}
        self.runtimes: dict[tuple[str, int | str | None, str], Distribution] = {}
        self.batches_by_version: dict[VersionKey, Batches] = {}
        self.examples_by_model: dict[str, Distribution] = {}
        self.queuing_by_pool: dict[str, Distribution] = {}
        self.input_sizes = Distribution(_SIZE_BOUNDS)
        self.padding_by_size: dict[str, Distribution] = {}
        self.loads_by_version: dict[tuple[str, int | str | None, Code], Loads] = {}
        self.loads_by_path: dict[tuple[str, Code], Loads] = {}
        self.warm_ups: dict[tuple[str, Code], tuple[Loads, Distribution]] = {}
        self._versions: dict[str, dict[int, None]] = {}

    def snapshot(self) -> Counts:
        """Return a copy whose tables do not change; the distributions in them go on counting."""
        copied = copy.copy(self)
        for name, table in vars(self).items():
            if isinstance(table, dict):
                setattr(copied, name, dict(table))
        return copied

    def new_request(self, key: RequestKey) -> Distribution:
        """Return the distribution of a key, made where there is none."""
        self._make_room(key[0], key[1])
        return self.requests.setdefault(key, Distribution())

    def runtime(self, model: str, version: int, api: str) -> Distribution:
        """Return the distribution of the time in TensorFlow."""
        found = self.runtimes.get((model, version, api))
        if found is None:
            self._make_room(model, version)
            found = self.runtimes[model, version, api] = Distribution()
        return found

    def examples(self, model: str) -> Distribution:
        """Return the Examples a request of a model; only models that answered are counted, so they are few."""
        found = self.examples_by_model.get(model)
        return found or self.examples_by_model.setdefault(model, Distribution(_SIZE_BOUNDS))

    def batches(self, model: str, version: int) -> Batches:
        """Return the batches of a version."""
        found = self.batches_by_version.get((model, version))
        if found is None:
            self._make_room(model, version)
            found = self.batches_by_version[model, version] = Batches()
        return found

    def queuing(self, pool: str) -> Distribution:
        """Return the waiting times in a thread pool's queue."""
        found = self.queuing_by_pool.get(pool)
        return found or self.queuing_by_pool.setdefault(pool, Distribution(_QUEUING_BOUNDS))

    def padding(self, batch_size: int) -> Distribution:
        """Return the paddings of batches of one size."""
        size = str(batch_size)
        if size not in self.padding_by_size and len(self.padding_by_size) >= _MAX_BATCH_SIZES:
            size = "other"
        return self.padding_by_size.setdefault(size, Distribution(_SIZE_BOUNDS))

    def load(self, model: str, version: int, path: str, status: Code, microseconds: float) -> None:
        """Count an attempt to load."""
        self._make_room(model, version)
        attempt = Loads(1, microseconds)
        self.loads_by_version.setdefault((model, version, status), Loads()).add(attempt)
        self.loads_by_path.setdefault((path, status), Loads()).add(attempt)
        while len(self.loads_by_path) > _MAX_PATHS:
            self._fold_path(self.loads_by_path)

    def warm_up(self, path: str, status: Code, records: int, microseconds: float) -> None:
        """Count a warm-up."""
        loads, latency = self.warm_ups.setdefault((path, status), (Loads(), Distribution()))
        loads.add(Loads(1, microseconds, records))
        latency.add_value(microseconds)
        if len(self.warm_ups) > _MAX_PATHS:
            old_path, old_status = next(key for key in self.warm_ups if key[0] != OLDER)
            old_loads, old_latency = self.warm_ups.pop((old_path, old_status))
            kept_loads, kept_latency = self.warm_ups.setdefault((OLDER, old_status), (Loads(), Distribution()))
            kept_loads.add(old_loads)
            kept_latency.add(old_latency)

    def _fold_path(self, loads: dict[tuple[str, Code], Loads]) -> None:
        path, status = next(key for key in loads if key[0] != OLDER)
        found = loads.pop((path, status))
        loads.setdefault((OLDER, status), Loads()).add(found)

    def _make_room(self, model: str, version: int | str | None) -> None:
        if not isinstance(version, int):
            return
        known = self._versions.setdefault(model, {})
        known[version] = None
        if len(known) > MAX_VERSIONS:
            oldest = next(iter(known))
            del known[oldest]
            self._fold_version(model, oldest)

    def _fold_version(self, model: str, version: int) -> None:
        for table, make in (
            (self.requests, Distribution),
            (self.runtimes, Distribution),
            (self.batches_by_version, Batches),
            (self.loads_by_version, Loads),
        ):
            _fold(table, model, version, make)


def _fold(table: object, model: str, version: int, make: object) -> None:
    assert isinstance(table, dict)
    assert callable(make)
    for key in [key for key in table if key[:2] == (model, version)]:
        found = table.pop(key)
        table.setdefault((model, OLDER, *key[2:]), make()).add(found)
