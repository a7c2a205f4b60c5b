"""The pages for people: upload, result, correction, thanks. They work without JavaScript.

Its place in the flow: a form posts the photo to /classify, the result page posts a correction to
/feedback. Both carry an idempotency key, so that a reload or a double tap does nothing twice.
"""

from __future__ import annotations

import secrets

from flask import Blueprint, Response, make_response, render_template, request

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import LiftgateError, PhotoError
from artifact_sync.records import NONE_OF_THESE
from serving.photo_format import allowed_formats
from web.corrections import Correction
from web.preview import Preview, make_preview
from web.problems import RequestError, problem_of
from web.request_context import request_id
from web.services import services
from web.uploads import idempotency_key, photo_of_form
from web.user_key import user_key_of_page

pages = Blueprint("pages", __name__)
_IDEMPOTENCY_FIELD = "idempotency_key"


@pages.get("/")
def upload_page() -> str:
    """The form for a photo."""
    user_key_of_page()
    return _upload_page(problem_text=None)


@pages.post("/classify")
def classify() -> Response:
    """The answer for a photo."""
    try:
        photo = photo_of_form(request)
        key = _key_of_form(content=photo)
        receipt = services().classifier.classify(
            photo, request_id=request_id(), user_key=user_key_of_page(), idempotency_key=key
        )
    except (PhotoError, RequestError) as error:
        # What the person can mend is told where they can mend it: above the form.
        response = make_response(_upload_page(problem_text=str(error).removeprefix("Photo refused: ")))
        problem = problem_of(error)
        response.status_code = problem.status
        if problem.retry_seconds is not None:
            response.headers["Retry-After"] = str(problem.retry_seconds)
        return response
    now = services().clock.now()
    return make_response(
        render_template(
            "result.html",
            receipt=receipt,
            labels=services().labels(receipt),
            preview=_preview(photo),
            none_of_these=NONE_OF_THESE,
            is_photo_kept=services().receipts.is_photo_kept(receipt.request_id, now=now),
            keep_minutes=max(1, round(services().settings.photo_keep_seconds / 60)),
            idempotency_key=secrets.token_hex(16),
        )
    )


@pages.post("/feedback")
def feedback() -> Response:
    """Take a correction; the page says thanks only when it is on disk."""
    label = request.form.get("label", "")
    if not label:
        raise RequestError("No label was chosen. Go back and choose the right one.", reason="label-missing")
    correction = Correction(
        request_id=request.form.get("request_id", ""),
        label=label,
        is_photo_given=request.form.get("keep_photo") == "yes",
        idempotency_key=_key_of_form(content=label.encode()),
    )
    saved = services().correct(correction)
    return make_response(
        render_template(
            "thanks.html",
            feedback=saved,
            none_of_these=NONE_OF_THESE,
            is_photo_kept=saved.photo_sha256 is not None,
            is_photo_late=correction.is_photo_given and saved.photo_sha256 is None,
        )
    )


def _upload_page(*, problem_text: str | None) -> str:
    settings = services().settings
    return render_template(
        "upload.html",
        problem_text=problem_text,
        formats=allowed_formats(),
        max_bytes=settings.max_upload_bytes,
        keep_minutes=max(1, round(settings.photo_keep_seconds / 60)) if settings.photo_keep_seconds else 0,
        idempotency_key=secrets.token_hex(16),
    )


def _key_of_form(*, content: bytes) -> str | None:
    """Return the form's key for this content: a person may go back and send another photo with the same form."""
    return idempotency_key(request.form, _IDEMPOTENCY_FIELD, scope=f"page-{sha256_hex(content)[:16]}")


def _preview(photo: bytes) -> Preview | None:
    """Return a preview, or none: an answer is not withheld because its picture cannot be drawn."""
    try:
        return make_preview(photo, services().decode_pool)
    except LiftgateError:
        return None
