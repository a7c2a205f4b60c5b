"""The HTTP server's door: connections are accepted, and wait a moment where all places are taken.

Its place in the flow: http_server asks it for the next connection that waits.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections import deque

from serving.embedded_server.http_connection import error_response, render

_BACKLOG = 256
_LATE_SECONDS = 0.05
_PAUSE_SECONDS = 0.5
_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HttpListener:
    """It listens from the moment it is made, and accepts from `open`.

    Args:
        host: the address to listen on.
        port: 0 for a free one.
        selector: is told to look at it; the listener itself is the data.

    Raises:
        OSError: the port cannot be opened.
    """

    def __init__(self, *, host: str, port: int, selector: selectors.BaseSelector) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._sock.setblocking(False)
        self._selector = selector
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        self._opens_again_at: float | None = None
        self.port: int = self._sock.getsockname()[1]

    @property
    def patience_seconds(self) -> float | None:
        """How soon to look again at the connections that wait; None where none does."""
        return _LATE_SECONDS / 5 if self._waiting else None

    def open(self) -> None:
        """Accept from now on."""
        self._selector.register(self._sock, selectors.EVENT_READ, self)

    def open_again(self, now: float) -> None:
        """End a pause that is over."""
        if self._opens_again_at is not None and now >= self._opens_again_at:
            self._opens_again_at = None
            self.open()

    def close(self) -> None:
        """Accept no more, and send away who waits; it may be called again."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._sock)
        self._sock.close()
        self._opens_again_at = None
        while self._waiting:
            self._waiting.popleft()[0].close()

    def accept(self) -> bool:
        """Let in who is at the door; return False where no file is left for them, and pause.

        Without the pause the listener would be ready again at once, for ever.
        """
        while len(self._waiting) < _BACKLOG:
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return True
            except OSError as error:
                if error.errno not in _NOTHING_LEFT:
                    return True
                self._selector.unregister(self._sock)
                self._opens_again_at = time.monotonic() + _PAUSE_SECONDS
                return False
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._waiting.append((sock, time.monotonic()))
        return True

    def next_waiting(self) -> socket.socket | None:
        """Return the connection that has waited the longest."""
        return self._waiting[0][0] if self._waiting else None

    def admitted(self) -> None:
        """Forget that connection: it has a place."""
        self._waiting.popleft()

    def refuse_late(self) -> bool:
        """Send that connection away once it has waited long enough; return whether it was."""
        sock, since = self._waiting[0]
        if time.monotonic() - since < _LATE_SECONDS:
            return False
        self._waiting.popleft()
        response = render(error_response(503, "Too many connections"), is_head=False, is_last=True)
        with contextlib.suppress(OSError):
            sock.send(response)
        sock.close()
        return True
