"""Every error as an answer: a status, a reason for programs, a sentence for people.

Its place in the flow: app.py installs it; the API gets RFC 9457 problem details, browsers a page.
The cause goes to the log, never a traceback to a person.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flask import Flask, Response, current_app, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from artifact_sync.errors import (
    CapacityError,
    InputError,
    LiftgateError,
    ModelServerError,
    NotFoundError,
    PhotoError,
    RefusedError,
    StoreError,
    TrustError,
)
from web.request_context import request_id

_LOG = logging.getLogger("liftgate.web.problem")
API_PREFIX = "/api/"
_RETRY_SECONDS = 2
_MAX_DRAINED_BYTES = 128 * 1024 * 1024

_PHOTO_STATUSES = {"not-an-image": 415, "format-not-allowed": 415, "too-many-bytes": 413, "busy": 503}
_TITLES = {
    400: "The request cannot be read",
    404: "Not found",
    405: "Not possible here",
    413: "The photo is too large",
    415: "This is not a photo that can be read",
    422: "This cannot be used",
    500: "Something went wrong on our side",
    503: "Not available at the moment",
}


@dataclass(frozen=True)
class Problem:
    """What went wrong, as RFC 9457 says it; `retry_seconds` becomes Retry-After."""

    status: int
    reason: str
    detail: str
    retry_seconds: int | None = None

    @property
    def title(self) -> str:
        """The kind of problem in a few words."""
        return _TITLES.get(self.status, "The request was refused")


class RequestError(InputError):
    """A request that is malformed or asks for what is not there."""

    def __init__(self, message: str, *, reason: str, status: int = 400) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status


def install_problems(app: Flask) -> None:
    """Answer every exception with a problem."""
    app.register_error_handler(LiftgateError, _answer_liftgate_error)
    app.register_error_handler(CSRFError, _answer_csrf_error)
    app.register_error_handler(HTTPException, _answer_http_exception)
    app.register_error_handler(Exception, _answer_surprise)


def problem_of(error: LiftgateError) -> Problem:
    """Return how an error of ours is told."""
    if isinstance(error, RequestError):
        return Problem(error.status, error.reason, str(error))
    if isinstance(error, PhotoError):
        status = _PHOTO_STATUSES.get(error.reason, 422)
        return Problem(status, error.reason, str(error), _RETRY_SECONDS if status == 503 else None)
    if isinstance(error, RefusedError):
        return Problem(422, "refused", str(error))
    if isinstance(error, ModelServerError):
        detail = "The model does not answer at the moment. Your photo was not kept; send it again shortly."
        return Problem(503, "model-unavailable", detail, _RETRY_SECONDS)
    if isinstance(error, CapacityError | StoreError | TrustError | NotFoundError):
        detail = "The service is not ready at the moment. Nothing was saved; try again shortly."
        return Problem(503, "not-ready", detail, 5)
    return Problem(500, "internal", "It was noted, together with the request id below. Try again, please.")


def _answer_liftgate_error(error: LiftgateError) -> Response:
    problem = problem_of(error)
    if problem.status >= 500:
        _LOG.error("refused", extra={"request_id": request_id(), "reason": problem.reason, "why": str(error)})
    return _respond(problem)


def _answer_csrf_error(_: CSRFError) -> Response:
    detail = "The page was open for too long, or cookies are off. Go back to the start page and try again."
    return _respond(Problem(400, "page-too-old", detail))


def _answer_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if status == 413:
        _drain_request()
        return _respond(Problem(413, "too-many-bytes", _too_large_text()))
    details = {404: "There is nothing at this address.", 405: "This address does not take this kind of request."}
    detail = details.get(status, error.description or "The request was refused.")
    response = _respond(Problem(status, error.name.lower().replace(" ", "-"), detail))
    if status == 405 and error.get_response().headers.get("Allow"):
        response.headers["Allow"] = error.get_response().headers["Allow"]
    return response


def _answer_surprise(error: Exception) -> Response:
    """The process's edge: whatever was not foreseen is logged whole and told without a word of it."""
    _LOG.error("not foreseen", exc_info=error, extra={"request_id": request_id()})
    return _respond(Problem(500, "internal", "It was noted, together with the request id below. Try again, please."))


def _too_large_text() -> str:
    limit = current_app.config["PHOTO_MAX_BYTES"] / 1024 / 1024
    return f"The photo is larger than the {limit:g} MB that are taken. Send a smaller one."


def _drain_request() -> None:
    """Read what the browser still sends, up to a limit: closing at once would show it a broken connection."""
    stream = request.environ.get("wsgi.input")
    left = min(request.content_length or 0, _MAX_DRAINED_BYTES)
    while stream is not None and left > 0:
        data = stream.read(min(left, 1 << 20))
        if not data:
            return
        left -= len(data)


def _respond(problem: Problem) -> Response:
    if request.path.startswith(API_PREFIX) or request.path in {"/healthz", "/readyz"}:
        document = {
            "type": f"urn:liftgate:problem:{problem.reason}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "instance": f"urn:liftgate:request:{request_id()}",
        }
        response = jsonify(document)
        response.content_type = "application/problem+json"
    else:
        response = make_response(render_template("problem.html", problem=problem, request_id=request_id()))
    response.status_code = problem.status
    if problem.retry_seconds is not None:
        response.headers["Retry-After"] = str(problem.retry_seconds)
    return response
