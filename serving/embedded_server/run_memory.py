"""How much memory a run takes, and whether that is there.

Its place in the flow: session.py asks before a run and notes what the first one took.

TensorFlow answers RESOURCE_EXHAUSTED where a tensor cannot be allocated, but oneDNN and Eigen end the
process (seen: a segmentation fault with 256 pictures in MobileNetV2), and Linux promises memory that
it does not have and kills later. So a large run has to fit into what is available before it begins.
What it will take is reckoned from the first few runs of its kind, which TensorFlow traces: the sum
of what its operations allocated. That is more than is ever held at once (about 1.7 times for
MobileNetV2, 34 MiB a picture).
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from serving.control_groups import bytes_in, memory_of_groups
from serving.embedded_server.status import Code, StatusError
from serving.protos import runtime_pb2

_LARGE_BYTES = 256 << 20
_UNKNOWN_FACTOR = 32.0
_LARGEST_FIRST_FACTOR = 256.0
_NO_LIMIT = 1 << 60


class RunMemory:
    """What runs of one plan take: something fixed, and something for each byte of input."""

    def __init__(self) -> None:
        self._input_bytes = 0
        self._taken_bytes = 0
        self._fixed_bytes = 0.0
        self._factor = _UNKNOWN_FACTOR

    def is_worth_tracing(self, input_bytes: int) -> bool:
        """Whether a run of this size would tell something new: the first one, and each that is twice the largest."""
        return input_bytes >= max(1, 2 * self._input_bytes)

    def note(self, run_metadata: Any, *, input_bytes: int) -> None:
        """Take the measure from a traced run's TF_Buffer."""
        content = ctypes.string_at(run_metadata.contents.data, run_metadata.contents.length)
        stats = runtime_pb2.RunMetadata.FromString(content).step_stats
        nodes = (node for device in stats.dev_stats for node in device.node_stats)
        self.note_bytes(sum(memory.total_bytes for node in nodes for memory in node.memory), input_bytes=input_bytes)

    def note_bytes(self, taken_bytes: int, *, input_bytes: int) -> None:
        """Take the measure of a run: what its operations allocated."""
        if not self._input_bytes:
            # What of it is fixed shows at the second size. Until then rather too little than a wrong refusal.
            self._factor = min(_LARGEST_FIRST_FACTOR, taken_bytes / input_bytes)
        elif input_bytes <= self._input_bytes:
            # Of two threads that measured at once the one with the smaller run came last.
            return
        else:
            self._factor = max(0.0, (taken_bytes - self._taken_bytes) / (input_bytes - self._input_bytes))
            self._fixed_bytes = max(0.0, taken_bytes - self._factor * input_bytes)
        self._input_bytes, self._taken_bytes = input_bytes, taken_bytes

    def needed_bytes(self, input_bytes: int) -> int:
        """Return what a run with so much input takes."""
        return int(self._fixed_bytes + (1 + self._factor) * input_bytes)


class MemoryGate:
    """Lets large runs begin only where they fit, all that are under way together.

    Args:
        available_bytes: what the process may still take.
    """

    def __init__(self, available_bytes: Callable[[], int]) -> None:
        self._available_bytes = available_bytes
        self._lock = threading.Lock()
        self._held_bytes = 0

    @contextlib.contextmanager
    def holding(self, needed_bytes: int) -> Iterator[None]:
        """Run a block that takes so much.

        Raises:
            StatusError: RESOURCE_EXHAUSTED: it does not fit.
        """
        if needed_bytes < _LARGE_BYTES:
            yield
            return
        with self._lock:
            # Runs that have begun may not have taken theirs yet.
            free_bytes = self._available_bytes() - self._held_bytes
            if needed_bytes > free_bytes:
                raise StatusError(
                    Code.RESOURCE_EXHAUSTED,
                    f"OOM: this run may take {needed_bytes >> 20} MiB and {max(0, free_bytes) >> 20} MiB are free; "
                    "send fewer rows at once",
                )
            self._held_bytes += needed_bytes
        try:
            yield
        finally:
            with self._lock:
                self._held_bytes -= needed_bytes


def available_bytes() -> int:
    """Return what this process may still take: of the machine, of its control groups, of its own limit."""
    found = [limit - used for limit, used in memory_of_groups("self")]
    found.append(bytes_in(Path("/proc/meminfo"), "MemAvailable") or _NO_LIMIT)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        found.append(limit - (bytes_in(Path("/proc/self/status"), "VmSize") or 0))
    return min(found)
