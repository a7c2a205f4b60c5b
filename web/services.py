"""What the views work with: the collaborators that create_app was given, found by request.

Its place in the flow: app.py stores one `Services` in the application; pages, API and health take
it from there and hold nothing themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from artifact_sync.clock import Clock
from artifact_sync.errors import NotFoundError
from artifact_sync.records import NONE_OF_THESE, FeedbackRecord, Receipt
from serving.decode_pool import DecodePool
from serving.model_server import ModelServer
from web.catalog import ModelCatalog
from web.classification import Classifier
from web.corrections import Correction, CorrectionStore
from web.database import Database
from web.problems import RequestError
from web.receipts import ReceiptStore
from web.settings import WebSettings

_EXTENSION = "liftgate"


@dataclass(frozen=True)
class Services:
    """Everything behind the views; all of it is safe to share by threads."""

    settings: WebSettings
    model: str
    model_server: ModelServer
    catalog: ModelCatalog
    decode_pool: DecodePool
    database: Database
    receipts: ReceiptStore
    corrections: CorrectionStore
    classifier: Classifier
    clock: Clock

    def receipt(self, request_id: str) -> Receipt:
        """Return a receipt.

        Raises:
            RequestError: there is none (404).
        """
        try:
            return self.receipts.get(request_id)
        except NotFoundError as error:
            raise RequestError(str(error), reason="result-not-found", status=404) from None

    def labels(self, receipt: Receipt) -> tuple[str, ...]:
        """Return the labels of the version that gave an answer."""
        return self.catalog.card(receipt.version).labels

    def correct(self, correction: Correction) -> FeedbackRecord:
        """Save a correction and return it once it is on disk.

        Raises:
            RequestError: there is no such answer (404), or its version has no such label (422).
        """
        labels = self.labels(self.receipt(correction.request_id))
        if correction.label != NONE_OF_THESE and correction.label not in labels:
            raise RequestError(
                f"{correction.label[:100]!r} is none of the {len(labels)} labels of the version that answered. "
                "Choose one of them, or none of these.",
                reason="label-unknown",
                status=422,
            )
        return self.corrections.add(correction, now=self.clock.now())


def install_services(extensions: dict[str, object], services: Services) -> None:
    """Store the collaborators among an application's extensions."""
    extensions[_EXTENSION] = services


def services() -> Services:
    """Return the collaborators of the application that answers this request."""
    return cast(Services, current_app.extensions[_EXTENSION])
