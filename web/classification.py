"""From a photo's bytes to an answer with its receipt.

Its place in the flow: the pages and the API both call `Classifier.classify`. The user's key decides
between the stable version and the canary; the version that really answered goes into the receipt,
with the labels of that version.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from artifact_sync.canonical import sha256_hex
from artifact_sync.clock import Clock
from artifact_sync.errors import LiftgateError, PhotoError
from artifact_sync.records import LabelScore, Receipt
from serving.model_server import VersionMissingError
from serving.photo_limits import PhotoLimits
from serving.photo_privacy import without_metadata
from serving.traffic.routing import CANARY, STABLE, TrafficSplit, version_label
from web.asking import Answer, CanaryFullError, VersionAsker
from web.catalog import ModelCard, ModelCatalog
from web.receipts import KeptPhoto, ReceiptStore
from web.shadowing import Shadowing

_LOG = logging.getLogger("liftgate.web.classification")


@dataclass(frozen=True)
class ClassifierSettings:
    """What an answer is made with."""

    model: str
    instance_name: str
    top_count: int
    photo_keep_seconds: int


class Classifier:
    """Chooses the version to ask, saves the receipt, offers copies; collaborators are safe to share by threads.

    Args:
        settings: see ClassifierSettings.
        catalog: the newest release and its versions.
        asker: asks the model server.
        receipts: where answers are saved.
        photo_limits: what a photo may be.
        clock: the time in receipts.
        shadowing: takes copies for the shadow; without it none are made.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        *,
        catalog: ModelCatalog,
        asker: VersionAsker,
        receipts: ReceiptStore,
        photo_limits: PhotoLimits,
        clock: Clock,
        shadowing: Shadowing | None = None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._asker = asker
        self._receipts = receipts
        self._photo_limits = photo_limits
        self._clock = clock
        self._shadowing = shadowing

    def classify(
        self, photo: bytes, *, request_id: str, user_key: str | None = None, idempotency_key: str | None = None
    ) -> Receipt:
        """Return the saved receipt of a photo's answer.

        Args:
            photo: the photo's bytes.
            request_id: names the answer.
            user_key: whoever has the same key is asked for the same version; without one the request
                decides, so the next one may be answered by another version.
            idempotency_key: a repeat with the same key gets the receipt of the first.

        Raises:
            PhotoError: the photo is refused.
            RefusedError: the idempotency key came with another photo before.
            ModelServerError: the model server gives no usable answer.
            StoreError: the receipt cannot be saved.
            LiftgateError: no model is known.
        """
        kept = self._clean(photo)
        photo_sha256 = sha256_hex(kept or photo)
        repeated = self._receipts.find_repeated(idempotency_key, photo_sha256=photo_sha256)
        if repeated is not None:
            return repeated
        split = self._catalog.split()
        answer, label = self._answer(photo, split, user_key=user_key or request_id)
        now = self._clock.now()
        receipt = Receipt(
            request_id=request_id,
            model=self._settings.model,
            version=answer.card.version,
            top=self._top(answer),
            photo_sha256=photo_sha256,
            host=self._settings.instance_name,
            at=now,
        )
        saved = self._receipts.save(receipt, idempotency_key=idempotency_key, photo=self._keep(kept, now))
        # Only now: the person's answer is made and saved. Shadows are compared with the stable version alone.
        if self._shadowing is not None and split.shadow is not None and label == STABLE:
            self._shadowing.offer(split.shadow, request_id=request_id, photo=photo, answer=answer)
        return saved

    def _answer(self, photo: bytes, split: TrafficSplit, *, user_key: str) -> tuple[Answer, str]:
        """Return an answer and the label that gave it; nobody gets an error because of a canary."""
        stable, canary = self._catalog.card(split.stable), split.canary
        if canary is not None and version_label(user_key, canary.percent, salt=self._settings.model) == CANARY:
            answer = self._canary_answer(photo, canary.version, stable=stable)
            if answer is not None:
                return answer, CANARY
        return self._asker.ask(photo, label=STABLE, expected=stable), STABLE

    def _canary_answer(self, photo: bytes, version: int, *, stable: ModelCard) -> Answer | None:
        """Return the canary's answer, None when the stable version must give one."""
        expected = stable
        try:
            expected = self._catalog.card(version)
            return self._asker.ask(photo, label=CANARY, expected=expected)
        except (VersionMissingError, CanaryFullError):
            # Usual while hosts load it one after another, after they took it back, and when it hangs; it was counted.
            return None
        except LiftgateError as error:
            if isinstance(error, PhotoError) and expected.contract == stable.contract:
                # The photo's own fault: the stable version would refuse it in the same way.
                raise
            _LOG.warning("no answer of the canary, the stable version is asked", extra={"why": str(error)})
            return None

    def _clean(self, photo: bytes) -> bytes | None:
        """Return the photo without metadata, None for a format that cannot be cleaned and so is not kept."""
        try:
            return without_metadata(photo, self._photo_limits)
        except PhotoError as error:
            if error.reason == "metadata-not-removable":
                return None
            raise

    def _keep(self, photo: bytes | None, now: datetime) -> KeptPhoto | None:
        seconds = self._settings.photo_keep_seconds
        if photo is None or seconds == 0:
            return None
        return KeptPhoto(photo, expires_at=now + timedelta(seconds=seconds))

    def _top(self, answer: Answer) -> tuple[LabelScore, ...]:
        order = np.argsort(-answer.scores, kind="stable")[: self._settings.top_count]
        return tuple(LabelScore(label=answer.card.labels[index], score=float(answer.scores[index])) for index in order)
