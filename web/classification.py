"""From a photo's bytes to an answer with its receipt.

Its place in the flow: the pages and the API both call `Classifier.classify`. The version that
really answered goes into the receipt, with the labels of that version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from artifact_sync.canonical import sha256_hex
from artifact_sync.clock import Clock
from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, PhotoError
from artifact_sync.records import LabelScore, Receipt
from serving.decode_pool import DecodePool
from serving.model_server import ModelServer, Prediction
from serving.photo_privacy import without_metadata
from web.catalog import ModelCard, ModelCatalog
from web.receipts import KeptPhoto, ReceiptStore

STABLE = "stable"


@dataclass(frozen=True)
class ClassifierSettings:
    """What an answer is made with."""

    model: str
    instance_name: str
    top_count: int
    predict_timeout_seconds: float
    photo_keep_seconds: int


class Classifier:
    """Decodes, predicts and saves the receipt; collaborators are handed in and safe to share by threads."""

    def __init__(
        self,
        settings: ClassifierSettings,
        *,
        model_server: ModelServer,
        catalog: ModelCatalog,
        decode_pool: DecodePool,
        receipts: ReceiptStore,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._model_server = model_server
        self._catalog = catalog
        self._decode_pool = decode_pool
        self._receipts = receipts
        self._clock = clock

    def classify(self, photo: bytes, *, request_id: str, idempotency_key: str | None = None) -> Receipt:
        """Return the saved receipt of a photo's answer.

        Raises:
            PhotoError: the photo is refused.
            RefusedError: the idempotency key came with another photo before.
            ModelServerError: the model server gives no usable answer.
            StoreError: the receipt cannot be saved.
            LiftgateError: no model is known.
        """
        kept = self._clean(photo)
        repeated = self._receipts.find_repeated(idempotency_key, photo_sha256=sha256_hex(kept or photo))
        if repeated is not None:
            return repeated
        card, scores = self._predict(photo)
        now = self._clock.now()
        receipt = Receipt(
            request_id=request_id,
            model=self._settings.model,
            version=card.version,
            top=self._top(card, scores),
            photo_sha256=sha256_hex(kept or photo),
            host=self._settings.instance_name,
            at=now,
        )
        return self._receipts.save(receipt, idempotency_key=idempotency_key, photo=self._keep(kept, now))

    def _clean(self, photo: bytes) -> bytes | None:
        """Return the photo without metadata, None for a format that cannot be cleaned and so is not kept."""
        try:
            return without_metadata(photo, self._decode_pool.limits)
        except PhotoError as error:
            if error.reason == "metadata-not-removable":
                return None
            raise

    def _keep(self, photo: bytes | None, now: datetime) -> KeptPhoto | None:
        seconds = self._settings.photo_keep_seconds
        if photo is None or seconds == 0:
            return None
        return KeptPhoto(photo, expires_at=now + timedelta(seconds=seconds))

    def _predict(self, photo: bytes) -> tuple[ModelCard, NDArray[np.float32]]:
        """Ask the stable version; when it is another than expected and takes other pixels, decode once more."""
        card = self._catalog.current()
        for _ in range(2):
            pixels = self._decode_pool.decode(photo, card.contract)
            prediction, version = self._ask(pixels, expected=card.version)
            answered = card if version == card.version else self._catalog.card(version)
            if prediction is not None and answered.contract == card.contract:
                return answered, self._checked(answered, prediction.scores[0])
            card = answered
        raise ModelServerUnavailableError(
            f"Not answered: the stable version of {self._settings.model} changed twice while one photo was "
            "being looked at. Ask again in a moment."
        )

    def _ask(self, pixels: NDArray[np.uint8], *, expected: int) -> tuple[Prediction | None, int]:
        """Return the prediction and its version; no prediction when another version refused these pixels."""
        try:
            prediction = self._model_server.predict(
                self._settings.model,
                pixels[np.newaxis],
                label=STABLE,
                timeout_seconds=self._settings.predict_timeout_seconds,
            )
        except ModelServerUnavailableError:
            raise
        except ModelServerError:
            version = self._model_server.signature(self._settings.model, label=STABLE).version
            if version == expected:
                raise
            return None, version
        return prediction, prediction.version

    def _checked(self, card: ModelCard, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(scores) != len(card.labels) or not np.isfinite(scores).all():
            raise ModelServerError(
                f"Version {card.version} of {self._settings.model} gave no usable scores for its "
                f"{len(card.labels)} labels. Look at the serving host with `liftgate status`."
            )
        return np.clip(scores, 0.0, 1.0)

    def _top(self, card: ModelCard, scores: NDArray[np.float32]) -> tuple[LabelScore, ...]:
        order = np.argsort(-scores, kind="stable")[: self._settings.top_count]
        return tuple(LabelScore(label=card.labels[index], score=float(scores[index])) for index in order)
