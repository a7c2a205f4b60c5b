"""What an operator decides about a model server, and the JSON file that says it.

Its place in the flow: the Ansible role writes the file; the launcher reads it, renders the files
that the server takes and starts the server. What is the same on every host is not a choice here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf import json_format
from pydantic import ConfigDict, TypeAdapter, ValidationError

from artifact_sync.errors import SettingsError
from serving.protos import tfs_pb2
from serving.tls_files import TlsFiles

_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True)
class ServerFlags:
    """What differs from host to host; the rest of the command line is the same everywhere.

    Args:
        config_path: the start-up file, `AgentSettings.config_path`.
        files_dir: where the other files that the server reads are rendered; only this user may read
            it, for one of them holds the private key. A folder under /run is best.
        socket_path: the Unix socket for gRPC. The binary has no authentication, so the socket's
            directory is what keeps others out.
        port: a TCP port for gRPC; 0 for none. The binary listens on every address, so this needs `tls`.
        tls: certificate, key and the authority of the clients: with it every client must show a
            certificate of that authority, on the socket too.
        batching: how requests are batched; None leaves batching off.
        has_metrics: whether Prometheus metrics are served, on the port of REST.
        rest_port: the port for REST and metrics on every address, without TLS; 0 for none.
        load_threads: threads that load; at least 1, or loading stalls the requests of all versions.
        poll_seconds: how often the server looks for what it was told to hold.
        intra_op_threads: threads within one operation; 0 for the server's own choice.
        inter_op_threads: operations at a time; 0 for the server's own choice.
    """

    # Read by pydantic, which checks the file's values.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    config_path: Path
    files_dir: Path = Path("/run/liftgate")
    socket_path: Path | None = None
    port: int = 0
    tls: TlsFiles | None = None
    batching: tfs_pb2.BatchingParameters | None = None
    has_metrics: bool = False
    rest_port: int = 0
    load_threads: int = 1
    poll_seconds: int = 1
    intra_op_threads: int = 0
    inter_op_threads: int = 0

    def __post_init__(self) -> None:
        reasons = [*_address_reasons(self), *_number_reasons(self)]
        if self.batching is not None:
            reasons += batching_reasons(self.batching)
        if reasons:
            raise SettingsError(f"Model server flags refused: {'; '.join(reasons)}.")


_FLAGS = TypeAdapter(ServerFlags)


def read_server_flags(path: Path) -> ServerFlags:
    """Return the flags of a JSON file with ServerFlags' names as keys; `tls` and `batching` are objects.

    Raises:
        SettingsError: no such file, no JSON, an unknown key, or a value that the server would refuse.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"Model server flags refused: {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"Model server flags refused: {path} is no JSON: {error}.") from None
    if not isinstance(values, dict):
        raise SettingsError(f"Model server flags refused: {path} must hold one object.")
    return _flags(values, source=path)


def batching_reasons(batching: tfs_pb2.BatchingParameters) -> list[str]:
    """Return why a server would not load any model with these parameters; empty when it would."""
    largest = batching.max_batch_size.value if batching.HasField("max_batch_size") else 1000
    executed = batching.max_execution_batch_size.value if batching.HasField("max_execution_batch_size") else largest
    sizes = list(batching.allowed_batch_sizes)
    reasons = [
        f"batching.{name} {getattr(batching, name).value} must be at least {least}"
        for name, least in (
            ("max_batch_size", 1),
            ("max_execution_batch_size", 1),
            ("num_batch_threads", 1),
            ("max_enqueued_batches", 1),
            ("batch_timeout_micros", 0),
        )
        if batching.HasField(name) and getattr(batching, name).value < least
    ]
    if not batching.enable_large_batch_splitting.value:
        executed = largest
        if batching.HasField("max_execution_batch_size"):
            reasons.append("batching.max_execution_batch_size needs batching.enable_large_batch_splitting")
    elif executed > largest:
        reasons.append(f"batching.max_execution_batch_size {executed} must not be above max_batch_size {largest}")
    if sizes and (sizes != sorted(set(sizes)) or sizes[0] < 1):
        reasons.append(f"batching.allowed_batch_sizes {sizes} must rise from at least 1")
    if sizes and sizes[-1] != executed:
        reasons.append(
            f"the last of batching.allowed_batch_sizes is {sizes[-1]} and must be the largest batch, {executed}"
        )
    return reasons


def _address_reasons(flags: ServerFlags) -> list[str]:
    reasons = []
    if flags.socket_path is None and not flags.port:
        reasons.append("neither socket_path nor port is set, so nobody could reach it")
    if not (flags.config_path.is_absolute() and flags.files_dir.is_absolute()):
        reasons.append(f"config_path {flags.config_path} and files_dir {flags.files_dir} must be absolute")
    socket = flags.socket_path
    if socket is not None and (not socket.is_absolute() or len(os.fsencode(socket)) > _LONGEST_SOCKET_PATH):
        reasons.append(
            f"socket {socket} must be an absolute path of at most {_LONGEST_SOCKET_PATH} bytes; use one under /run"
        )
    if flags.tls is not None and flags.tls.certificate_path is None:
        reasons.append("tls needs certificate_path and key_path, for it is the server's")
    if flags.port and flags.tls is None:
        reasons.append(
            f"port {flags.port} would be open on every address to whoever wants to load models; "
            "set tls (clients then need a certificate), or use socket_path"
        )
    if flags.rest_port and flags.rest_port == flags.port:
        reasons.append(f"port and rest_port are both {flags.port}")
    if flags.has_metrics and not flags.rest_port:
        reasons.append("has_metrics needs rest_port, where metrics are served")
    return reasons


def _number_reasons(flags: ServerFlags) -> list[str]:
    reasons = [
        f"{name} {getattr(flags, name)} must be at least {least}"
        for name, least in (("load_threads", 1), ("poll_seconds", 1), ("intra_op_threads", 0), ("inter_op_threads", 0))
        if getattr(flags, name) < least
    ]
    return reasons + [
        f"{name} {getattr(flags, name)} must be from 0 to 65535"
        for name in ("port", "rest_port")
        if not 0 <= getattr(flags, name) <= 65_535
    ]


def _flags(values: dict[str, Any], *, source: Path) -> ServerFlags:
    _refuse_unknown(values, ServerFlags, source=source)
    if isinstance(values.get("tls"), dict):
        _refuse_unknown(values["tls"], TlsFiles, source=source)
    if isinstance(values.get("batching"), dict):
        values = {**values, "batching": _batching(values["batching"], source=source)}
    try:
        return _FLAGS.validate_python(values)
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise SettingsError(f"Model server flags refused: {source}: {'; '.join(reasons)}.") from None


def _batching(values: Mapping[str, Any], *, source: Path) -> tfs_pb2.BatchingParameters:
    try:
        return json_format.ParseDict(dict(values), tfs_pb2.BatchingParameters())
    except json_format.ParseError as error:
        raise SettingsError(f"Model server flags refused: batching in {source}: {error}.") from None


def _refuse_unknown(values: Mapping[str, Any], kind: Any, *, source: Path) -> None:
    known = [each.name for each in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"Model server flags refused: unknown key {name!r} in {source}.{hint}")
