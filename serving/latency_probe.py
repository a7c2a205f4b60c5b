"""Latency: does a new version take longer on this host than the one it would replace?

Its place in the flow: after the golden examples and before any label moves the agent times both
versions in turn through the model server; `compare` is pure and judges what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from artifact_sync.clock import Clock
from serving.model_server import ModelServer

_WARM_UP = 5
_MOST_SECONDS = 60.0
_LEAST_PAIRS = 5


@dataclass(frozen=True)
class LatencyBounds:
    """What is too slow: over `max_ratio` times the served version and over it by more than `floor_ms`."""

    max_ratio: float
    floor_ms: float
    max_ms: float | None = None


@dataclass(frozen=True)
class MeasuredPairs:
    """Milliseconds of single requests, made in turn; `served_ms` is empty when no version is served."""

    new_ms: tuple[float, ...]
    served_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class LatencyVerdict:
    """What the figures say.

    Args:
        figures: one sentence with all of them.
        breaches: which of them are over the bounds: "median", "95th percentile", "limit".
    """

    figures: str
    breaches: frozenset[str] = field(default_factory=frozenset)


def compare(pairs: MeasuredPairs, bounds: LatencyBounds) -> LatencyVerdict:
    """Judge one set of measured pairs.

    Each figure must be over the ratio and over the floor. As the two versions were timed in turn, a
    host that was busy for a while made both slow.
    """
    new = {"median": percentile(pairs.new_ms, 0.5), "95th percentile": percentile(pairs.new_ms, 0.95)}
    said = f"median {new['median']:.1f} ms, 95th percentile {new['95th percentile']:.1f} ms of {len(pairs.new_ms)}"
    breaches = set()
    if pairs.served_ms:
        served = {
            name: percentile(pairs.served_ms, share) for name, share in (("median", 0.5), ("95th percentile", 0.95))
        }
        said += f"; served version {served['median']:.1f} and {served['95th percentile']:.1f} ms"
        breaches = {name for name in new if _is_slower(new[name], served[name], bounds)}
    if bounds.max_ms is not None and new["median"] > bounds.max_ms:
        breaches.add("limit")
    return LatencyVerdict(figures=said, breaches=frozenset(breaches))


def _is_slower(new_ms: float, served_ms: float, bounds: LatencyBounds) -> bool:
    return new_ms > bounds.max_ratio * served_ms and new_ms - served_ms > bounds.floor_ms


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that is not below `share` of them (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def measure(
    server: ModelServer,
    *,
    model: str,
    new: tuple[int, Sequence[npt.NDArray[np.uint8]]],
    served: tuple[int, Sequence[npt.NDArray[np.uint8]]] | None,
    pairs: int,
    timeout_seconds: float,
    clock: Clock,
    pause: Callable[[], None],
) -> MeasuredPairs:
    """Time single requests to the new and the served version in turn, after some that do not count.

    Args:
        server: the model server that users' requests go to.
        model: the model's name.
        new: the new version and its photos, each [1, height, width, channels].
        served: the version that is served and its photos; None when there is none.
        pairs: how many of each; fewer when that takes over a minute.
        timeout_seconds: how long one may take.
        clock: time.
        pause: called between requests; raises when the process is to end.

    Raises:
        ModelServerError: a version refuses or does not answer.
    """
    contestants = [new] if served is None else [new, served]
    measured: tuple[list[float], ...] = tuple([] for _ in contestants)
    began = clock.monotonic()
    for turn in range(_WARM_UP + pairs):
        # Each goes first in every other turn: what follows in the caches is not always the same one.
        order = range(len(contestants)) if turn % 2 else reversed(range(len(contestants)))
        for index in order:
            pause()
            version, photos = contestants[index]
            started = clock.monotonic()
            server.predict(model, photos[turn % len(photos)], version=version, timeout_seconds=timeout_seconds)
            if turn >= _WARM_UP:
                measured[index].append((clock.monotonic() - started) * 1000.0)
        if turn >= _WARM_UP + _LEAST_PAIRS and clock.monotonic() - began > _MOST_SECONDS:
            break
    return MeasuredPairs(new_ms=tuple(measured[0]), served_ms=tuple(measured[1]) if served is not None else ())
