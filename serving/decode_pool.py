"""Decodes photos in children that can be killed, with the same result as calling decode_photo.

Its place in the flow: dataset build and the holdout feed it many photos, the web front end one at a
time. A photo that would cost too much time or memory costs one child, which is replaced; when more
callers wait than it is worth waiting for, it says "busy" at once.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import CapacityError, PhotoError
from artifact_sync.records import InputContract
from serving.decode_child import DecodeChild, Decoded, PhotoJob
from serving.photo_limits import PhotoLimits

_BATCH_PHOTOS = 32
_BATCH_BYTES = 8 * 1024 * 1024


class DecodePool:
    """Persistent decoding processes; use it as a context manager. Its methods may be called from any thread.

    Args:
        workers: how many processes decode at once.
        limits: what a photo may be and what it may cost.
        max_waiting: callers of `decode` that may wait for a process; one more is told "busy".
        wait_seconds: how long a caller of `decode` waits before it is told "busy".
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        limits: PhotoLimits = PhotoLimits(),  # noqa: B008 (frozen)
        max_waiting: int = 32,
        wait_seconds: float = 10.0,
    ) -> None:
        self.limits = limits
        self._children = tuple(DecodeChild(limits) for _ in range(workers))
        self._idle: queue.LifoQueue[DecodeChild] = queue.LifoQueue()
        self._places = threading.BoundedSemaphore(workers + max_waiting)
        self._wait_seconds = wait_seconds
        self._is_open = False

    def __enter__(self) -> Self:
        self._is_open = True
        for child in self._children:
            child.start()
            self._idle.put(child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        # A child in use is waited for as long as its photo may take, so that none is started anew behind our back.
        with contextlib.suppress(queue.Empty):
            for _ in self._children:
                self._idle.get(timeout=self.limits.wall_seconds)
        for child in self._children:
            child.stop()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The ids of the processes that run."""
        return tuple(child.process_id for child in self._children if child.process_id is not None)

    def decode(self, data: bytes, contract: InputContract) -> NDArray[np.uint8]:
        """Return a photo as the model takes it: uint8 [height, width, channels], as `decode_photo` does.

        Raises:
            PhotoError: refused; beside decode_photo's reasons "decode-limit" and "busy".
            CapacityError: no process can be started, or the pool is not open.
        """
        if not self._places.acquire(blocking=False):
            raise _busy()
        try:
            with self._child(timeout_seconds=self._wait_seconds) as child:
                (decoded,) = child.decode_batch([PhotoJob(data, contract)])
        finally:
            self._places.release()
        if isinstance(decoded, PhotoError):
            raise decoded
        return decoded

    def decode_many(self, photos: Iterable[bytes], contract: InputContract) -> Iterator[Decoded]:
        """Yield pixels, or the PhotoError, of each photo in order; reads ahead a few batches only.

        Raises:
            CapacityError: no process can be started, or the pool is not open.
        """
        pending: deque[Future[list[Decoded]]] = deque()
        with ThreadPoolExecutor(len(self._children), thread_name_prefix="decode") as executor:
            try:
                for batch in _batches(photos, contract):
                    pending.append(executor.submit(self._decode_batch, batch))
                    if len(pending) > 2 * len(self._children):
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _decode_batch(self, jobs: list[PhotoJob]) -> list[Decoded]:
        with self._child(timeout_seconds=None) as child:
            return list(child.decode_batch(jobs))

    @contextmanager
    def _child(self, *, timeout_seconds: float | None) -> Iterator[DecodeChild]:
        if not self._is_open:
            raise CapacityError("Photos cannot be decoded: the decode pool is not open. Use it in a `with` block.")
        try:
            child = self._idle.get(timeout=timeout_seconds)
        except queue.Empty:
            raise _busy() from None
        try:
            yield child
        finally:
            self._idle.put(child)


def _batches(photos: Iterable[bytes], contract: InputContract) -> Iterator[list[PhotoJob]]:
    """Cut photos into batches small in number and in bytes, so that memory stays bounded."""
    batch: list[PhotoJob] = []
    size_bytes = 0
    for data in photos:
        batch.append(PhotoJob(data, contract))
        size_bytes += len(data)
        if len(batch) >= _BATCH_PHOTOS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _busy() -> PhotoError:
    return PhotoError("Photo not taken: too many photos are being read now. Send it again in a moment.", reason="busy")
