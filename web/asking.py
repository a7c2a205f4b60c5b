"""Asks one label of the model server about a photo, in the pixels of the version that answers.

Its place in the flow: classification.py chooses the label and calls `VersionAsker.ask`; whatever
comes of it is counted for the version it concerns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact_sync.clock import Clock
from artifact_sync.errors import LiftgateError, ModelServerError, ModelServerUnavailableError, PhotoError
from serving.decode_pool import DecodePool
from serving.model_server import ModelServer, Prediction, VersionMissingError
from serving.traffic.recorder import TrafficRecorder
from serving.traffic.routing import CANARY
from web.catalog import ModelCard, ModelCatalog


class CanaryFullError(ModelServerUnavailableError):
    """As many people wait for the canary as may wait for it at once."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Usable scores for one photo, in the order of the card's labels, and the pixels that they are for."""

    card: ModelCard
    pixels: NDArray[np.uint8]
    scores: NDArray[np.float32]

    @property
    def top_label(self) -> str:
        """The label that won."""
        return self.card.labels[int(np.argmax(self.scores))]


class VersionAsker:
    """Decodes, predicts, checks and counts; collaborators are handed in and safe to share by threads.

    Args:
        model: the model that is asked.
        model_server: answers by label.
        catalog: labels and input contract by version.
        decode_pool: decodes photos.
        recorder: counts what each version answered.
        clock: measures how long the model server takes.
        timeout_seconds: how long it may take.
        canary_places: how many threads may wait for the canary at once; a canary that hangs must leave
            threads for the people whom the stable version answers.
    """

    def __init__(
        self,
        model: str,
        *,
        model_server: ModelServer,
        catalog: ModelCatalog,
        decode_pool: DecodePool,
        recorder: TrafficRecorder,
        clock: Clock,
        timeout_seconds: float,
        canary_places: int,
    ) -> None:
        self._model = model
        self._model_server = model_server
        self._catalog = catalog
        self._decode_pool = decode_pool
        self._recorder = recorder
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._canary_places = threading.BoundedSemaphore(canary_places)

    def ask(self, photo: bytes, *, label: str, expected: ModelCard) -> Answer:
        """Return the answer of the version that the label points at, `expected` unless a release is moving.

        Raises:
            PhotoError: the photo is refused.
            VersionMissingError: the server has no such label now.
            CanaryFullError: too many wait for the canary already.
            ModelServerError: it gives no usable answer.
            LiftgateError: it answered with a version that is not signed or cannot be learned now.
        """
        try:
            answer, seconds = self._settled(photo, label=label, card=expected)
        except PhotoError:
            raise
        except (VersionMissingError, CanaryFullError):
            # For the canary that is a host on its way; without the stable label nobody can be answered.
            count = self._recorder.fell_back if label == CANARY else self._recorder.failed
            count(expected.version)
            raise
        except LiftgateError:
            self._recorder.failed(expected.version)
            raise
        if not is_usable(answer.card, answer.scores):
            self._recorder.failed(answer.card.version)
            raise ModelServerError(
                f"Version {answer.card.version} of {self._model} gave no usable scores for its "
                f"{len(answer.card.labels)} labels. Look at the serving host with `liftgate status`."
            )
        self._recorder.answered(answer.card.version, top_label=answer.top_label, seconds=seconds)
        return Answer(answer.card, answer.pixels, np.clip(answer.scores, 0.0, 1.0))

    def _settled(self, photo: bytes, *, label: str, card: ModelCard) -> tuple[Answer, float]:
        """Ask; when another version than expected answers and takes other pixels, decode once more."""
        for _ in range(2):
            pixels = self._decode_pool.decode(photo, card.contract)
            began = self._clock.monotonic()
            prediction, version = self._predict(pixels, label=label, expected=card.version)
            seconds = self._clock.monotonic() - began
            answered = card if version == card.version else self._catalog.card(version)
            if prediction is not None and answered.contract == card.contract:
                return Answer(answered, pixels, prediction.scores[0]), seconds
            card = answered
        raise ModelServerUnavailableError(
            f"Not answered: the {label} version of {self._model} changed twice while one photo was "
            "being looked at. Ask again in a moment."
        )

    def _predict(self, pixels: NDArray[np.uint8], *, label: str, expected: int) -> tuple[Prediction | None, int]:
        """Return the prediction and its version; no prediction when another version refused these pixels."""
        try:
            with self._place(label):
                prediction = self._model_server.predict(
                    self._model, pixels[np.newaxis], label=label, timeout_seconds=self._timeout_seconds
                )
        except (ModelServerUnavailableError, VersionMissingError):
            raise
        except ModelServerError:
            version = self._model_server.signature(self._model, label=label).version
            if version == expected:
                raise
            return None, version
        return prediction, prediction.version

    @contextmanager
    def _place(self, label: str) -> Iterator[None]:
        """Hold one of the canary's places while it is asked; nobody waits for one."""
        if label != CANARY:
            yield
            return
        if not self._canary_places.acquire(blocking=False):
            raise CanaryFullError(f"The canary of {self._model} is not asked: too many wait for it already.")
        try:
            yield
        finally:
            self._canary_places.release()


def is_usable(card: ModelCard, scores: NDArray[np.float32]) -> bool:
    """Return whether scores can be those of a version: one finite number for each of its labels."""
    return len(scores) == len(card.labels) and bool(np.isfinite(scores).all())
