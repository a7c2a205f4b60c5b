"""A model server of one's own as a child process: started, waited for, and stopped cleanly.

Its place in the flow: the gate's throw-away server, the demo and the tests. A host in service has
its server under systemd instead.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError
from serving.model_server import GrpcModelServer, ModelConfig, model_config_text

BINARY_VARIABLE = "LIFTGATE_TENSORFLOW_MODEL_SERVER"
_POLL_SECONDS = 0.05
_LOG_TAIL_BYTES = 4000


def server_command() -> tuple[str, ...]:
    """Return the command of TensorFlow Serving's own binary where it is at hand, else of the embedded server.

    The binary is at hand when LIFTGATE_TENSORFLOW_MODEL_SERVER names it or it is on the PATH.
    """
    binary = os.environ.get(BINARY_VARIABLE) or shutil.which("tensorflow_model_server")
    return (binary,) if binary else (sys.executable, "-m", "serving.embedded_server")


class ServerProcess:
    """A model server on a Unix socket that only this user can reach; use it in a `with` statement.

    Args:
        models: the models to hold from the start, or the path of a model config file.
        command: the server's command; by default `server_command()`.
        flags: further flags, such as "--file_system_poll_wait_seconds=1".
        is_rest_enabled: whether to open REST, on a free port of the loopback (`rest_port`).
        environment: further environment variables.
        directory: where its socket and its log lie, and which is removed at the end; by default a new one.
        ready_timeout_seconds: how long the first models may take to load.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig] | Path = (),
        *,
        command: Sequence[str] | None = None,
        flags: Sequence[str] = (),
        is_rest_enabled: bool = False,
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
        ready_timeout_seconds: float = 120.0,
    ) -> None:
        self._models = models
        self._command = tuple(command) if command is not None else server_command()
        self._flags = tuple(flags)
        self._is_rest_enabled = is_rest_enabled
        self._environment = environment or {}
        self._ready_timeout_seconds = ready_timeout_seconds
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.rest_port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """What GrpcModelServer takes to reach it."""
        return f"unix:{self._home / 'grpc.sock'}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has written so far on stdout and stderr."""
        return self._log_path.read_text(errors="replace")

    def start(self) -> None:
        """Start the server and return when its ports are open, which is when its first models are settled.

        Raises:
            ModelServerError: it ended or was not ready in time; the message has the end of its log.
        """
        if self._directory is None:
            # A short path: a socket's name holds 107 bytes. Mode 0700, for the server asks no password.
            self._directory = Path(tempfile.mkdtemp(prefix="liftgate-"))
        (self._directory / "grpc.sock").unlink(missing_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self, *, timeout_seconds: float = 30.0) -> int | None:
        """Ask the server to drain and end, kill it when it does not, remove its files; return its exit code."""
        exit_code = self.terminate(timeout_seconds=timeout_seconds)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        return exit_code

    def terminate(self, *, timeout_seconds: float = 30.0) -> int | None:
        """End the server by SIGTERM (SIGKILL after `timeout_seconds`) but keep its files, so it can start again."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End the server as a crash would, by SIGKILL; `start` brings it back from its config file."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    @property
    def _home(self) -> Path:
        assert self._directory is not None, "the server is not started"
        return self._directory

    @property
    def _log_path(self) -> Path:
        return self._home / "server.log"

    def _arguments(self) -> list[str]:
        if isinstance(self._models, Path):
            config = self._models
        else:
            config = self._home / "models.config"
            config.write_text(model_config_text(self._models))
        if self._is_rest_enabled and not self.rest_port:
            self.rest_port = _free_port()
        return [
            *self._command,
            "--port=0",
            f"--grpc_socket_path={self._home / 'grpc.sock'}",
            f"--rest_api_port={self.rest_port}",
            f"--model_config_file={config}",
            # Labels are checked before the first models load, so at start they point at nothing yet.
            "--allow_version_labels_for_unavailable_models=true",
            "--max_num_load_retries=0",
            *self._flags,
        ]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._ready_timeout_seconds
        with GrpcModelServer(self.target) as client:
            while time.monotonic() < deadline:
                self._check_alive()
                if (self._home / "grpc.sock").exists() and _answers(client):
                    return
                time.sleep(_POLL_SECONDS)
        raise ModelServerError(
            f"The model server was not ready after {self._ready_timeout_seconds:g} s; its log ends:\n{self._log_tail()}"
        )

    def _check_alive(self) -> None:
        exit_code = self._process.poll() if self._process is not None else None
        if exit_code is not None:
            raise ModelServerError(
                f"The model server ended at start with exit code {exit_code}; its log ends:\n{self._log_tail()}"
            )

    def _log_tail(self) -> str:
        return self.log[-_LOG_TAIL_BYTES:].strip()


def _answers(client: GrpcModelServer) -> bool:
    try:
        client.status("is-anybody-there")
    except ModelServerUnavailableError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
