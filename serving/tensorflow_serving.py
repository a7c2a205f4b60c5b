"""TensorFlow Serving's own binary: where it is, its command line, and the files it reads.

Its place in the flow: the Ansible role and the container run what `command_line` returns; the agent
then configures the running server by gRPC and keeps its start-up file. Every file is written from a
message, never put together as text.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from artifact_sync.durable import create_durably, write_durably
from artifact_sync.errors import AlreadyExistsError, ModelServerError, NotFoundError, SettingsError
from serving.model_server import model_config_text
from serving.server_process import BINARY_VARIABLE

_BINARY_NAME = "tensorflow_model_server"
METRICS_PATH = "/monitoring/prometheus/metrics"
_LONGEST_SOCKET_PATH = 107
_VERSION = re.compile(r"TensorFlow ModelServer: (\S+)")


@dataclass(frozen=True)
class ServerFlags:
    """What differs from host to host; the rest of the command line is the same everywhere.

    Args:
        socket_path: the Unix socket for gRPC. The binary has no authentication and its gRPC port
            listens on every address, so the socket's directory is what keeps others out.
        config_path: the start-up file, `AgentSettings.config_path`.
        monitoring_path: the file that turns Prometheus metrics on; None leaves them off.
        rest_port: the port for REST and metrics on every address; 0 leaves both off.
        load_threads: threads that load; at least 1, or loading stalls the requests of all versions.
        poll_seconds: how often the server looks for what it was told to hold.
    """

    socket_path: Path
    config_path: Path
    monitoring_path: Path | None = None
    rest_port: int = 0
    load_threads: int = 1
    poll_seconds: int = 1

    def __post_init__(self) -> None:
        if not self.socket_path.is_absolute() or len(os.fsencode(self.socket_path)) > _LONGEST_SOCKET_PATH:
            raise SettingsError(
                f"Socket {self.socket_path} refused: it must be an absolute path of at most "
                f"{_LONGEST_SOCKET_PATH} bytes. Use one under /run."
            )
        if self.load_threads < 1 or self.poll_seconds < 1 or not 0 <= self.rest_port <= 65_535:
            raise SettingsError(
                f"Model server flags refused: load_threads {self.load_threads} and poll_seconds {self.poll_seconds} "
                f"must be at least 1, rest_port {self.rest_port} from 0 to 65535."
            )


def find_binary(environment: Mapping[str, str]) -> Path:
    """Return the binary that LIFTGATE_TENSORFLOW_MODEL_SERVER names, or the one on the PATH.

    Raises:
        NotFoundError: there is none.
    """
    named = environment.get(BINARY_VARIABLE)
    found = shutil.which(named or _BINARY_NAME, path=environment.get("PATH", os.defpath))
    if found is None:
        where = f"{BINARY_VARIABLE} names {named!r}, which cannot be executed" if named else "it is not on the PATH"
        raise NotFoundError(
            f"No {_BINARY_NAME}: {where}. Install it from Google's apt repository or container image, or run "
            "`liftgate model-server`, which speaks the same protocols."
        )
    return Path(found).absolute()


def binary_version(binary: Path) -> str:
    """Return the version the binary reports, such as "2.20.0".

    Raises:
        ModelServerError: it does not run, or reports nothing of the kind.
    """
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelServerError(f"{binary} does not run: {error}.") from None
    match = _VERSION.search(done.stdout)
    if match is None:
        raise ModelServerError(f"{binary} --version does not answer as {_BINARY_NAME} does: {done.stdout[:200]!r}.")
    return match[1]


def command_line(binary: Path, flags: ServerFlags) -> tuple[str, ...]:
    """Return the command of a server that an agent drives."""
    command = [
        str(binary),
        # The socket instead of a port: gRPC would listen on every address, open to reconfiguration.
        "--port=0",
        f"--grpc_socket_path={flags.socket_path}",
        f"--model_config_file={flags.config_path}",
        # The file is for starts only: a server that polled it would undo what the agent told it.
        "--model_config_file_poll_wait_seconds=0",
        # Labels are checked before anything is loaded, so at start they would all be refused.
        "--allow_version_labels_for_unavailable_models=true",
        # A version that does not load is the agent's to retry; five tries of a minute hide it.
        "--max_num_load_retries=0",
        # With 0, loading happens in the manager's own thread and every model's latency suffers.
        f"--num_load_threads={flags.load_threads}",
        f"--num_unload_threads={flags.load_threads}",
        # 0 would make a reload that adds a model wait for ever.
        f"--file_system_poll_wait_seconds={flags.poll_seconds}",
        "--enable_model_warmup=true",
        f"--rest_api_port={flags.rest_port}",
    ]
    if flags.monitoring_path is not None:
        command.append(f"--monitoring_config_file={flags.monitoring_path}")
    return tuple(command)


def write_server_files(flags: ServerFlags) -> None:
    """Write what the binary reads at start: an empty start-up file where there is none yet, and monitoring.

    The agent's start-up file is never replaced here.
    """
    with suppress(AlreadyExistsError):
        create_durably(flags.config_path, model_config_text(()).encode())
    if flags.monitoring_path is not None:
        write_durably(flags.monitoring_path, monitoring_config_text(METRICS_PATH).encode())


def monitoring_config_text(path: str) -> str:
    """Return the content of --monitoring_config_file: Prometheus metrics at `path` of the REST port."""
    message = _monitoring_config()
    message.prometheus_config.enable = True  # type: ignore[attr-defined]
    message.prometheus_config.path = path  # type: ignore[attr-defined]
    return text_format.MessageToString(message)


def _monitoring_config() -> Message:
    """Return an empty tensorflow.serving.MonitoringConfig; tensorflow-serving-api has no message for it."""
    file = descriptor_pb2.FileDescriptorProto(name="liftgate/monitoring.proto", package="liftgate.tfs", syntax="proto3")
    prometheus = file.message_type.add(name="PrometheusConfig")
    field = descriptor_pb2.FieldDescriptorProto
    prometheus.field.add(name="enable", number=1, type=field.TYPE_BOOL, label=field.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(
        name="prometheus_config",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".liftgate.tfs.PrometheusConfig",
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("liftgate.tfs.MonitoringConfig")
    message: Message = message_factory.GetMessageClass(found)()
    return message
