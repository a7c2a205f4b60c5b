"""One connection: the HTTP/2 session on it, what is left to send, and how it comes to its end.

Its place in the flow: grpc's IO loop has one for each client and tells it when its socket is ready;
nothing here waits.
"""

from __future__ import annotations

import select
import time

from serving.embedded_server.http2_session import Http2Session
from serving.embedded_server.http2_stream import Http2Limits, Stream
from serving.embedded_server.wires import PlainWire, ReceiveBuffer


class Http2Connection:
    """One client's connection, for the one thread that serves it.

    Attributes:
        session: the streams.
        is_open: not closed yet.
        is_shaking_hands: TLS is not complete yet.
        is_last_stream_told: no streams but those that are open will be served.
        running: how many calls of it are being worked on, those of closed streams too.
        awaited: what epoll was told to wait for; the owner keeps it equal to `interest`.
        opened_at: when it was accepted.
        stalled_since: the client has taken nothing since then; None: nothing waits for it.
        ending_since: all is said since then; what still comes is thrown away.
    """

    def __init__(self, wire: PlainWire, *, limits: Http2Limits, buffer: ReceiveBuffer) -> None:
        self._wire = wire
        self._buffer = buffer
        self._unsent = b""
        self._is_heard_out = False
        self.session = Http2Session(limits)
        self.is_open = True
        self.is_shaking_hands = wire.has_handshake
        self.is_last_stream_told = False
        self.running = 0
        self.awaited = select.EPOLLIN
        self.opened_at = time.monotonic()
        self.stalled_since: float | None = None
        self.ending_since: float | None = None

    @property
    def descriptor(self) -> int:
        """The socket's file descriptor; -1 once it is closed."""
        return self._wire.descriptor

    @property
    def interest(self) -> int:
        """What to wait for, in epoll's terms."""
        mask = 0 if self._is_heard_out else select.EPOLLIN
        return mask | select.EPOLLOUT if self.stalled_since is not None else mask

    @property
    def is_established(self) -> bool:
        """Whether the client has shown that it speaks HTTP/2."""
        return self.session.is_greeted

    def receive(self) -> list[Stream]:
        """Read what has come; return the streams with news.

        Raises:
            OSError: the client is gone, or its TLS is refused.
            Http2Error: it does not speak HTTP/2, or floods.
        """
        news: list[Stream] = []
        try:
            if self.is_shaking_hands:
                self._wire.shake_hands()
                self.is_shaking_hands = False
            for _ in range(self._wire.reads_at_once):
                size = self._wire.receive(self._buffer)
                if not size:
                    self._is_heard_out = True
                    break
                if self.ending_since is None:
                    news += self.session.receive(self._buffer.address, size)
        except BlockingIOError:
            pass
        return news

    def flush(self) -> None:
        """Send what waits, as far as the client takes it.

        Raises:
            OSError: the client is gone.
            Http2Error: the session is of no more use.
        """
        while not self.is_shaking_hands:
            if not self._unsent:
                # Only when all before is gone: what a slow client leaves waits in its streams.
                self._unsent = self.session.take_output()
                if not self._unsent:
                    break
            try:
                sent = self._wire.send(self._unsent)
            except BlockingIOError:
                self.stalled_since = self.stalled_since or time.monotonic()
                return
            self._unsent = self._unsent[sent:]
            if self._unsent:
                self.stalled_since = time.monotonic()
        self.stalled_since = None

    def is_finished(self) -> bool:
        """Whether all is said on both sides, so that the connection should be ended."""
        if self._unsent or self.is_shaking_hands:
            return self._is_heard_out and self.is_shaking_hands
        if self._is_heard_out:
            # A client that has only closed its half still gets the answers to what it asked in full.
            return not any(stream.is_complete for stream in self.session.streams.values())
        return self.session.is_over()

    def end(self) -> bool:
        """Say that no more will come; return whether the connection can be closed at once.

        Closing while the client still talks would make its system throw away what it has not read.
        """
        if self.ending_since is None:
            self.ending_since = time.monotonic()
            self._wire.end()
        return self._is_heard_out

    def close(self, *, is_cut: bool = False) -> None:
        """Close at once, with all streams; a cut has the system forget what the client has not taken."""
        self.is_open = False
        self.session.close()
        self._wire.close(is_cut=is_cut)
