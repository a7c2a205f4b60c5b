"""Model servers as black boxes: a command, flags, sockets and files.

Its place in the flow: tests/contract/serving starts every server command at hand through this module
and knows nothing else of it, so the same test holds the embedded server and the real binary.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.03


@dataclass(frozen=True)
class ServerCommand:
    """A model server's command line, without its flags."""

    name: str
    arguments: tuple[str, ...]

    @property
    def is_reference(self) -> bool:
        return self.name == "tensorflow_model_server"


@dataclass(frozen=True)
class Ended:
    """What a server left that ended by itself."""

    exit_code: int
    stdout: str
    stderr: str


class RunningServer:
    """A started server: where it listens and what it has written."""

    def __init__(self, process: subprocess.Popen[bytes], *, directory: Path, target: str, rest_port: int) -> None:
        self.process = process
        self.directory = directory
        self.target = target
        self.rest_port = rest_port

    @property
    def log(self) -> str:
        return "".join((self.directory / name).read_text(errors="replace") for name in ("stdout", "stderr"))

    def ended(self, *, timeout_seconds: float = 60) -> Ended:
        """Wait until it ends by itself."""
        exit_code = self.process.wait(timeout_seconds)
        return Ended(exit_code, *((self.directory / name).read_text(errors="replace") for name in ("stdout", "stderr")))

    def wait_until_ready(self, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Wait until a request for a model that nobody has is refused for that reason."""
        deadline = time.monotonic() + _READY_SECONDS
        with open_channel(self.target, credentials) as channel:
            while not _is_answering(channel):
                assert self.process.poll() is None, f"exit code {self.process.returncode} at start:\n{self.log[-4000:]}"
                assert time.monotonic() < deadline, f"not ready after {_READY_SECONDS} s:\n{self.log[-4000:]}"
                time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def launched(
    command: ServerCommand,
    *flags: str,
    with_grpc: str = "tcp",
    with_rest: bool = True,
    files: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Start a server and leave it to the caller to wait for it.

    Args:
        command: which server.
        flags: its flags; "{directory}" in them is a directory of its own.
        with_grpc: "tcp" for a free port, "unix" for a socket and no port, "none" for neither flag.
        with_rest: whether to open REST on a free port.
        files: texts to write into that directory first, by name.
    """
    with tempfile.TemporaryDirectory(prefix="served-") as name:
        directory = Path(name)
        for file_name, text in (files or {}).items():
            (directory / file_name).write_text(text.replace("{directory}", name))
        target, grpc_flags = _grpc_flags(with_grpc, directory)
        rest_port = free_port() if with_rest else 0
        rest_flags = [f"--rest_api_port={rest_port}"] if with_rest else []
        arguments = [flag.replace("{directory}", name) for flag in flags]
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [*command.arguments, *grpc_flags, *rest_flags, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1"},
            )
        server = RunningServer(process, directory=directory, target=target, rest_port=rest_port)
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def started(command: ServerCommand, *flags: str, **choices: Any) -> Iterator[RunningServer]:
    """Start a server and wait until it answers."""
    with launched(command, *flags, **choices) as server:
        server.wait_until_ready()
        yield server


def run_to_the_end(command: ServerCommand, *flags: str, **choices: Any) -> Ended:
    """Start a server that is expected to end by itself."""
    with launched(command, *flags, **choices) as server:
        return server.ended()


def open_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Return a channel that takes answers of every size and reconnects at once."""
    options = (
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 100),
        # Channels of one process share connections otherwise, and so what went wrong on them.
        ("grpc.use_local_subchannel_pool", 1),
    )
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def free_port() -> int:
    """Return a port that nobody listens on, on no address of either family."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("::", 0))
        port: int = probe.getsockname()[1]
        return port


def config_text(*models: Any) -> str:
    """Return a model config file that lists these ModelConfigs."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.extend(models)
    config.model_config_list.SetInParent()
    return text_format.MessageToString(config)


def model_config(
    name: str,
    base_path: Path | str,
    *,
    versions: Sequence[int] = (),
    latest: int | None = None,
    wants_all: bool = False,
    labels: Mapping[str, int] | None = None,
    platform: str = "tensorflow",
) -> Any:
    """Return a ModelConfig."""
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelConfig(name=name, base_path=str(base_path), model_platform=platform)
    policy = config.model_version_policy
    if versions:
        policy.specific.versions.extend(versions)
    if latest is not None:
        policy.latest.SetInParent()
        policy.latest.num_versions = latest
    if wants_all:
        policy.all.SetInParent()
    for label, version in (labels or {}).items():
        config.version_labels[label] = version
    return config


def _grpc_flags(kind: str, directory: Path) -> tuple[str, list[str]]:
    if kind == "unix":
        path = directory / "grpc.sock"
        return f"unix:{path}", ["--port=0", f"--grpc_socket_path={path}"]
    if kind == "none":
        return "", []
    port = free_port()
    return f"127.0.0.1:{port}", [f"--port={port}"]


def _is_answering(channel: grpc.Channel) -> bool:
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "nobody-has-this-model"
    try:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=5)
    except grpc.RpcError as error:
        return "Servable" in (error.details() or "")
    return False
