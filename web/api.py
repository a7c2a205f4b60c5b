"""The JSON API, version 1: classify a photo, look up an answer, correct it.

Its place in the flow: the same classifier and stores as the pages, for programs. Problems are told
as RFC 9457 says; `Idempotency-Key` makes a repeated call return what the first one did.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for

from artifact_sync.records import NONE_OF_THESE, Receipt
from web.corrections import Correction
from web.problems import API_PREFIX, RequestError
from web.request_context import request_id
from web.services import services
from web.uploads import idempotency_key, photo_of_api
from web.user_key import user_key_of_api

api = Blueprint("api", __name__, url_prefix=f"{API_PREFIX}v1")
_KEY_HEADER = "Idempotency-Key"
_MAX_JSON_BYTES = 16 * 1024


@api.post("/classify")
def classify() -> tuple[Response, int]:
    """Classify one photo: multipart field "photo", or the photo as the body."""
    key = idempotency_key(dict(request.headers), _KEY_HEADER, scope="api")
    receipt = services().classifier.classify(
        photo_of_api(request), request_id=request_id(), user_key=user_key_of_api(), idempotency_key=key
    )
    return jsonify(_answer(receipt)), 200


@api.get("/results/<request_id>")
def result(request_id: str) -> tuple[Response, int]:
    """Return an answer that was given."""
    return jsonify(_answer(services().receipt(request_id))), 200


@api.post("/feedback")
def feedback() -> tuple[Response, int]:
    """Take a correction: request_id, label (null: none of these), keep_photo (false unless said)."""
    document = _json_object()
    label = document["label"]
    correction = Correction(
        request_id=document["request_id"],
        label=NONE_OF_THESE if label is None else label,
        is_photo_given=document.get("keep_photo", False),
        idempotency_key=idempotency_key(dict(request.headers), _KEY_HEADER, scope="api"),
    )
    saved = services().correct(correction)
    answer = {
        "feedback_id": saved.feedback_id,
        "request_id": saved.request_id,
        "label": None if saved.corrected_label == NONE_OF_THESE else saved.corrected_label,
        "is_photo_kept": saved.photo_sha256 is not None,
    }
    return jsonify(answer), 201


def _answer(receipt: Receipt) -> dict[str, Any]:
    return {
        "request_id": receipt.request_id,
        "model": receipt.model,
        "version": receipt.version,
        "top": [{"label": entry.label, "score": round(entry.score, 6)} for entry in receipt.top],
        "answered_at": receipt.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "result_url": url_for("api.result", request_id=receipt.request_id),
    }


def _json_object() -> dict[str, Any]:
    """Return the body, an object with the fields of a correction and no others.

    Raises:
        RequestError: it is not.
    """
    if (request.content_length or 0) > _MAX_JSON_BYTES:
        raise RequestError("The JSON is too large for a correction.", reason="json-too-large", status=413)
    # A page of another site can send other types without asking first.
    if request.mimetype != "application/json":
        raise RequestError("A correction must come as application/json.", reason="content-type-not-allowed", status=415)
    try:
        document = request.get_json(force=True, silent=True)
    except RecursionError:
        document = None
    if not isinstance(document, dict):
        raise RequestError("The body is not a JSON object.", reason="malformed-json")
    fields: dict[str, tuple[type, ...]] = {
        "request_id": (str,),
        "label": (str, type(None)),
        "keep_photo": (bool,),
    }
    wrong = [name for name, value in document.items() if name not in fields or not isinstance(value, fields[name])]
    wrong += [name for name in ("request_id", "label") if name not in document]
    if wrong:
        raise RequestError(
            f"These fields are missing, unknown or of the wrong type: {', '.join(sorted(wrong))[:200]}. "
            "Send request_id (string), label (string, or null for none of these), keep_photo (boolean, optional).",
            reason="json-fields",
            status=422,
        )
    return document
