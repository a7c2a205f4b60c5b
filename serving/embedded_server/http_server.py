"""An HTTP/1.1 server: one thread reads all connections, a bounded number of others answer.

Its place in the flow: rest.py gives it the function that answers. Only whole requests reach a
thread, so that clients who are slow, silent or many cost a socket each and keep nobody waiting.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.embedded_server.http_connection import HttpConnection, HttpResponse, HttpTimes, error_response, render
from serving.embedded_server.http_listener import HttpListener
from serving.embedded_server.http_request import HttpError, HttpLimits, HttpRequest
from serving.embedded_server.http_workers import HttpWorkers

_LOG = logging.getLogger(__name__)
_RECEIVE_BYTES = 128 * 1024
_TICK_SECONDS = 0.5
_SMALL_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class HttpSettings:
    """What the server takes at once.

    Args:
        threads: how many requests are answered at once.
        connections: how many sockets are open; one more closes the one that has been idle the longest.
        buffered_bytes: what the bodies under way take together; a large one more is refused with 503.
        limits: of one request.
        times: of one connection.
    """

    threads: int = 32
    connections: int = 512
    buffered_bytes: int = 768 * 1024 * 1024
    limits: HttpLimits = field(default_factory=HttpLimits)
    times: HttpTimes = field(default_factory=HttpTimes)


class HttpServer:
    """It listens from the moment it is made, and answers from `start`.

    Args:
        handle: answers a request, in a thread of its own.
        is_express: whether a request is quick and is not to wait for others (health, metrics).
        host: the address to listen on.
        port: 0 for a free one.
        settings: what it takes at once.

    Raises:
        OSError: the port cannot be opened.
    """

    def __init__(
        self,
        handle: Callable[[HttpRequest], HttpResponse],
        *,
        is_express: Callable[[HttpRequest], bool],
        host: str,
        port: int,
        settings: HttpSettings,
    ) -> None:
        self._settings = settings
        self._selector = selectors.DefaultSelector()
        self._listener = HttpListener(host=host, port=port, selector=self._selector)
        self.port = self._listener.port
        self._workers = HttpWorkers(handle, is_express=is_express, threads=settings.threads, finished=self._finished)
        self._connections: set[HttpConnection] = set()
        self._returned: deque[tuple[HttpConnection, bytes]] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._charged_bytes = 0
        self._drains_until: float | None = None
        self._is_draining = False
        self._thread = threading.Thread(target=self._run, name="rest", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, *, drain_seconds: float) -> bool:
        """Take no new request; return whether those that were begun were answered in time."""
        self._drains_until = time.monotonic() + drain_seconds
        self._is_draining = True
        self._wake()
        if self._thread.ident is None:
            self._close_all()
            return True
        self._thread.join()
        return not self._connections

    def _run(self) -> None:
        self._listener.open()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, None)
        next_tick = time.monotonic() + _TICK_SECONDS
        while not self._is_over():
            patience = self._listener.patience_seconds or next_tick - time.monotonic()
            for key, _ in self._selector.select(max(0.0, patience)):
                if key.data is self._listener:
                    if not self._listener.accept():
                        self._close_idlest()
                elif key.data is not None:
                    self._serve_safely(key.data)
            self._take_returned()
            self._admit()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_SECONDS
                self._tick()
        self._close_all()

    # Connections come and go.

    def _admit(self) -> None:
        """Take new connections in. Where all places are busy they wait a moment: some are about to be free."""
        while (sock := self._listener.next_waiting()) is not None:
            if len(self._connections) < self._settings.connections or self._close_idlest():
                connection = HttpConnection(sock, limits=self._settings.limits, times=self._settings.times)
                self._connections.add(connection)
                self._selector.register(sock, selectors.EVENT_READ, connection)
                self._listener.admitted()
            elif not self._listener.refuse_late():
                return

    def _close_idlest(self) -> bool:
        idle = [connection for connection in self._connections if connection.is_idle]
        if idle:
            self._close(min(idle, key=lambda connection: connection.since))
        return bool(idle)

    def _close(self, connection: HttpConnection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._charge(connection, 0)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()

    def _close_all(self) -> None:
        left = {connection for connection in self._connections if connection.state in ("working", "writing")}
        for connection in list(self._connections):
            self._close(connection)
        # What is left says that `stop` was not in time.
        self._connections = left
        self._workers.stop()
        self._selector.close()
        self._listener.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    # What arrives.

    def _serve_safely(self, connection: HttpConnection) -> None:
        try:
            self._serve(connection)
        except Exception:  # noqa: BLE001  (this thread serves everybody: it outlives a fault in one connection)
            _LOG.exception("A connection failed unexpectedly")
            self._close(connection)

    def _serve(self, connection: HttpConnection) -> None:
        if connection not in self._connections:
            return
        if connection.state == "writing":
            self._write(connection)
            return
        try:
            data = connection.sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
        elif connection.state == "reading":
            if connection.is_idle:
                connection.enter("reading")
            connection.moved(len(data))
            connection.reader.feed(data)
            self._read(connection)

    def _read(self, connection: HttpConnection) -> None:
        """Hand a whole request to the workers; the connection is silent until it is answered."""
        was_body = connection.reader.stage == "body"
        try:
            request = connection.reader.next_request()
            if request is None:
                if connection.reader.stage == "body" and not was_body:
                    connection.enter("reading")
                self._await_more(connection)
                return
        except HttpError as error:
            self._fail(connection, error.status, error.message)
            return
        self._charge(connection, connection.reader.buffered_bytes + len(request.body))
        connection.enter("working")
        connection.is_last = not request.is_keep_alive
        self._selector.unregister(connection.sock)
        self._workers.submit(connection, request)

    def _await_more(self, connection: HttpConnection) -> None:
        reader = connection.reader
        if reader.is_continue_wanted and not reader.buffered_bytes:
            reader.is_continue_wanted = False
            with contextlib.suppress(OSError):
                connection.sock.send(_CONTINUE)
        self._charge(connection, reader.buffered_bytes)
        if self._charged_bytes > self._settings.buffered_bytes and connection.charged_bytes > _SMALL_BYTES:
            raise HttpError(503, "Too many large bodies are under way; send it again later")

    def _charge(self, connection: HttpConnection, count: int) -> None:
        self._charged_bytes += count - connection.charged_bytes
        connection.charged_bytes = count

    def _fail(self, connection: HttpConnection, status: int, message: str) -> None:
        connection.is_last = True
        self._charge(connection, 0)
        self._begin_writing(connection, render(error_response(status, message), is_head=False, is_last=True))

    # What goes back.

    def _finished(self, connection: HttpConnection, unsent: bytes) -> None:
        """A worker has answered; what the socket did not take at once is written here."""
        self._returned.append((connection, unsent))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_sender.send(b"w")

    def _take_returned(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_receiver.recv(4096)
        while self._returned:
            connection, unsent = self._returned.popleft()
            if connection in self._connections:
                self._charge(connection, connection.reader.buffered_bytes)
                self._selector.register(connection.sock, selectors.EVENT_READ, connection)
                if connection.refusal is not None:
                    self._fail(connection, connection.refusal.status, connection.refusal.message)
                else:
                    self._begin_writing(connection, unsent)

    def _begin_writing(self, connection: HttpConnection, content: bytes) -> None:
        connection.enter("writing")
        connection.pending = memoryview(content)
        self._write(connection)

    def _write(self, connection: HttpConnection) -> None:
        try:
            while connection.pending:
                sent = connection.sock.send(connection.pending)
                connection.moved(sent)
                connection.pending = connection.pending[sent:]
        except (BlockingIOError, InterruptedError):
            self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
            return
        except OSError:
            self._close(connection)
            return
        self._selector.modify(connection.sock, selectors.EVENT_READ, connection)
        if connection.is_last or self._is_draining:
            self._close_gently(connection)
            return
        connection.enter("reading")
        if connection.reader.stage != "idle":
            # The next request came before this one was answered.
            self._read(connection)

    def _close_gently(self, connection: HttpConnection) -> None:
        """Close after the client has: with bytes unread, the answer itself would be lost to a reset."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.enter("closing")

    # Time passes.

    def _tick(self) -> None:
        now = time.monotonic()
        if not self._is_draining:
            self._listener.open_again(now)
        for connection in [found for found in self._connections if found.is_late(now)]:
            if connection.state == "reading" and not connection.is_idle:
                self._fail(connection, 408, "The request did not arrive in time")
            else:
                self._close(connection)

    def _is_over(self) -> bool:
        if not self._is_draining:
            return False
        self._listener.close()
        for connection in [found for found in self._connections if found.is_idle]:
            self._close(connection)
        for connection in self._connections:
            connection.is_last = True
        assert self._drains_until is not None, "draining has an end"
        busy = [found for found in self._connections if found.state != "closing"]
        return not busy or time.monotonic() > self._drains_until
