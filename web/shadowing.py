"""Copies of people's requests for a version that nobody sees: asked, compared and counted.

Its place in the flow: classification.py offers a copy once an answer is saved and goes on at once.
Threads, connection and decoding process are the copies' own, so no person ever waits for them.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import CapacityError, LiftgateError, ModelServerError
from artifact_sync.records import InputContract, TrafficShare
from serving.decode_pool import DecodePool
from serving.model_server import ModelServer
from serving.photo_limits import PhotoLimits
from serving.traffic.recorder import TrafficRecorder
from serving.traffic.routing import SHADOW, is_copied
from serving.traffic.shadow import CopyQueue, score_distance
from web.asking import Answer, is_usable
from web.catalog import ModelCatalog

_MAX_WAITING_BYTES = 64 * 1024 * 1024
_NICENESS = 10


@dataclass(frozen=True)
class ShadowLimits:
    """What copies may cost."""

    workers: int
    max_waiting: int
    timeout_seconds: float


class Shadowing:
    """Takes copies while it is used as a context manager; before and after that it drops them.

    Args:
        model: the model that is asked.
        model_server: answers for the label "shadow", over a connection that people's requests do not use.
        catalog: labels and input contract by version.
        recorder: counts what came of the copies.
        photo_limits: what a photo may be and cost, for shadows that take other pixels.
        limits: what copies may cost.
    """

    def __init__(
        self,
        model: str,
        *,
        model_server: ModelServer,
        catalog: ModelCatalog,
        recorder: TrafficRecorder,
        photo_limits: PhotoLimits,
        limits: ShadowLimits,
    ) -> None:
        self._model = model
        self._model_server = model_server
        self._catalog = catalog
        self._recorder = recorder
        self._timeout_seconds = limits.timeout_seconds
        self._decoder = _Decoder(photo_limits)
        self._queue: CopyQueue[_Copy] = CopyQueue(
            self._compare,
            workers=limits.workers,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=_MAX_WAITING_BYTES,
            stop_seconds=limits.timeout_seconds + 1.0,
        )

    def __enter__(self) -> Self:
        self._queue.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.__exit__(kind, error, traceback)
        self._decoder.close()

    def offer(self, share: TrafficShare, *, request_id: str, photo: bytes, answer: Answer) -> None:
        """Copy a request if it falls into the share; never waits and never fails."""
        if not is_copied(request_id, share.percent, salt=self._model):
            return
        copy = _Copy(share.version, photo, answer)
        if not self._queue.offer(copy, size_bytes=len(photo) + answer.pixels.nbytes):
            self._recorder.copy_dropped(share.version)

    def _compare(self, copy: _Copy) -> None:
        try:
            shadow = self._ask(copy)
        except LiftgateError:
            self._recorder.copy_failed(copy.version)
            return
        answer = copy.answer
        self._recorder.compared(
            shadow.card.version,
            is_agreed=shadow.top_label == answer.top_label,
            distance=score_distance(
                answer.card.labels, answer.scores.tolist(), shadow.card.labels, shadow.scores.tolist()
            ),
        )

    def _ask(self, copy: _Copy) -> Answer:
        """Return the shadow's answer; copies get no second try."""
        card = self._catalog.card(copy.version)
        pixels = copy.answer.pixels
        if card.contract != copy.answer.card.contract:
            pixels = self._decoder.decode(copy.photo, card.contract)
        prediction = self._model_server.predict(
            self._model, pixels[np.newaxis], label=SHADOW, timeout_seconds=self._timeout_seconds
        )
        answered = card if prediction.version == card.version else self._catalog.card(prediction.version)
        scores = prediction.scores[0]
        if answered.contract != card.contract or not is_usable(answered, scores):
            raise ModelServerError(f"Version {answered.version} of {self._model} gave no scores to compare.")
        return Answer(answered, pixels, np.clip(scores, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class _Copy:
    """A request to ask again: the version that the release wants, the photo, and what the person got."""

    version: int
    photo: bytes
    answer: Answer


class _Decoder:
    """One decoding process of the copies' own, started when the first copy needs other pixels."""

    def __init__(self, limits: PhotoLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._pool: DecodePool | None = None
        self._is_closed = False

    def decode(self, photo: bytes, contract: InputContract) -> NDArray[np.uint8]:
        with self._lock:
            if self._is_closed:
                raise CapacityError("Copies are made no more: the front end is ending.")
            if self._pool is None:
                self._pool = self._stack.enter_context(DecodePool(workers=1, limits=self._limits))
                for process_id in self._pool.process_ids:
                    # People's photos come first, also for the processor.
                    with suppress(OSError):
                        os.setpriority(os.PRIO_PROCESS, process_id, _NICENESS)
            pool = self._pool
        return pool.decode(photo, contract)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._stack.close()
