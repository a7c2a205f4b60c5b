"""The socket of a connection, plain or under TLS; nothing here waits.

Its place in the flow: http2_connection.py reads and writes through one of the two. Python's own
`recv` and `send` give the lock away and have to win it back from the threads that run models; as these
calls do not wait, `PlainWire` keeps it, which saves a fifth of a request's CPU with many clients.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Final

_BUFFER_BYTES: Final = 512 << 10
_NO_LINGER = struct.pack("ii", 1, 0)

# With errno, and without a hand-over of the lock.
_libc = ctypes.PyDLL(None, use_errno=True)
_recv, _send = _libc.recv, _libc.send
_recv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
_recv.restype = _send.restype = ctypes.c_ssize_t
_RECV_FLAGS: Final = socket.MSG_DONTWAIT
_SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class ReceiveBuffer:
    """Where bytes lie between a socket and nghttp2; one serves all connections of a thread."""

    def __init__(self) -> None:
        self.content = memoryview(bytearray(_BUFFER_BYTES))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.content))


class PlainWire:
    """A TCP or Unix socket as it is.

    Attributes:
        descriptor: the file descriptor; -1 once it is closed.
        has_handshake: whether `shake_hands` comes first.
        reads_at_once: how often to read before other connections have their turn.
    """

    has_handshake = False
    reads_at_once = 1

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        self._socket = accepted
        self.descriptor = accepted.fileno()

    def shake_hands(self) -> None:
        """Go on with the handshake, if there is one; BlockingIOError says that it is not complete."""

    def receive(self, buffer: ReceiveBuffer) -> int:
        """Read into the buffer; 0 is the end, BlockingIOError says that nothing has come."""
        size: int = _recv(self.descriptor, buffer.address, _BUFFER_BYTES, _RECV_FLAGS)
        if size < 0:
            raise _os_error()
        return size

    def send(self, content: bytes) -> int:
        """Write; return how much was taken. BlockingIOError says nothing."""
        size: int = _send(self.descriptor, content, len(content), _SEND_FLAGS)
        if size < 0:
            raise _os_error()
        return size

    def end(self) -> None:
        """Say that nothing more will be written."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, is_cut: bool = False) -> None:
        """Close; a cut has the system forget what it has not sent."""
        if is_cut:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.descriptor = -1
        self._socket.close()


class TlsWire(PlainWire):
    """The same under TLS, which has to be negotiated for HTTP/2."""

    has_handshake = True
    # TLS gives one record (16 KB) at a time.
    reads_at_once = 16

    def __init__(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        accepted.setblocking(False)
        self._tls = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        super().__init__(self._tls)

    def shake_hands(self) -> None:
        """Go on with the handshake."""
        with _tls_patience():
            self._tls.do_handshake()
        if self._tls.selected_alpn_protocol() != "h2":
            raise ConnectionAbortedError("the client's TLS does not offer h2 (ALPN)")

    def receive(self, buffer: ReceiveBuffer) -> int:
        """Read a record into the buffer."""
        try:
            with _tls_patience():
                return self._tls.recv_into(buffer.content)
        except ssl.SSLEOFError:
            return 0

    def send(self, content: bytes) -> int:
        """Write what the system takes."""
        with _tls_patience():
            return self._tls.send(content)


@contextlib.contextmanager
def _tls_patience() -> Iterator[None]:
    """Turn TLS's two ways of asking for patience into that of plain sockets."""
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
        raise BlockingIOError from error


def _os_error() -> OSError:
    # Python makes the fitting sub-class of it, BlockingIOError for EAGAIN.
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
