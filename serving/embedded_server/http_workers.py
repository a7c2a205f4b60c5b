"""The threads that answer HTTP requests, and one beside them for what is not to wait.

Its place in the flow: http_server submits whole requests and is told when the answer is on its way.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

from serving.embedded_server.http_connection import HttpConnection, HttpResponse, error_response, render
from serving.embedded_server.http_request import HttpError, HttpRequest

_LOG = logging.getLogger(__name__)

_SMALL_BYTES = 64 * 1024
# A client that asks again and again does so within this time; an idle thread that waits costs nothing.
_LINGER_MILLISECONDS = 2

_Work = tuple[HttpConnection, HttpRequest]


class HttpWorkers:
    """At most `threads` of them, started as they are needed.

    Args:
        handle: answers a request.
        is_express: whether a request goes to the thread beside.
        threads: how many.
        finished: is called from the thread with what could not be sent at once.
    """

    def __init__(
        self,
        handle: Callable[[HttpRequest], HttpResponse],
        *,
        is_express: Callable[[HttpRequest], bool],
        threads: int,
        finished: Callable[[HttpConnection, bytes], None],
    ) -> None:
        self._handle = handle
        self._is_express = is_express
        self._most_threads = threads
        self._finished = finished
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0
        self._has_express = False
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._express_queue: SimpleQueue[_Work | None] = SimpleQueue()

    def submit(self, connection: HttpConnection, request: HttpRequest) -> None:
        """Have a request answered; called from one thread only."""
        if self._is_express(request):
            if not self._has_express:
                self._has_express = True
                self._start(self._express_queue, "rest-express")
            self._express_queue.put((connection, request))
            return
        with self._lock:
            is_one_idle = self._idle > 0
            self._idle -= is_one_idle
        if not is_one_idle and self._started < self._most_threads:
            self._started += 1
            self._start(self._queue, f"rest-{self._started}")
        self._queue.put((connection, request))

    def stop(self) -> None:
        """End the threads, each after what it is at."""
        for _ in range(self._started):
            self._queue.put(None)
        if self._has_express:
            self._express_queue.put(None)

    def _start(self, queue: SimpleQueue[_Work | None], name: str) -> None:
        threading.Thread(target=self._work, args=(queue,), name=name, daemon=True).start()

    def _work(self, queue: SimpleQueue[_Work | None]) -> None:
        while (work := queue.get()) is not None:
            connection, request = work
            # A large body is not to stay in memory until the next request comes.
            del work
            self._answer_all(connection, request)
            del connection, request
            if queue is self._queue:
                with self._lock:
                    self._idle += 1

    def _answer_all(self, connection: HttpConnection, request: HttpRequest) -> None:
        """Answer a request, and those that follow it at once: two changes of thread cost as much as a small answer."""
        found: HttpRequest | None = request
        del request
        unsent = b""
        while found is not None:
            unsent = self._answer(connection, found)
            found = None
            is_alone = self._queue.empty() and connection.charged_bytes <= _SMALL_BYTES
            if is_alone and not unsent and not connection.is_last:
                found = _next_request(connection)
        self._finished(connection, unsent)

    def _answer(self, connection: HttpConnection, request: HttpRequest) -> bytes:
        """Return what the socket did not take at once."""
        try:
            response = self._handle(request)
        except Exception:  # noqa: BLE001  (the edge of a request: it must not end without an answer)
            _LOG.exception("%s %s failed unexpectedly", request.method, request.target)
            response = error_response(500, "Internal error; see the server's log")
        content = render(response, is_head=request.method == "HEAD", is_last=connection.is_last)
        try:
            # Usually the socket takes it all, and the client has its answer one thread sooner.
            sent = connection.sock.send(content)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            connection.is_last = True
            return b""
        return content[sent:]


def _next_request(connection: HttpConnection) -> HttpRequest | None:
    """Wait a moment for the client's next request; what is not whole by then is the reading thread's affair."""
    try:
        if connection.reader.stage == "idle":
            waiting = select.poll()
            waiting.register(connection.sock, select.POLLIN)
            if not waiting.poll(_LINGER_MILLISECONDS):
                return None
            connection.reader.feed(connection.sock.recv(_SMALL_BYTES))
        request = connection.reader.next_request()
    except HttpError as error:
        connection.refusal = error
        return None
    except (OSError, ValueError):
        # The reading thread will find the same.
        return None
    if request is not None and not request.is_keep_alive:
        connection.is_last = True
    return request
