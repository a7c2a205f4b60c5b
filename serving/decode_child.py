"""One decoding child as its parent sees it: start, ask a batch, kill, replace.

Its place in the flow: decode_pool.py shares several of these between threads; one thread at a time
has one. A child that dies or takes too long costs the photo that it was working on, no other.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import CapacityError, PhotoError
from artifact_sync.records import InputContract
from serving.decode_worker import ANSWER, COUNT, GREETING, PHOTO, PIXELS
from serving.photo_limits import PhotoLimits

Decoded = NDArray[np.uint8] | PhotoError
_READ_BYTES = 1 << 20
_START_SECONDS = 60.0
_START_ATTEMPTS = 3


@dataclass(frozen=True)
class PhotoJob:
    """A photo's bytes and what the model takes."""

    data: bytes
    contract: InputContract


class DecodeChild:
    """A `serving.decode_worker` process, started when first needed and again after it died."""

    def __init__(self, limits: PhotoLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._is_greeted = False

    @property
    def process_id(self) -> int | None:
        """The process id, None when no process runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None:
            return
        # The child finds the packages where this process found them; one thread each, since arrays
        # are small and every thread of a linear algebra library reserves address space.
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        }
        self._buffer.clear()
        self._is_greeted = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.decode_worker", json.dumps(asdict(self._limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )

    def stop(self) -> None:
        """Kill the process, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def decode_batch(self, jobs: Sequence[PhotoJob]) -> Iterator[Decoded]:
        """Yield pixels or the refusal for each photo, in order; survives the death of the process.

        Raises:
            CapacityError: no process can be started on this machine.
        """
        done = 0
        while done < len(jobs):
            self._make_ready()
            try:
                self._send(jobs[done:])
            except BrokenPipeError:
                # Killed from outside between batches: nothing was asked of it yet, so ask a new one.
                self.stop()
                continue
            for job in jobs[done:]:
                answer = self._receive(job.contract)
                yield answer if answer is not None else self._bury()
                done += 1
                if answer is None:
                    break

    def _make_ready(self) -> None:
        """Have a process that said that it is ready, so that a broken machine is not blamed on photos."""
        for _ in range(_START_ATTEMPTS):
            self.start()
            if self._is_greeted:
                return
            greeting = self._read(len(GREETING), time.monotonic() + _START_SECONDS)
            self._is_greeted = greeting is not None and bytes(greeting) == GREETING
            if self._is_greeted:
                return
            # It may have been killed from outside while it started, so one failure says little.
            self.stop()
        raise CapacityError(
            "Photos cannot be decoded: the decoding process does not start "
            f"(`{sys.executable} -m serving.decode_worker`). Check memory and the installation."
        )

    def _send(self, jobs: Sequence[PhotoJob]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise BrokenPipeError
        pieces = [COUNT.pack(len(jobs))]
        for job in jobs:
            contract = job.contract
            pieces.append(PHOTO.pack(contract.height, contract.width, contract.channels, len(job.data)))
            pieces.append(job.data)
        view = memoryview(b"".join(pieces))
        while view:
            view = view[process.stdin.write(view) or 0 :]

    def _receive(self, contract: InputContract) -> Decoded | None:
        """Return the next answer; None when the process died or its time is over."""
        deadline = time.monotonic() + self._limits.wall_seconds
        header = self._read(ANSWER.size, deadline)
        if header is None:
            return None
        status, size = ANSWER.unpack(header)
        answer = self._read(size, deadline)
        if answer is None:
            return None
        if status == PIXELS:
            shape = (contract.height, contract.width, contract.channels)
            return np.frombuffer(answer, dtype=np.uint8).reshape(shape)
        refusal = json.loads(answer)
        return PhotoError(refusal["message"], reason=refusal["reason"])

    def _read(self, size: int, deadline: float) -> bytearray | None:
        stream = None if self._process is None else self._process.stdout
        while stream is not None and len(self._buffer) < size:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            data = stream.read(_READ_BYTES) if ready else b""
            if not data:
                return None
            self._buffer += data
        answer = self._buffer[:size]
        del self._buffer[:size]
        return answer

    def _bury(self) -> PhotoError:
        """End the process that gave no answer and say what it died of."""
        process = self._process
        status = None if process is None else process.poll()
        self.stop()
        return self._death_of(status)

    def _death_of(self, status: int | None) -> PhotoError:
        if status is not None and -status in {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL}:
            return PhotoError(
                f"Photo refused: the decoder crashed on it ({signal.Signals(-status).name}). "
                "Save it again with a photo program.",
                reason="decode-failed",
            )
        return PhotoError(
            f"Photo refused: decoding it takes more than {self._limits.cpu_seconds} s of processor time, "
            f"{self._limits.wall_seconds:g} s in all, or too much memory. Save it again with a photo program.",
            reason="decode-limit",
        )
