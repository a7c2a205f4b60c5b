"""REST as TensorFlow Serving speaks it, its metrics, and two addresses of our own for health.

Its place in the flow: beside gRPC, for people and for clients without it. http_server speaks HTTP,
rest_answers knows the models; here are the addresses, the status codes and the counting.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field

from serving.embedded_server.catalogue import Catalogue
from serving.embedded_server.http_connection import HttpResponse, error_response
from serving.embedded_server.http_request import HttpRequest
from serving.embedded_server.http_server import HttpServer, HttpSettings
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.metrics_text import CONTENT_TYPE
from serving.embedded_server.rest_answers import RestAnswers, Served
from serving.embedded_server.rest_body import RestBody
from serving.embedded_server.rest_paths import parse_target
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage

_LOG = logging.getLogger(__name__)
METRICS_PATH = "/monitoring/prometheus/metrics"
_LIVE_PATH = "/healthz/live"
_READY_PATH = "/healthz/ready"
_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
_NOT_FOUND_PAGE = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True)
class RestSettings:
    """How REST answers.

    Args:
        timeout_seconds: how long a request may take, its wait for a thread included; None for ever.
        is_cors_enabled: whether answers carry the headers that let pages of other sites read them.
        metrics_path: where the metrics are shown; None for nowhere.
        is_method_name_checked: as --enable_signature_method_name_check.
        http: what is taken at once.
    """

    timeout_seconds: float | None = 30.0
    is_cors_enabled: bool = False
    metrics_path: str | None = METRICS_PATH
    is_method_name_checked: bool = False
    http: HttpSettings = field(default_factory=HttpSettings)


class RestServer:
    """The HTTP server; it listens from the moment it is made.

    Raises:
        StatusError: UNAVAILABLE: the port cannot be opened.
    """

    def __init__(self, catalogue: Catalogue, *, metrics: Metrics, host: str, port: int, settings: RestSettings) -> None:
        self._service = RestService(catalogue, metrics=metrics, settings=settings)
        try:
            self._server = HttpServer(
                self._service.handle,
                is_express=self._service.is_express,
                host=host,
                port=port,
                settings=settings.http,
            )
        except OSError as error:
            raise StatusError(Code.UNAVAILABLE, f"Cannot listen on {host}:{port}: {error}") from None
        self.address = f"{host}:{self._server.port}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def leave(self) -> None:
        """Answer on, and say at /healthz/ready that no new requests should be sent."""
        self._service.is_leaving = True

    def stop(self, *, drain_seconds: float) -> None:
        """Take no new connection, and wait until running requests are answered."""
        self.leave()
        if not self._server.stop(drain_seconds=drain_seconds):
            _LOG.warning("REST requests were still running after %g s", drain_seconds)


class RestService:
    """Answers one HTTP request; it knows no sockets.

    Args:
        catalogue: where the versions are.
        metrics: counts requests, and is shown.
        settings: how it answers.
    """

    def __init__(self, catalogue: Catalogue, *, metrics: Metrics, settings: RestSettings) -> None:
        self.is_leaving = False
        self._catalogue = catalogue
        self._metrics = metrics
        self._settings = settings
        self._answers = RestAnswers(catalogue, metrics=metrics, is_method_name_checked=settings.is_method_name_checked)

    def is_express(self, request: HttpRequest) -> bool:
        """Return whether a request is quick, and must be answered however busy the models are."""
        return request.target.partition("?")[0] in (_LIVE_PATH, _READY_PATH, self._settings.metrics_path)

    def handle(self, request: HttpRequest) -> HttpResponse:
        """Return the answer to a request."""
        path = request.target.partition("?")[0]
        if self.is_express(request):
            return self._monitor(request.method, path)
        if not path.lower().startswith("/v1/"):
            return HttpResponse(404, _NOT_FOUND_PAGE, "text/html")
        response = self._preflight(request) if request.method == "OPTIONS" else self._ask(request)
        if self._settings.is_cors_enabled:
            return HttpResponse(response.status, response.body, response.content_type, _CORS_HEADERS)
        return response

    def _monitor(self, method: str, path: str) -> HttpResponse:
        if method not in ("GET", "HEAD"):
            return HttpResponse(405, b"Only GET and HEAD\n", "text/plain", {"Allow": "GET, HEAD"})
        if path == self._settings.metrics_path:
            return HttpResponse(200, self._metrics.text().encode("utf-8", errors="replace"), CONTENT_TYPE)
        if path == _LIVE_PATH:
            return HttpResponse(200, b"live\n", "text/plain")
        if self.is_leaving:
            return HttpResponse(503, b"leaving\n", "text/plain")
        is_ready = any(entry.stage is Stage.READY for entry in self._catalogue.all_versions())
        return HttpResponse(200 if is_ready else 503, b"ready\n" if is_ready else b"no version\n", "text/plain")

    def _preflight(self, request: HttpRequest) -> HttpResponse:
        if re.match("https?://", request.headers.get("origin", "")):
            return HttpResponse(200)
        return error_response(400, "Origin header is missing in CORS preflight")

    def _ask(self, request: HttpRequest) -> HttpResponse:
        served, model, verb, code = Served(), "", "", Code.INTERNAL
        try:
            target = parse_target(request.method, request.target)
            model, verb = target.model, target.verb
            encoding = request.headers.get("content-encoding", "")
            body, request.body = RestBody(request.body, content_encoding=encoding), b""
            text = self._answers.answer(target, body, deadline=self._deadline(request), served=served)
            code = Code.OK
            return HttpResponse(200, text.encode("utf-8", errors="replace"))
        except StatusError as error:
            code = error.code
            return _refusal(error)
        except MemoryError:
            code = Code.RESOURCE_EXHAUSTED
            return error_response(429, "The request takes more memory than there is")
        finally:
            self._metrics.request(
                model=model,
                version=served.version,
                api=verb,
                entrypoint="REST",
                status=code,
                microseconds=(time.monotonic() - request.received_at) * 1e6,
            )

    def _deadline(self, request: HttpRequest) -> float | None:
        allowed = self._settings.timeout_seconds
        return None if allowed is None else request.received_at + allowed


def _refusal(error: StatusError) -> HttpResponse:
    status = _HTTP_STATUS[error.code]
    return error_response(status, error.message) if error.message else HttpResponse(status)
