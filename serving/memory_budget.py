"""Memory: does a version fit into the model server beside what is there? Pure.

Its place in the flow: before a version is loaded the agent asks `judge_room` with what
server_memory.py read; afterwards `learn` takes from the server's growth what this host needs a byte
of the version's files for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from artifact_sync.records import Manifest

DEFAULT_FACTOR = 3.0
"""Bytes in memory for a byte of variables and graph, until this host knows better: weights, the
checkpoint that they are read from, and constants that the graph optimiser folds."""

_BASE_BYTES = 32 * 1024 * 1024
_RESERVE_SHARE = 0.05
_LEAST_FILE_BYTES = 4 * 1024 * 1024
_MOST_FACTOR = 20.0
_MIB = 1024 * 1024

Room = Literal["beside", "swap", "none"]


@dataclass(frozen=True)
class MemoryReading:
    """What is known of the model server's memory now.

    Args:
        headroom_bytes: how much more it may take; None when nothing could be read.
        limit_bytes: what it may take in all.
        server_bytes: what the server's process holds; None when its process is not known.
        source: where the limit comes from, in words.
    """

    headroom_bytes: int | None
    limit_bytes: int | None
    server_bytes: int | None
    source: str


class MemorySource(Protocol):
    """Where a MemoryReading comes from, such as ServerMemory."""

    def read(self) -> MemoryReading:
        """Return what is known now."""
        ...


@dataclass(frozen=True)
class RoomVerdict:
    """Whether new versions fit `beside` the old, only after a `swap`, or not at all; with the figures."""

    room: Room
    figures: str


def weight_bytes(manifest: Manifest) -> int:
    """Return the size of what is loaded: variables and graph; assets and golden examples stay on the disk."""
    return sum(
        entry.size_bytes
        for entry in manifest.files
        if entry.path.startswith("variables/") or entry.path in {"saved_model.pb", "saved_model.pbtxt"}
    )


def needed_bytes(file_bytes: int, *, factor: float) -> int:
    """Return the memory that a version with that much on the disk is expected to take."""
    return _BASE_BYTES + int(file_bytes * factor)


def judge_room(*, needed: int, freed: int, reading: MemoryReading) -> RoomVerdict:
    """Say whether `needed` bytes fit, with what is there or once `freed` bytes of it are given back."""
    headroom = reading.headroom_bytes
    if headroom is None:
        return RoomVerdict(room="beside", figures="Memory: not known on this host.")
    reserve = int((reading.limit_bytes or 0) * _RESERVE_SHARE)
    figures = (
        f"Memory: about {_mib(needed)} MiB needed, {_mib(max(0, headroom))} MiB free"
        + (f" of {_mib(reading.limit_bytes)} MiB" if reading.limit_bytes is not None else "")
        + f" ({reading.source})"
    )
    if needed + reserve <= headroom:
        return RoomVerdict(room="beside", figures=f"{figures}.")
    if freed and needed + reserve <= headroom + freed:
        return RoomVerdict(room="swap", figures=f"{figures}, {_mib(freed)} MiB more once the old version is unloaded.")
    return RoomVerdict(room="none", figures=f"{figures}.")


def reusable_bytes(*, peak_bytes: int, peak_needed: int, now_bytes: int, now_needed: int) -> int:
    """Return what the server's process keeps of versions that left it, and will use for the next one.

    A process that frees memory does not always give it back to the system, so that its size alone
    would say that no second version fits although two were in it at its peak. One that was started
    anew is far below its peak and keeps nothing.

    Args:
        peak_bytes, now_bytes: what the process held at its peak, and holds.
        peak_needed, now_needed: what the versions in it were thought to need, then and now.
    """
    return max(0, (peak_needed - now_needed) - max(0, peak_bytes - now_bytes))


def learn(factor: float | None, *, grown_bytes: int, file_bytes: int) -> float | None:
    """Return the factor after a load that made the server grow; it rises at once and falls slowly.

    A server reuses memory that an earlier version gave back, so one load can seem to cost nothing.
    Versions of a few megabytes say nothing: the growth is then mostly not theirs.
    """
    if file_bytes < _LEAST_FILE_BYTES or grown_bytes <= 0:
        return factor
    measured = min(_MOST_FACTOR, max(1.0, (grown_bytes - _BASE_BYTES) / file_bytes))
    return round(measured if factor is None else max(measured, 0.75 * factor + 0.25 * measured), 3)


def _mib(size_bytes: int) -> int:
    return round(size_bytes / _MIB)
