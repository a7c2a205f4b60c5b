"""REST over HTTP/1.1 with keep-alive: a thread a connection.

Its place in the flow: beside gRPC, for people and for clients without it.
"""

from __future__ import annotations

import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving.embedded_server.catalogue import Catalogue
from serving.embedded_server.rest_answers import answer
from serving.embedded_server.rest_output import error_body
from serving.embedded_server.rest_paths import parse_target
from serving.embedded_server.status import Code, StatusError, invalid_argument

_LOG = logging.getLogger(__name__)
_MAX_BODY_BYTES = 256 * 1024 * 1024
_IDLE_SECONDS = 60
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
_NOT_FOUND_PAGE = "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"


class RestServer:
    """The HTTP server; it listens from the moment it is made.

    Raises:
        StatusError: UNAVAILABLE: the port cannot be opened.
    """

    def __init__(self, catalogue: Catalogue, *, host: str, port: int, timeout_seconds: float) -> None:
        class Handler(_Handler):
            pass

        Handler.catalogue = catalogue
        Handler.timeout_seconds = timeout_seconds
        Handler.running = _Running()
        self._running = Handler.running
        try:
            self._server = _HttpServer((host, port), Handler)
        except OSError as error:
            raise StatusError(Code.UNAVAILABLE, f"Cannot listen on {host}:{port}: {error}") from None
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="rest", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, *, drain_seconds: float) -> None:
        """Take no new connection, and wait until running requests are answered."""
        self._server.shutdown()
        self._server.server_close()
        if not self._running.wait_for_none(drain_seconds):
            _LOG.warning("REST requests were still running after %g s", drain_seconds)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    # Idle keep-alive connections must not hold up the end of the process.
    block_on_close = False
    request_queue_size = 128


class _Running:
    """How many requests are being answered."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_for_none(self, timeout_seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, timeout_seconds)


class _Handler(BaseHTTPRequestHandler):
    catalogue: Catalogue
    timeout_seconds: float
    running: _Running

    protocol_version = "HTTP/1.1"
    server_version = "liftgate"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _LOG.debug(format, *args)

    def _answer(self) -> None:
        with self.running:
            if not self.path.lower().startswith("/v1/"):
                return self._send(404, "text/html", _NOT_FOUND_PAGE)
            try:
                body = self._body()
                target = parse_target(self.command, self.path)
                text = answer(self.catalogue, target, body, timeout_seconds=self.timeout_seconds)
            except StatusError as error:
                text = error_body(error.message) if error.message else ""
                return self._send(_HTTP_STATUS[error.code], "application/json", text)
            except Exception:  # noqa: BLE001  (the edge of a request: it must not end without an answer)
                _LOG.exception("%s %s failed unexpectedly", self.command, self.path)
                return self._send(500, "application/json", error_body("Internal error; see the server's log"))
            return self._send(200, "application/json", text)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            # What follows cannot be told from the next request.
            self.close_connection = True
            raise invalid_argument(f"The body needs a Content-Length of at most {_MAX_BODY_BYTES} bytes")
        return self.rfile.read(int(length))

    def _send(self, status: int, content_type: str, text: str) -> None:
        content = text.encode("utf-8", errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
