"""What a version must show on this very host before a label points at it: memory, answers, latency.

Its place in the flow: the step runner's part that looks and changes nothing. A check that does not
pass raises; one that does returns its figures for the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from artifact_sync.clock import Clock
from artifact_sync.errors import CapacityError, IntegrityError, ModelServerError, ModelServerUnavailableError
from artifact_sync.records import GoldenExamples
from serving.agent_state import MemoryPeak
from serving.golden import golden_photos, read_golden_examples, replay
from serving.latency_probe import LatencyBounds, LatencyVerdict, MeasuredPairs, compare, measure
from serving.memory_budget import (
    DEFAULT_FACTOR,
    MemoryReading,
    MemorySource,
    RoomVerdict,
    judge_room,
    learn,
    needed_bytes,
    reusable_bytes,
    weight_bytes,
)
from serving.rollout_steps import CheckMemory
from serving.server_driver import ServerDriver, StopRequestedError, VersionRejectedError
from serving.settings import AgentSettings
from serving.version_directories import VersionDirectories

_PAIRS_FOR_A_LIMIT = 30


@dataclass(frozen=True)
class VersionChecks:
    """The checks of one model on one host.

    Args:
        driver: the model server.
        directories: the versions on the disk.
        memory: what the system says of the server's memory.
        settings: the limits.
        clock: time.
        should_stop: asked between requests.
    """

    driver: ServerDriver
    directories: VersionDirectories
    memory: MemorySource
    settings: AgentSettings
    clock: Clock
    should_stop: Callable[[], bool]

    def room(self, step: CheckMemory, *, factor: float | None, peak: MemoryPeak | None = None) -> RoomVerdict:
        """Return whether the step's versions fit beside what is there or in its place.

        Raises:
            CapacityError: they do not, or not in the way that the settings allow.
        """
        factor = factor if factor is not None else DEFAULT_FACTOR
        needed = sum(needed_bytes(self.file_bytes(version), factor=factor) for version in step.versions)
        freed = sum(needed_bytes(self.file_bytes(version), factor=factor) for version in step.outgoing)
        verdict = judge_room(needed=needed, freed=freed, reading=self._reading(peak, factor=factor))
        if verdict.room == "beside" or (verdict.room == "swap" and self.settings.when_memory_is_short == "swap"):
            return verdict
        if step.is_return and step.outgoing:
            # What is served must go in any case.
            return RoomVerdict(room="swap", figures=verdict.figures)
        remedy = (
            "Give the model server more memory, or set when_memory_is_short to swap: requests fail while it swaps."
            if verdict.room == "swap"
            else "Give the model server more memory, or release a smaller model."
        )
        raise CapacityError(
            f"Version {', '.join(map(str, step.versions))} refused: it does not fit into the model server's memory"
            f"{' beside the served one' if step.outgoing else ''}. {verdict.figures} Nothing was loaded. {remedy}"
        )

    def _reading(self, peak: MemoryPeak | None, *, factor: float) -> MemoryReading:
        reading = self.memory.read()
        if peak is None or reading.headroom_bytes is None or reading.server_bytes is None:
            return reading
        kept = reusable_bytes(
            peak_bytes=peak.server_bytes,
            peak_needed=sum(needed_bytes(size, factor=factor) for size in peak.file_bytes),
            now_bytes=reading.server_bytes,
            now_needed=sum(needed_bytes(size, factor=factor) for size in self._loaded_file_bytes()),
        )
        return replace(reading, headroom_bytes=reading.headroom_bytes + kept)

    def peak(self, before: MemoryPeak | None) -> MemoryPeak | None:
        """Return the most that the server was seen to hold, after a load."""
        held_bytes = self.server_bytes()
        if held_bytes is None or (before is not None and held_bytes <= before.server_bytes):
            return before
        return MemoryPeak(server_bytes=held_bytes, file_bytes=self._loaded_file_bytes())

    def _loaded_file_bytes(self) -> tuple[int, ...]:
        return tuple(self.file_bytes(version) for version in self.driver.available())

    def server_bytes(self) -> int | None:
        """Return what the server's process holds in memory now; None when it cannot be known."""
        return self.memory.read().server_bytes

    def learned_factor(self, version: int, *, before_bytes: int | None, factor: float | None) -> float | None:
        """Return what a byte of the files takes in memory, after a load that began at `before_bytes`."""
        after_bytes = self.server_bytes()
        if before_bytes is None or after_bytes is None:
            return factor
        return learn(factor, grown_bytes=after_bytes - before_bytes, file_bytes=self.file_bytes(version))

    def file_bytes(self, version: int) -> int:
        """Return the size of a version's variables and graph; 0 for a version of which nothing is known."""
        record = self.directories.record(version)
        return weight_bytes(record.manifest) if record is not None else 0

    def probe(self, version: int) -> None:
        """Replay the golden examples.

        Raises:
            VersionRejectedError: the version answers otherwise than at the training site, or not at all.
            IntegrityError: it has no golden examples.
            ModelServerUnavailableError: the server cannot be reached.
        """
        examples = read_golden_examples(self.directories.directory(version))
        timeout_seconds = self.settings.request_timeout_seconds
        server, model = self.driver.server, self.driver.model
        try:
            result = replay(server, examples, model=model, version=version, timeout_seconds=timeout_seconds)
        except ModelServerUnavailableError:
            raise
        except ModelServerError as error:
            raise VersionRejectedError(
                f"Version {version} refused: the model server does not answer its golden examples: {error}",
                version=version,
            ) from error
        if not result.is_good:
            raise VersionRejectedError(
                f"Version {version} refused: it answers otherwise on this host than at the training site "
                f"({result}). Its label does not move. Compare the TensorFlow of both sites.",
                version=version,
            )

    def latency(self, version: int, *, served: int | None) -> str:
        """Time the version and the served one in turn; return the figures.

        Raises:
            VersionRejectedError: it is slower than it may be, twice.
            ModelServerError: the server does not answer.
            StopRequestedError: the process is to end.
        """
        bounds = LatencyBounds(
            max_ratio=self.settings.max_latency_ratio,
            floor_ms=self.settings.latency_floor_ms,
            max_ms=self.settings.max_latency_ms,
        )
        try:
            first = compare(self._measured(version, served), bounds)
        except ModelServerUnavailableError:
            raise
        except ModelServerError as error:
            # The new version gave its golden answers a moment ago: it is the served one that takes no such photo.
            return f"Latency of version {version} not compared with version {served}: {error}"
        if not first.breaches:
            return _sentence(version, served, first)
        # A host that was busy for a moment is measured once more.
        second = compare(self._measured(version, served), bounds)
        confirmed = first.breaches & second.breaches
        if not confirmed:
            return _sentence(version, served, second)
        limit = f"limit {bounds.max_ms:g} ms (max_latency_ms)" if "limit" in confirmed else ""
        ratio = f"at most {bounds.max_ratio:g} times the served version's or {bounds.floor_ms:g} ms more"
        raise VersionRejectedError(
            f"Version {version} refused: it is too slow on this host, measured twice ({', '.join(sorted(confirmed))}): "
            f"{first.figures}; again: {second.figures}. Allowed: {limit or f'{ratio} (max_latency_ratio)'}. "
            "Its label does not move.",
            version=version,
        )

    def _measured(self, version: int, served: int | None) -> MeasuredPairs:
        pairs = self.settings.latency_pairs
        if pairs == 0:
            # Not compared: there is a limit alone.
            served, pairs = None, _PAIRS_FOR_A_LIMIT
        ours = read_golden_examples(self.directories.directory(version))
        return measure(
            self.driver.server,
            model=self.driver.model,
            new=(version, _photos(ours)),
            served=(served, self._photos_for(served, ours)) if served is not None else None,
            pairs=pairs,
            timeout_seconds=self.settings.request_timeout_seconds,
            clock=self.clock,
            pause=self._stop_when_asked,
        )

    def _photos_for(self, served: int, ours: GoldenExamples) -> Sequence[npt.NDArray[np.uint8]]:
        """Return the new version's photos, or the served version's own where it takes another size."""
        try:
            theirs = read_golden_examples(self.directories.directory(served))
        except IntegrityError:
            return _photos(ours)
        is_same = (theirs.height, theirs.width, theirs.channels) == (ours.height, ours.width, ours.channels)
        return _photos(ours if is_same else theirs)

    def _stop_when_asked(self) -> None:
        if self.should_stop():
            raise StopRequestedError


def _photos(examples: GoldenExamples) -> list[npt.NDArray[np.uint8]]:
    return [pixels[np.newaxis] for pixels in golden_photos(examples)]


def _sentence(version: int, served: int | None, verdict: LatencyVerdict) -> str:
    against = f" against version {served}" if served is not None else ""
    return f"Latency of version {version}{against}: {verdict.figures}."
