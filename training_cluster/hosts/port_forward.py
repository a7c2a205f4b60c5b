"""A port of this machine's loopback that leads to a port on a training host, through the SSH connection.

Its place in the flow: `tensorboard` shows a host's page here with it. Both ends are loopback: nobody else on
either network can reach the page.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Any, Self

from artifact_sync.errors import LiftgateError, SettingsError
from training_cluster.hosts.ssh import SshTransport

_CHUNK_BYTES = 65536
_LOOPBACK = "127.0.0.1"
_ACCEPT_SECONDS = 0.2


class PortForward:
    """Forwards while its `with` block lasts.

    Args:
        transport: an open connection to the host.
        remote_port: the port on the host's own loopback.
        local_port: the port here; 0 takes a free one.
    """

    def __init__(self, transport: SshTransport, *, remote_port: int, local_port: int = 0) -> None:
        self._transport = transport
        self._remote_port = remote_port
        self._local_port = local_port
        self._listener = socket.socket()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            SettingsError: the port is taken.
        """
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((_LOOPBACK, self._local_port))
        except OSError as error:
            self._listener.close()
            raise SettingsError(
                f"Port {self._local_port} of this machine cannot be used ({error.strerror}). Name another with --port."
            ) from error
        self._listener.listen()
        self._listener.settimeout(_ACCEPT_SECONDS)
        threading.Thread(target=self._accept, name="port-forward", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; connections end with the transport."""
        self._ended.set()
        # Without it the thread that waits in accept would take one more connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def port(self) -> int:
        """The port here."""
        port: int = self._listener.getsockname()[1]
        return port

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._carry, args=(connection,), name="port-forward-one", daemon=True).start()

    def _carry(self, connection: socket.socket) -> None:
        """Carry bytes both ways until one side ends, or this forwarding does."""
        with connection, contextlib.suppress(OSError, EOFError, LiftgateError):
            channel = self._transport.dial(_LOOPBACK, self._remote_port)
            with contextlib.closing(channel):
                sources: list[Any] = [connection, channel]
                while not self._ended.is_set():
                    readable, _, _ = select.select(sources, [], [], 1.0)
                    if connection in readable:
                        data = connection.recv(_CHUNK_BYTES)
                        if not data:
                            return
                        channel.sendall(data)
                    if channel in readable:
                        data = channel.recv(_CHUNK_BYTES)
                        if not data:
                            return
                        connection.sendall(data)
