"""Listening sockets: TCP ports and Unix sockets.

Its place in the flow: grpc_transport.py opens them before it starts to accept.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from serving.embedded_server.status import Code, StatusError

_BACKLOG = 4096
# Owner and group: there is no authentication, so the file's mode decides who may ask.
_UNIX_MODE = 0o660
_CONNECT_SECONDS = 2.0


class Listener:
    """An open listening socket.

    Attributes:
        socket: it does not block.
        target: as a client writes it, "127.0.0.1:8500" or "unix:/run/model.sock".
    """

    def __init__(self, listening: socket.socket, *, target: str, path: Path | None = None) -> None:
        listening.setblocking(False)
        self.socket = listening
        self.target = target
        self._path = path
        self._inode = path.stat().st_ino if path is not None else 0

    def close(self) -> None:
        """Stop listening; the socket's file goes, unless another server has put its own there."""
        self.socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()


def listen_tcp(host: str, port: int) -> Listener:
    """Listen on a port of this machine; 0: a free one.

    Raises:
        StatusError: UNAVAILABLE: it is taken, or the address is not ours.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        # Not SO_REUSEPORT: a second server on the same port is a mistake, not a load balancer.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise StatusError(Code.UNAVAILABLE, f"Cannot listen on {target}: {error.strerror or error}") from None
    bound = listening.getsockname()[1]
    return Listener(listening, target=target.removesuffix(f":{port}") + f":{bound}")


def listen_unix(path: Path) -> Listener:
    """Listen on a Unix socket that owner and group may use; one that a dead server has left is replaced.

    Raises:
        StatusError: UNAVAILABLE: a server listens there, or the file is something else.
    """
    target = f"unix:{path.absolute()}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listening.bind(str(path))
        # Nobody can connect between the two: it does not listen yet.
        path.chmod(_UNIX_MODE)
        listening.listen(_BACKLOG)
        return Listener(listening, target=target, path=path)
    except OSError as error:
        listening.close()
        raise StatusError(Code.UNAVAILABLE, f"Cannot listen on {target}: {error.strerror or error}") from None
    except StatusError:
        listening.close()
        raise


def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StatusError(
            Code.UNAVAILABLE,
            f"Cannot listen on unix:{path}: there is a file that is no socket. Remove it, or say another.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            pass  # its backlog is full: alive, and busy
    raise StatusError(Code.UNAVAILABLE, f"Cannot listen on unix:{path}: another server listens there. Stop it first.")
