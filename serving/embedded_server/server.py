"""The server as a whole: models first, then ports, then nothing until it is told to drain.

Its place in the flow: __main__ builds one from the flags and waits on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from google.protobuf import text_format

from serving.embedded_server.allocator import keep_freed_memory
from serving.embedded_server.catalogue import Catalogue
from serving.embedded_server.discovery import ServedModel
from serving.embedded_server.flags import Flags
from serving.embedded_server.grpc_dispatch import GrpcLimits
from serving.embedded_server.grpc_health import GrpcHealth
from serving.embedded_server.grpc_reflection import GrpcReflection
from serving.embedded_server.grpc_services import GrpcServices
from serving.embedded_server.grpc_transport import GrpcTransport
from serving.embedded_server.http_server import HttpSettings
from serving.embedded_server.lifecycle import Lifecycle, LifecycleSettings
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.rest import METRICS_PATH, RestServer, RestSettings
from serving.embedded_server.server_config import read_config_file
from serving.embedded_server.status import Code, StatusError, invalid_argument, not_found
from serving.embedded_server.tls import read_tls_context
from serving.embedded_server.transition import Transition, availability_preserving, resource_preserving
from serving.embedded_server.version_loader import VersionLoader, cpu_count
from serving.protos import tfs_pb2

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 0.2
_REST_THREADS = 32
_TRANSITIONS: dict[str, Transition] = {
    "availability_preserving": availability_preserving,
    "resource_preserving": resource_preserving,
}


class Server:
    """One model server; `run` returns when `stop` was called and the running requests are done.

    Args:
        flags: what was asked for.
        announce: receives the line "READY grpc=… rest=…" when the ports are open.

    Raises:
        StatusError: a file that a flag names is refused.
    """

    def __init__(self, flags: Flags, *, announce: Callable[[str], None]) -> None:
        self._flags = flags
        self._announce = announce
        # Unlike an Event, it may be put to by a signal handler that interrupts the thread waiting on it.
        self._stop_requests: SimpleQueue[None] = SimpleQueue()
        self._stopping = threading.Event()
        self._catalogue = Catalogue()
        self._metrics = Metrics(versions=self._catalogue.all_versions)
        self._loader = VersionLoader(flags, metrics=self._metrics)
        self._metrics_path = _metrics_path(flags)
        self._lifecycle = Lifecycle(
            self._catalogue,
            load=self._loader.load,
            settings=LifecycleSettings(
                poll_seconds=flags.file_system_poll_wait_seconds,
                max_load_retries=flags.max_num_load_retries,
                load_retry_seconds=flags.load_retry_interval_micros / 1e6,
                load_threads=flags.num_load_threads,
                transition=_TRANSITIONS[flags.transition_policy],
            ),
        )
        self._services = GrpcServices(
            self._catalogue,
            self._lifecycle,
            metrics=self._metrics,
            may_new_labels_wait=flags.allow_version_labels_for_unavailable_models,
            is_method_name_checked=flags.enable_signature_method_name_check,
            is_tensor_content=flags.enable_serialization_as_tensor_content,
        )
        self._health = GrpcHealth()

    def stop(self) -> None:
        """Begin to drain; safe to call from a signal handler."""
        self._stop_requests.put(None)

    def run(self) -> None:
        """Load the first models, open the ports, answer until `stop`, drain.

        Raises:
            StatusError: the configuration is refused, or a port cannot be opened.
        """
        keep_freed_memory()
        self._loader.start()
        self._load_first_models()
        transport, targets = self._open_grpc()
        rest = self._open_rest()
        self._announce(f"READY grpc={','.join(targets)} rest={rest.address if rest else '-'}")
        self._follow_config_file()
        self._stop_requests.get()
        self._stopping.set()
        _LOG.info("draining: no new requests, running ones have %g s", self._flags.drain_seconds)
        self._health.leave()
        if rest is not None:
            rest.leave()
        transport.begin_drain(self._flags.drain_seconds)
        transport.wait_closed()
        if rest is not None:
            rest.stop(drain_seconds=self._flags.drain_seconds)
        self._lifecycle.stop()
        self._loader.stop()

    def _load_first_models(self) -> None:
        models = _first_models(self._flags)
        self._lifecycle.start()
        names = self._lifecycle.apply(
            models, may_new_labels_wait=self._flags.allow_version_labels_for_unavailable_models
        )
        while self._stop_requests.empty():
            try:
                return self._lifecycle.wait_until_settled(names, timeout_seconds=_WAIT_SECONDS)
            except StatusError as error:
                if error.code is not Code.DEADLINE_EXCEEDED:
                    # The real server ends here; one bad model is no reason not to serve the others.
                    return _LOG.error("%s", error.message)
        return None

    def _open_grpc(self) -> tuple[GrpcTransport, list[str]]:
        flags = self._flags
        reflection = GrpcReflection().methods() if flags.enable_grpc_reflection else {}
        transport = GrpcTransport(
            {**self._services.methods(), **self._health.methods(), **reflection},
            max_threads=flags.grpc_max_threads or 4 * cpu_count(),
            limits=GrpcLimits(max_request_bytes=flags.max_request_mebibytes << 20),
            tls=read_tls_context(Path(flags.ssl_config_file)) if flags.ssl_config_file else None,
        )
        targets = _bind(transport, flags)
        transport.start()
        return transport, targets

    def _open_rest(self) -> RestServer | None:
        if not self._flags.rest_api_port:
            return None
        rest = RestServer(
            self._catalogue,
            host=self._flags.host,
            port=self._flags.rest_api_port,
            metrics=self._metrics,
            settings=RestSettings(
                timeout_seconds=self._flags.rest_api_timeout_in_ms / 1000 or None,
                is_cors_enabled=self._flags.rest_api_enable_cors_support,
                metrics_path=self._metrics_path,
                is_method_name_checked=self._flags.enable_signature_method_name_check,
                http=HttpSettings(threads=self._flags.rest_api_num_threads or _REST_THREADS),
            ),
        )
        rest.start()
        return rest

    def _follow_config_file(self) -> None:
        interval = self._flags.model_config_file_poll_wait_seconds
        if self._flags.model_config_file and interval > 0:
            threading.Thread(target=self._poll_config_file, args=(interval,), name="config-file", daemon=True).start()

    def _poll_config_file(self, interval: int) -> None:
        path, last_error = Path(self._flags.model_config_file), ""
        while not self._stopping.wait(interval):
            try:
                models = read_config_file(path)
                if models is not None:
                    self._lifecycle.apply(
                        models, may_new_labels_wait=self._flags.allow_version_labels_for_unavailable_models
                    )
                last_error = ""
            except StatusError as error:
                # The configuration before stays. Said once, although it is tried at every poll.
                if str(error) != last_error:
                    _LOG.error("model config file %s not applied: %s", path, error)
                last_error = str(error)


def _first_models(flags: Flags) -> tuple[ServedModel, ...]:
    if flags.model_config_file:
        return read_config_file(Path(flags.model_config_file)) or ()
    if not flags.model_base_path:
        raise invalid_argument("Both server_options.model_base_path and server_options.model_config_file are empty!")
    base_path = Path(flags.model_base_path)
    if not base_path.is_absolute():
        raise invalid_argument(
            f"Expected model {flags.model_name} to have an absolute path or URI; got base_path()={base_path}"
        )
    return (ServedModel(name=flags.model_name, base_path=base_path),)


def _bind(transport: GrpcTransport, flags: Flags) -> list[str]:
    targets = []
    if flags.grpc_socket_path:
        targets.append(transport.bind_unix(Path(flags.grpc_socket_path)))
    if flags.port or not targets:
        targets.append(transport.bind_tcp(flags.host, flags.port))
    return targets


def _metrics_path(flags: Flags) -> str | None:
    """Return where --monitoring_config_file wants the metrics, None for nowhere."""
    if not flags.monitoring_config_file:
        return None
    path = Path(flags.monitoring_config_file)
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), tfs_pb2.MonitoringConfig())
    except OSError as error:
        raise not_found(f"{path}; {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
    return (message.prometheus_config.path or METRICS_PATH) if message.prometheus_config.enable else None
