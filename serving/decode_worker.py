"""The child process of a decode pool: reads photos from its stdin, writes pixels to its stdout.

Its place in the flow: decode_pool.py starts it as `python -m serving.decode_worker`. It holds
nothing but the decoder: no TensorFlow, no network, no files. It limits itself (address space for
its life, processor time anew for each photo) and dies when a photo goes over; its parent sees that.

A batch from the parent: count (uint32), then for each photo height, width, channels, size in bytes
(uint32 each) and the bytes. After a greeting, the answers, in order: status (0 pixels, 1 refused), size, bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
from typing import BinaryIO

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from serving.photo import decode_photo
from serving.photo_limits import PhotoLimits

COUNT = struct.Struct("<L")
PHOTO = struct.Struct("<LLLL")
ANSWER = struct.Struct("<BL")
PIXELS, REFUSED = 0, 1
GREETING = b"ready"


def main() -> int:
    """Serve batches until the parent closes the pipe."""
    limits = PhotoLimits(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a library may print must not get between the answers.
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError, EOFError):
        sink.write(GREETING)
        sink.flush()
        while True:
            _serve_batch(source, sink, limits)
    return 0


def _serve_batch(source: BinaryIO, sink: BinaryIO, limits: PhotoLimits) -> None:
    """Read a whole batch first: the parent writes all before it reads, so neither waits for the other."""
    (count,) = COUNT.unpack(_read(source, COUNT.size))
    photos = []
    for _ in range(count):
        height, width, channels, size = PHOTO.unpack(_read(source, PHOTO.size))
        photos.append((height, width, channels, _read(source, size)))
    for height, width, channels, data in photos:
        _allow_cpu(limits.cpu_seconds)
        contract = InputContract(height=height, width=width, channels=channels)
        status, answer = _decode(data, contract, limits)
        sink.write(ANSWER.pack(status, len(answer)) + answer)
        sink.flush()


def _decode(data: bytes, contract: InputContract, limits: PhotoLimits) -> tuple[int, bytes]:
    try:
        return PIXELS, decode_photo(data, contract, limits).tobytes()
    except PhotoError as error:
        return REFUSED, json.dumps({"reason": error.reason, "message": str(error)}).encode()


def _allow_cpu(seconds: int) -> None:
    """Move the limit on: this process may use `seconds` more from now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.RLIM_INFINITY))


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError
    return data


if __name__ == "__main__":
    sys.exit(main())
