"""Runs the front end under gunicorn: one process with threads, ended gracefully by SIGTERM.

Its place in the flow: `liftgate web` calls `serve`. One process is enough and simplest: decoding is
in children and predicting in the model server, so threads only wait, and SQLite has one writer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from artifact_sync.errors import SettingsError
from web.metrics_listener import check_metrics_address
from web.request_context import log_as_json
from web.settings import WebSettings

AppFactory = Callable[[], AbstractContextManager[Flask]]
"""Opens the application in the process that answers requests, such as `open_front_end` with its arguments."""


def serve(settings: WebSettings, app_factory: AppFactory, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT; does not return but ends the process.

    Args:
        settings: where to listen, with how many threads.
        app_factory: opens the application; called in the answering process, and closed when it ends.
        on_ready: called with the address, "http://127.0.0.1:8080", once connections are taken.

    Raises:
        SettingsError: the address, or that for metrics, is in use or not this machine's.
    """
    if settings.metrics_address is not None:
        # The answering process listens there; a mistake in the address should be told before it is started.
        check_metrics_address(settings.metrics_address)
    listener = _listen(settings)
    log_as_json()
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def when_ready(_arbiter: object) -> None:
        if on_ready is not None:
            on_ready(address)

    options = {
        "bind": [f"fd://{listener.fileno()}"],
        "worker_class": "gthread",
        "workers": 1,
        "threads": settings.threads,
        "graceful_timeout": settings.graceful_seconds,
        "timeout": 60,
        "keepalive": 30,
        "limit_request_line": 4094,
        "limit_request_fields": 60,
        "worker_tmp_dir": "/dev/shm",  # noqa: S108 - a heartbeat file, which must not wait for a disk
        "loglevel": "warning",
        "when_ready": when_ready,
    }
    _Gunicorn(options, app_factory).run()


def _listen(settings: WebSettings) -> socket.socket:
    """Bind first, so that a taken port is an error of settings and not a loop of retries."""
    try:
        listener = socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
            backlog=256,
        )
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Set [web] host and port to an "
            "address of this machine that is free."
        ) from None
    listener.set_inheritable(True)
    return listener


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """Gunicorn without its command line and configuration file."""

    def __init__(self, options: dict[str, Any], app_factory: AppFactory) -> None:
        self._options = options
        self._app_factory = app_factory
        self._stack = ExitStack()
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)
        if "control_socket_disable" in self.cfg.settings:
            # Newer gunicorns open a socket for commands; nobody here sends any.
            self.cfg.set("control_socket_disable", True)
        self.cfg.set("worker_exit", lambda _arbiter, _worker: self._stack.close())

    def load(self) -> Flask:
        """Called by gunicorn in the answering process, after it was forked."""
        return self._stack.enter_context(self._app_factory())
