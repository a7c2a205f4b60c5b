"""The files that a model server reads at start, rendered from TensorFlow Serving's messages.

Its place in the flow: written by the launcher just before the server starts. Nothing here is put
together as text, so a value can never become syntax.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message

from artifact_sync.durable import create_durably, write_durably
from artifact_sync.errors import AlreadyExistsError, SettingsError
from serving.model_server import model_config_text
from serving.protos import tfs_pb2
from serving.server_flags import ServerFlags, batching_reasons
from serving.tls_files import TlsContent

METRICS_PATH = "/monitoring/prometheus/metrics"
_NAMES = {"monitoring": "monitoring.config", "batching": "batching.config", "ssl": "ssl.config"}


def file_of(flags: ServerFlags, name: str) -> Path:
    """Return where the file "monitoring", "batching" or "ssl" is rendered."""
    return flags.files_dir / _NAMES[name]


def write_start_config(flags: ServerFlags) -> None:
    """Make the agent's start-up file, without any model, where there is none; it is never replaced here."""
    with suppress(AlreadyExistsError):
        create_durably(flags.config_path, model_config_text(()).encode(), mode=0o640)


def write_server_files(flags: ServerFlags) -> tuple[Path, ...]:
    """Write every file that the server with these flags reads, but for the agent's; return their paths.

    The SSL file holds the private key, so it is readable by this user alone, from its first byte on.

    Raises:
        SettingsError: the TLS files cannot be used, or a file cannot be written.
    """
    texts: list[tuple[str, str, int]] = []
    if flags.has_metrics:
        texts.append(("monitoring", monitoring_text(METRICS_PATH), 0o640))
    if flags.batching is not None:
        texts.append(("batching", batching_text(flags.batching), 0o640))
    if flags.tls is not None:
        texts.append(("ssl", ssl_text(flags.tls.read()), 0o600))
    for name, text, mode in texts:
        path = file_of(flags, name)
        try:
            write_durably(path, text.encode(), mode=mode)
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written: {error.strerror}. Set files_dir to a folder of ours."
            ) from None
    return tuple(file_of(flags, name) for name, _, _ in texts)


def monitoring_text(path: str) -> str:
    """Return the content of --monitoring_config_file: Prometheus metrics at `path` of the REST port."""
    message = tfs_pb2.MonitoringConfig()
    message.prometheus_config.enable = True
    message.prometheus_config.path = path
    return _text(message)


def batching_text(batching: tfs_pb2.BatchingParameters) -> str:
    """Return the content of --batching_parameters_file.

    Raises:
        SettingsError: a server would load no model with these.
    """
    reasons = batching_reasons(batching)
    if reasons:
        raise SettingsError(f"Batching parameters refused: {'; '.join(reasons)}.")
    return _text(batching)


def ssl_text(content: TlsContent) -> str:
    """Return the content of --ssl_config_file: mutual TLS, for no client may come without a certificate.

    Raises:
        SettingsError: there is no certificate with its key.
    """
    if content.certificate is None or content.key is None:
        raise SettingsError("SSL file refused: a server needs a certificate and its key.")
    message = tfs_pb2.SSLConfig(
        server_key=content.key.decode("ascii"),
        server_cert=content.certificate.decode("ascii"),
        custom_ca=content.authority.decode("ascii"),
        client_verify=True,
    )
    return _text(message)


def _text(message: Message) -> str:
    return text_format.MessageToString(message)
