"""The one thread that waits on every socket of the gRPC server and never waits for anything else.

Its place in the flow: grpc_transport.py starts it. What comes goes through a connection's HTTP/2
session to the dispatcher; answers, which may come from any thread, lie in a queue that is emptied
once a turn, so that many of them cost one wake-up and one write for each connection.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable

from serving.embedded_server.grpc_call import Answer, Call
from serving.embedded_server.grpc_dispatch import GrpcDispatcher, GrpcLimits
from serving.embedded_server.http2_connection import Http2Connection
from serving.embedded_server.http2_session import Http2Error
from serving.embedded_server.listeners import Listener
from serving.embedded_server.wires import PlainWire, ReceiveBuffer, TlsWire

_LOG = logging.getLogger(__name__)
_ACCEPTS_AT_ONCE = 64
# How often deadlines are looked at while there are calls, and everything else always.
_BUSY_SECONDS, _IDLE_SECONDS = 0.05, 1.0
_ACCEPT_PAUSE_SECONDS = 0.2
_OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# How long a client may take to hear of a drain, and to close its side after the last answer.
_NOTICE_SECONDS, _LINGER_SECONDS = 1.0, 1.0
_GONE = select.EPOLLHUP | select.EPOLLERR


class IoLoop:
    """Serves the connections of some listeners.

    Args:
        dispatcher: knows the methods; its answers are to be posted here.
        listeners: where connections come from; closed when a drain begins.
        limits: what clients may ask for.
        tls: for every connection; None: plain text.
    """

    def __init__(
        self,
        dispatcher: GrpcDispatcher,
        *,
        listeners: Iterable[Listener],
        limits: GrpcLimits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._http2_limits = dispatcher.http2_limits()
        self._tls = tls
        self._buffer = ReceiveBuffer()
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self._connections: dict[int, Http2Connection] = {}
        self._touched: dict[Http2Connection, None] = {}
        self._answers: deque[tuple[Call, Answer]] = deque()
        self._is_asleep = False
        self._is_busy = False
        self._next_sweep = self._next_second = 0.0
        self._accepts_again_at: float | None = None
        self._asked_drain_seconds: float | None = None
        self._draining_since: float | None = None
        self._abort_at = float("inf")
        self._epoll = select.epoll()
        self._wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for descriptor in (self._wake_up, *self._listeners):
            self._epoll.register(descriptor, select.EPOLLIN)

    def post(self, call: Call, answer: Answer) -> None:
        """Take an answer, from any thread."""
        self._answers.append((call, answer))
        # Only a sleeper is woken, and only once: who is awake looks at the queue before it sleeps.
        if self._is_asleep:
            self._is_asleep = False
            os.eventfd_write(self._wake_up, 1)

    def drain(self, seconds: float) -> None:
        """Let `run` come to its end, within about so long; from any thread; the first word counts."""
        if self._asked_drain_seconds is not None:
            return
        self._asked_drain_seconds = seconds
        os.eventfd_write(self._wake_up, 1)

    def run(self) -> None:
        """Serve until a drain is complete."""
        try:
            while self._draining_since is None or self._connections:
                self._turn()
        except BaseException:
            _LOG.critical("the thread of the gRPC connections has failed", exc_info=True)
            raise
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)

    def close(self) -> None:
        """Free what the loop waits with; after `run` has ended."""
        self._epoll.close()
        os.close(self._wake_up)

    def _turn(self) -> None:
        self._is_asleep = True
        events = self._epoll.poll(0 if self._answers else _BUSY_SECONDS if self._is_busy else _IDLE_SECONDS)
        self._is_asleep = False
        for descriptor, mask in events:
            connection = self._connections.get(descriptor)
            if connection is not None:
                self._attend(connection, mask)
            elif descriptor in self._listeners:
                self._accept(self._listeners[descriptor])
            elif descriptor == self._wake_up:
                os.eventfd_read(self._wake_up)
                if self._asked_drain_seconds is not None:
                    self._next_sweep = 0.0
        for _ in range(len(self._answers)):
            call, answer = self._answers.popleft()
            self._dispatcher.answer(call, answer)
            self._touched[call.connection] = None
        if self._touched:
            self._settle_touched()
        now = time.monotonic()
        if now >= self._next_sweep:
            self._sweep(now)

    def _attend(self, connection: Http2Connection, mask: int) -> None:
        self._touched[connection] = None
        if not self._is_busy:
            self._is_busy, self._next_sweep = True, time.monotonic() + _BUSY_SECONDS
        try:
            if mask & select.EPOLLIN or not connection.is_established:
                for stream in connection.receive():
                    self._dispatcher.take(connection, stream, self.post)
            elif mask & _GONE:
                self._close(connection)
        except (OSError, Http2Error) as error:
            _LOG.debug("a connection ends: %s", error)
            self._close(connection)
        except Exception:  # noqa: BLE001  (the edge of a connection: a bug may end that one, not the server)
            _LOG.exception("a connection failed unexpectedly")
            self._close(connection)

    def _settle_touched(self) -> None:
        touched, self._touched = self._touched, {}
        for connection in touched:
            if connection.is_open:
                self._settle(connection)

    def _settle(self, connection: Http2Connection) -> None:
        """Send what is to be sent; then either wait for more or part."""
        try:
            if connection.ending_since is None:
                connection.flush()
            if (connection.ending_since is not None or connection.is_finished()) and connection.end():
                self._close(connection)
            elif connection.interest != connection.awaited:
                connection.awaited = connection.interest
                self._epoll.modify(connection.descriptor, connection.awaited)
        except (OSError, Http2Error) as error:
            _LOG.debug("a connection ends: %s", error)
            self._close(connection)

    def _close(self, connection: Http2Connection, *, is_cut: bool = False) -> None:
        # Closing takes it out of epoll too.
        self._connections.pop(connection.descriptor, None)
        connection.close(is_cut=is_cut)

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, _address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    _LOG.warning("no connection can be accepted for the moment: %s", error.strerror)
                    self._listen(0)
                    self._accepts_again_at = time.monotonic() + _ACCEPT_PAUSE_SECONDS
                    return
                continue  # that client has left already
            self._welcome(accepted)

    def _welcome(self, accepted: socket.socket) -> None:
        try:
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            wire = PlainWire(accepted) if self._tls is None else TlsWire(accepted, self._tls)
            connection = Http2Connection(wire, limits=self._http2_limits, buffer=self._buffer)
            self._epoll.register(connection.descriptor, connection.awaited)
        except OSError as error:
            _LOG.debug("a connection ends: %s", error)
            accepted.close()
            return
        self._connections[connection.descriptor] = connection
        self._touched[connection] = None

    def _listen(self, mask: int) -> None:
        for descriptor in self._listeners:
            self._epoll.modify(descriptor, mask)

    def _sweep(self, now: float) -> None:
        """Look at everything that time changes."""
        is_new_second = now >= self._next_second
        if is_new_second:
            self._next_second = now + _IDLE_SECONDS
        if self._asked_drain_seconds is not None and self._draining_since is None:
            self._begin_drain(now, self._asked_drain_seconds)
        if self._accepts_again_at is not None and now >= self._accepts_again_at:
            self._accepts_again_at = None
            self._listen(select.EPOLLIN)
        is_busy = self._accepts_again_at is not None or self._draining_since is not None
        for connection in list(self._connections.values()):
            if connection.session.streams:
                is_busy = True
                self._dispatcher.sweep(connection, now=now)
                self._touched[connection] = None
            if is_new_second:
                connection.session.calm_down()
            if self._draining_since is not None:
                self._drain_connection(connection, now)
            if connection.ending_since is not None and now - connection.ending_since > _LINGER_SECONDS:
                self._close(connection)
            elif self._is_overdue(connection, now):
                self._close(connection, is_cut=True)
        self._settle_touched()
        self._is_busy = is_busy
        self._next_sweep = now + (_BUSY_SECONDS if is_busy else _IDLE_SECONDS)

    def _is_overdue(self, connection: Http2Connection, now: float) -> bool:
        limits = self._limits
        if connection.stalled_since is not None and now - connection.stalled_since > limits.transfer_seconds:
            return True
        return not connection.is_established and now - connection.opened_at > limits.greeting_seconds

    def _begin_drain(self, now: float, seconds: float) -> None:
        self._draining_since, self._abort_at = now, now + seconds
        for listener in self._listeners.values():
            # Who has connected already is told like all others, instead of being cut off.
            self._accept(listener)
            listener.close()
        self._listeners.clear()
        self._accepts_again_at = None
        for connection in self._connections.values():
            connection.session.announce_end()
            self._touched[connection] = None

    def _drain_connection(self, connection: Http2Connection, now: float) -> None:
        assert self._draining_since is not None, "asked for during a drain only"
        self._touched[connection] = None
        has_had_time = now - self._draining_since > _NOTICE_SECONDS
        if not connection.is_last_stream_told and (connection.session.is_ping_answered or has_had_time):
            connection.is_last_stream_told = True
            connection.session.accept_no_more()
        if now >= self._abort_at:
            self._dispatcher.abort(connection)
        if now >= self._abort_at + _LINGER_SECONDS or (has_had_time and connection.is_shaking_hands):
            self._close(connection)
