"""TensorFlow Serving's own binary: where it is, which versions work, and its command line.

Its place in the flow: the launcher starts what `command_line` returns, under systemd or in a
container; the agent then configures the running server by gRPC and keeps its start-up file. The
embedded server takes the same flags.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from artifact_sync.errors import ModelServerError, NotFoundError
from serving.server_files import file_of
from serving.server_flags import ServerFlags
from serving.server_process import BINARY_VARIABLE

BINARY_NAME = "tensorflow_model_server"
OLDEST_KNOWN, NEWEST_KNOWN = (2, 16), (2, 20)
_VERSION = re.compile(r"TensorFlow ModelServer: (\S+)")
_NUMBERS = re.compile(r"(\d+)\.(\d+)")


def find_binary(environment: Mapping[str, str]) -> Path:
    """Return the binary that LIFTGATE_TENSORFLOW_MODEL_SERVER names, or the one on the PATH.

    Raises:
        NotFoundError: there is none.
    """
    named = environment.get(BINARY_VARIABLE)
    found = shutil.which(named or BINARY_NAME, path=environment.get("PATH", os.defpath))
    if found is None:
        where = f"{BINARY_VARIABLE} names {named!r}, which cannot be executed" if named else "it is not on the PATH"
        raise NotFoundError(
            f"No {BINARY_NAME}: {where}. Install it from Google's apt repository or container image, or run "
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
        raise ModelServerError(f"{binary} --version does not answer as {BINARY_NAME} does: {done.stdout[:200]!r}.")
    return match[1]


def version_warning(version: str) -> str | None:
    """Return what to look out for with a binary of that version; None when there is nothing.

    The binary goes on after a flag that it does not know, so a flag that came later or is gone is
    without effect and nobody is told.
    """
    oldest, newest = (".".join(map(str, bound)) for bound in (OLDEST_KNOWN, NEWEST_KNOWN))
    numbers = _NUMBERS.match(version)
    found = (int(numbers[1]), int(numbers[2])) if numbers else None
    if found is not None and OLDEST_KNOWN <= found <= NEWEST_KNOWN:
        return None
    if found is None:
        why = "its number cannot be read"
    elif found < OLDEST_KNOWN:
        why = f"it is older than {oldest}, and exports of a newer TensorFlow may not load in it"
    else:
        why = f"it is newer than {newest}, the newest whose flags were compared"
    return f"{BINARY_NAME} {version}: {why}. Known are {oldest} to {newest}; look for 'unknown argument' in its log."


def command_line(command: Sequence[str], flags: ServerFlags) -> tuple[str, ...]:
    """Return `command` with the flags of a server that an agent drives.

    Args:
        command: what takes TensorFlow Serving's flags: the binary, `liftgate model-server`, or a
            container with one of them as its entry point.
        flags: what differs from host to host.
    """
    return (
        *command,
        # Without a port the binary takes 8500, open on every address to reconfiguration.
        f"--port={flags.port}",
        *((f"--grpc_socket_path={flags.socket_path}",) if flags.socket_path is not None else ()),
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
        *_optional_flags(flags),
    )


def _optional_flags(flags: ServerFlags) -> tuple[str, ...]:
    chosen: list[str] = []
    if flags.has_metrics:
        chosen.append(f"--monitoring_config_file={file_of(flags, 'monitoring')}")
    if flags.batching is not None:
        chosen += ["--enable_batching=true", f"--batching_parameters_file={file_of(flags, 'batching')}"]
    if flags.tls is not None:
        chosen.append(f"--ssl_config_file={file_of(flags, 'ssl')}")
    if flags.intra_op_threads:
        chosen.append(f"--tensorflow_intra_op_parallelism={flags.intra_op_threads}")
    if flags.inter_op_threads:
        chosen.append(f"--tensorflow_inter_op_parallelism={flags.inter_op_threads}")
    return tuple(chosen)
