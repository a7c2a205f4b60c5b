"""Reads the photo and the idempotency key out of a request, or says what is wrong with it.

Its place in the flow: pages.py and api.py call it first; nothing of a request is believed but bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import IO

from flask import Request, current_app
from werkzeug.exceptions import RequestEntityTooLarge

from web.problems import RequestError

PHOTO_FIELD = "photo"
_KEY = re.compile(r"^[\x21-\x7e]{8,128}$")


class PhotoRequest(Request):
    """A request whose uploads stay in memory: a photo is never written to disk on its way through."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


def photo_of_form(request: Request) -> bytes:
    """Return the first photo of a multipart form that is not empty.

    Raises:
        RequestError: the form is malformed, or no photo is in it.
        RequestEntityTooLarge: the photo is larger than what is taken.
    """
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            "The photo must come as multipart/form-data; the page's own form sends it so.", reason="malformed-form"
        )
    # Werkzeug gives an empty form for a malformed one, so a form with nothing in it is told as such.
    if not request.form and not request.files:
        raise RequestError("The form is empty, incomplete or malformed. Send the photo again.", reason="malformed-form")
    for upload in request.files.getlist(PHOTO_FIELD):
        data = upload.read()
        if data:
            return _checked(data)
    raise RequestError("No photo was chosen. Choose or take one, then send it.", reason="photo-missing")


def photo_of_api(request: Request) -> bytes:
    """Return the photo of an API request: multipart field "photo", or the raw body of type image/*.

    Raises:
        RequestError: malformed, empty, or of another type.
        RequestEntityTooLarge: the photo is larger than what is taken.
    """
    if request.mimetype == "multipart/form-data":
        return photo_of_form(request)
    if not (request.mimetype.startswith("image/") or request.mimetype == "application/octet-stream"):
        raise RequestError(
            f"Content-Type {request.mimetype or '(none)'!r} is not taken. Send multipart/form-data with the field "
            "'photo', or the photo itself as image/jpeg, image/png or image/webp.",
            reason="content-type-not-allowed",
            status=415,
        )
    data = request.get_data(cache=False)
    if not data:
        raise RequestError("The body is empty. Send the photo's bytes.", reason="photo-missing")
    return _checked(data)


def idempotency_key(values: Mapping[str, str], name: str, *, scope: str) -> str | None:
    """Return the key in `values`, told apart by `scope`, None when there is none.

    Raises:
        RequestError: it is not 8 to 128 printable ASCII characters without spaces.
    """
    key = values.get(name)
    if not key:
        return None
    # The scope is stored with the key, in the column's 128 characters.
    if not _KEY.match(key) or len(scope) + 1 + len(key) > 128:
        raise RequestError(
            "The idempotency key must be 8 to 100 printable ASCII characters without spaces, such as a UUID.",
            reason="idempotency-key-malformed",
        )
    return f"{scope}:{key}"


def _checked(data: bytes) -> bytes:
    if len(data) > current_app.config["PHOTO_MAX_BYTES"]:
        raise RequestEntityTooLarge
    return data
