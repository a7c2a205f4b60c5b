"""A gRPC server for unary methods, on libnghttp2: ports, one thread for all connections, a pool, a drain.

Its place in the flow: the server binds it, starts it and drains it; methods get their calls from
it. Python's grpcio can do more and takes four to eight times the CPU for a small request.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.embedded_server.grpc_dispatch import GrpcDispatcher, GrpcLimits
from serving.embedded_server.grpc_method import DialogueMethod, Method
from serving.embedded_server.io_loop import IoLoop
from serving.embedded_server.listeners import Listener, listen_tcp, listen_unix
from serving.embedded_server.nghttp2_library import nghttp2_library


class GrpcTransport:
    """Serves methods from `start` until it is drained.

    Args:
        methods: by path ("/package.Service/Method").
        max_threads: how many blocking methods run at once.
        limits: what clients may ask for.
        tls: for every connection, those of Unix sockets too; None: plain text.
    """

    def __init__(
        self,
        methods: Mapping[str, Method | DialogueMethod],
        *,
        max_threads: int,
        limits: GrpcLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._methods = methods
        self._limits = limits or GrpcLimits()
        self._tls = tls
        self._executor = ThreadPoolExecutor(max_threads, thread_name_prefix="grpc")
        self._listeners: list[Listener] = []
        self._loop: IoLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Lock()

    def bind_tcp(self, host: str, port: int) -> str:
        """Listen on a TCP port, 0 for a free one; return "host:port".

        Raises:
            StatusError: it cannot be had.
        """
        return self._bind(listen_tcp(host, port))

    def bind_unix(self, path: Path) -> str:
        """Listen on a Unix socket; return "unix:path".

        Raises:
            StatusError: it cannot be had.
        """
        return self._bind(listen_unix(path))

    def start(self) -> None:
        """Begin to accept connections.

        Raises:
            StatusError: libnghttp2 is not installed.
        """
        nghttp2_library()
        dispatcher = GrpcDispatcher(self._methods, limits=self._limits, executor=self._executor)
        self._loop = IoLoop(dispatcher, listeners=self._listeners, limits=self._limits, tls=self._tls)
        self._thread = threading.Thread(target=self._loop.run, name="grpc-io", daemon=True)
        self._thread.start()

    def begin_drain(self, seconds: float) -> None:
        """Accept no more, and give what runs so long to end.

        Every request that a client has sent before it heard of the drain is answered; what is not
        done in time is answered UNAVAILABLE.
        """
        if self._loop is not None:
            self._loop.drain(seconds)

    def wait_closed(self) -> None:
        """Return when all connections are closed, after `begin_drain`."""
        with self._closing:
            if self._loop is not None and self._thread is not None:
                self._thread.join()
                self._loop.close()
                self._loop = None
        for listener in self._listeners:
            listener.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _bind(self, listener: Listener) -> str:
        self._listeners.append(listener)
        return listener.target
