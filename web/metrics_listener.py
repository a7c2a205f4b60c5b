"""Serves the traffic report on an address of its own: JSON for the agent, text for Prometheus.

Its place in the flow: assembly.py opens it inside the front end's process when `[web] metrics_address`
is set. It is never on the public port, takes GET only, and answers few readers at once.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, Self

from artifact_sync.errors import SettingsError
from serving.traffic.exposition import CONTENT_TYPE, exposition
from serving.traffic.observation import TrafficReport
from serving.traffic.recorder import TrafficRecorder

_LOG = logging.getLogger("liftgate.web.metrics")
_MAX_READERS = 8
_READER_SECONDS = 5.0
_RETRY_SECONDS = 1.0


class MetricsListener:
    """Listens while it is used as a context manager.

    An address that is taken is tried again in the background: while one process follows another, both
    live for a moment, and people's answers must not end because nobody can read the counters.

    Args:
        address: "host:port", with brackets around an IPv6 host; port 0 for a free one.
        recorder: gives the report.
    """

    def __init__(self, address: str, recorder: TrafficRecorder) -> None:
        self._address = address
        self._recorder = recorder
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._stopping.clear()
        is_listening = self._try_to_listen()
        if not is_listening:
            _LOG.warning("the address for metrics is taken, it is tried again", extra={"address": self._address})
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._stopping.set()
            server = self._server
        if server is not None:
            server.shutdown()
        if self._thread is not None:
            self._thread.join()

    @property
    def port(self) -> int | None:
        """The port that is listened on, None while the address is taken by another."""
        return None if self._server is None else int(self._server.server_address[1])

    def _try_to_listen(self) -> bool:
        try:
            server = _Server(self._address, self._recorder.report)
        except OSError:
            return False
        with self._lock:
            if self._stopping.is_set():
                server.server_close()
                return False
            self._server = server
        return True

    def _run(self) -> None:
        while self._server is None:
            if self._stopping.wait(_RETRY_SECONDS):
                return
            self._try_to_listen()
        with self._server as server:
            # Also when it shall stop already: shutdown() waits for the end of this.
            server.serve_forever(poll_interval=0.1)


def check_metrics_address(address: str) -> None:
    """Look whether an address can be listened on now.

    Raises:
        SettingsError: it is in use or not this machine's.
    """
    host, port = _split_address(address)
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {address} for metrics: {error.strerror or error}. Set [web] metrics_address to an "
            "address of this machine that is free, or leave it out."
        ) from None


class _Server(ThreadingMixIn, TCPServer):
    """At most a few readers at once; one more is turned away instead of waiting."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, report: Callable[[], TrafficReport]) -> None:
        host, port = _split_address(address)
        self.address_family = _family(host)
        self.report = report
        self._places = threading.BoundedSemaphore(_MAX_READERS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread if one may be started."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a reader went away in the log, not on stderr."""
        _LOG.info("a reader of metrics went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    timeout = _READER_SECONDS
    server_version = "liftgate"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        """Answer /traffic and /metrics."""
        if self.path == "/traffic":
            self._answer(HTTPStatus.OK, self.server.report().to_json(), content_type="application/json")
        elif self.path == "/metrics":
            self._answer(HTTPStatus.OK, exposition(self.server.report()).encode(), content_type=CONTENT_TYPE)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There are /traffic and /metrics here.\n")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server refuses by itself, methods other than GET among it, without its page."""
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_method else HTTPStatus(code)
        self._answer(status, f"{status.phrase}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Readers come every few seconds: no line for each."""

    def _answer(self, status: HTTPStatus, body: bytes, *, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
