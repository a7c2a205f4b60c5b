"""One connection: its socket, TLS if there is any, and the HTTP/2 session on it.

Its place in the flow: grpc_transport.py has one for each client and tells it when its socket is
ready; nothing here waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import ssl
import struct
import time

from serving.embedded_server.http2_session import Http2Error, Http2Limits, Http2Session, Stream

_BUFFER_BYTES = 512 << 10
# TLS gives one record (16 KB) at a time.
_READS_AT_ONCE = 16
_NO_LINGER = struct.pack("ii", 1, 0)
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ReceiveBuffer:
    """Where bytes lie between a socket and nghttp2; one serves all connections of a thread."""

    def __init__(self) -> None:
        self.content = memoryview(bytearray(_BUFFER_BYTES))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.content))


class Http2Connection:
    """One client's connection, for the one thread that serves it.

    Attributes:
        session: the streams.
        running: how many calls of it are being worked on, those of closed streams too.
        stalled_since: the client has taken nothing since then; None: nothing waits for it.
        ending_since: all is said since then; what still comes is thrown away.
        awaited: what epoll was told to wait for; the owner keeps it equal to `interest`.
        is_last_stream_told: no streams but those that are open will be served.
    """

    def __init__(
        self, accepted: socket.socket, *, limits: Http2Limits, tls: ssl.SSLContext | None, buffer: ReceiveBuffer
    ) -> None:
        accepted.setblocking(False)
        self._socket = accepted
        self._tls: ssl.SSLSocket | None = None
        if tls is not None:
            self._tls = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            self._socket = self._tls
        self._buffer = buffer
        self._unsent = b""
        self._is_heard_out = False
        self.session = Http2Session(limits)
        self.is_open = True
        self.is_shaking_hands = tls is not None
        self.is_last_stream_told = False
        self.awaited = select.EPOLLIN
        self.running = 0
        self.opened_at = time.monotonic()
        self.stalled_since: float | None = None
        self.ending_since: float | None = None

    @property
    def descriptor(self) -> int:
        """The socket's file descriptor; -1 once it is closed."""
        return self._socket.fileno()

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
        if self.is_shaking_hands and not self._shake_hands():
            return []
        news: list[Stream] = []
        for _ in range(_READS_AT_ONCE if self._tls else 1):
            try:
                size = self._socket.recv_into(self._buffer.content)
            except _NOT_NOW:
                break
            except ssl.SSLEOFError:
                size = 0
            if not size:
                self._is_heard_out = True
                break
            if self.ending_since is None:
                news += self.session.receive(self._buffer.address, size)
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
                sent = self._socket.send(self._unsent)
            except _NOT_NOW:
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
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        return self._is_heard_out

    def close(self) -> None:
        """Close at once; open streams are closed."""
        self.is_open = False
        self.session.close()
        self._socket.close()

    def cut(self) -> None:
        """Close at once, and have the system forget what it has not sent: for clients that do not get on."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def _shake_hands(self) -> bool:
        assert self._tls is not None, "only TLS has handshakes here"
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self.stalled_since = self.stalled_since or time.monotonic()
            return False
        if self._tls.selected_alpn_protocol() != "h2":
            raise Http2Error("the client's TLS does not offer h2 (ALPN)")
        self.is_shaking_hands = False
        self.stalled_since = None
        return True
