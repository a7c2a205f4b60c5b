"""The flags of tensorflow_model_server, as far as they are honoured here, and a few of our own.

Its place in the flow: the first thing that `python -m serving.embedded_server` reads. An unknown
flag is an error; a flag of the real server that does nothing here is taken, and said so at start.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from artifact_sync.errors import SettingsError


def _flag(default: Any, help_text: str, *, choices: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True)
class Flags:
    """What was asked for; names and defaults are TensorFlow Serving's."""

    port: int = _flag(8500, "TCP port for gRPC; 0: none with --grpc_socket_path, else a free one")
    grpc_socket_path: str = _flag("", "Unix socket for gRPC")
    rest_api_port: int = _flag(0, "TCP port for REST; 0: none")
    host: str = _flag(
        "127.0.0.1",
        "address to listen on (own flag). The real server listens on every address; there is no "
        "authentication, and whoever reaches the port can load models",
    )
    model_config_file: str = _flag("", "text ModelServerConfig; wins over --model_name and --model_base_path")
    model_config_file_poll_wait_seconds: int = _flag(0, "how often to read that file again; 0: never")
    model_name: str = _flag("default", "name of the one model")
    model_base_path: str = _flag("", "its directory, with one integer directory a version")
    file_system_poll_wait_seconds: int = _flag(
        1, "how often to look for new versions; 0 or less: only at start and at a reload"
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "let a new label point at a version that is not loaded yet, as at start"
    )
    max_num_load_retries: int = _flag(5, "how often to try again a version that does not load")
    load_retry_interval_micros: int = _flag(60_000_000, "how long to wait between tries")
    num_load_threads: int = _flag(0, "how many versions load at once; 0: one, in a thread of its own")
    transition_policy: str = _flag(
        "availability_preserving",
        "or resource_preserving: unload the old version before the new one loads, nothing answers meanwhile (own flag)",
        choices=("availability_preserving", "resource_preserving"),
    )
    enable_model_warmup: bool = _flag(True, "run assets.extra/tf_serving_warmup_requests before a version is available")
    num_request_iterations_for_warmup: int = _flag(1, "how often to run each warm-up request")
    enable_batching: bool = _flag(False, "run requests that wait together as one")
    batching_parameters_file: str = _flag("", "text BatchingParameters, for --enable_batching")
    enable_per_model_batching_parameters: bool = _flag(
        False,
        "with --enable_batching: take batching_params.pbtxt of each version instead; without one it is not batched",
    )
    monitoring_config_file: str = _flag("", "text MonitoringConfig: Prometheus metrics at a path of the REST port")
    ssl_config_file: str = _flag("", "text SSLConfig: TLS for gRPC, mutual with client_verify")
    enable_signature_method_name_check: bool = _flag(
        False, "let Classify and Regress run only signatures whose method_name says so"
    )
    enable_serialization_as_tensor_content: bool = _flag(False, "answer Predict in tensor_content, not in typed fields")
    saved_model_tags: str = _flag("serve", "comma-separated tags of the graph to load")
    grpc_max_threads: int = _flag(0, "threads that answer gRPC; 0: four for each CPU")
    max_request_mebibytes: int = _flag(512, "largest gRPC request; 0: no limit, as the real server (own flag)")
    enable_grpc_reflection: bool = _flag(False, "tell tools such as grpcurl what is served (own flag)")
    rest_api_num_threads: int = _flag(0, "REST requests that are worked on at once; 0: 32")
    rest_api_timeout_in_ms: int = _flag(30_000, "how long a REST request may take")
    rest_api_enable_cors_support: bool = _flag(False, "let scripts of other sites call REST from browsers")
    tensorflow_session_parallelism: int = _flag(0, "threads of both kinds below; 0: as said there")
    tensorflow_intra_op_parallelism: int = _flag(
        0, "threads inside one operation; 0: one, raise it for large models with few clients"
    )
    tensorflow_inter_op_parallelism: int = _flag(0, "operations of a request at once; 0: one, in its thread")
    drain_seconds: float = _flag(30.0, "how long running requests may go on after SIGTERM (own flag)")
    version: bool = _flag(False, "print the versions and end")
    help: bool = _flag(False, "print this and end")


NOT_HONOURED = {
    "use_alts_credentials": "there is no ALTS; use --ssl_config_file",
    "thread_pool_factory_config_file": "TensorFlow's own threads are used",
    "tensorflow_session_config_file": "use --tensorflow_intra_op_parallelism and its like",
    "platform_config_file": "the one platform is tensorflow",
    "grpc_channel_arguments": "gRPC has its own settings here",
    "per_process_gpu_memory_fraction": "models run on the CPU",
    "mixed_precision": "models run as they were exported",
    **dict.fromkeys(("prefer_tflite_model", "num_tflite_pools", "num_tflite_interpreters_per_pool"), "no TFLite"),
    **dict.fromkeys(
        ("xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"), "XLA is not used; it is slower on a CPU"
    ),
    **dict.fromkeys(
        (
            "num_unload_threads",
            "flush_filesystem_caches",
            "enable_profiler",
            "remove_unused_fields_from_bundle_metagraph",
            "skip_initialize_tpu",
        ),
        "there is nothing here that it would change",
    ),
    "enable_grpc_healthcheck_service": "the health service is always on",
}
"""Flags of the real server that are taken and do nothing, each with what is so instead."""

_FIELDS = {field.name: field for field in dataclasses.fields(Flags)}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def parse_flags(arguments: Sequence[str]) -> tuple[Flags, tuple[str, ...]]:
    """Return the flags, and a sentence for each that is known but not honoured.

    Args:
        arguments: "--name=value", or "--name" for a boolean, as TensorFlow Serving wants them.

    Raises:
        SettingsError: an unknown flag, or a value that is not of its kind.
    """
    values: dict[str, Any] = {}
    notes: list[str] = []
    for argument in arguments:
        name, separator, text = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in NOT_HONOURED:
            notes.append(f"--{name} has no effect: {NOT_HONOURED[name]}.")
        elif argument.startswith("--") and name in _FIELDS:
            values[name] = _value(name, text if separator else None)
        else:
            raise SettingsError(_unknown(argument, name))
    return Flags(**values), tuple(notes)


def flags_help() -> str:
    """Return what --help prints."""
    lines = ["python -m serving.embedded_server --FLAG=VALUE …", ""]
    for name, field in _FIELDS.items():
        lines.append(f"  --{name}={field.default}")
        lines.append(f"        {field.metadata['help']}")
    lines += ["", "Taken without effect:", *(f"  --{name}: {why}" for name, why in NOT_HONOURED.items()), ""]
    return "\n".join(lines)


def _value(name: str, text: str | None) -> Any:
    kind: Any = type(_FIELDS[name].default)
    if kind is bool:
        value = _BOOLEANS.get("true" if text is None else text.lower())
        if value is None:
            raise SettingsError(f"--{name} refused: {text!r} is neither true nor false.")
        return value
    if text is None:
        raise SettingsError(f"--{name} refused: it needs a value, --{name}=….")
    choices = _FIELDS[name].metadata["choices"]
    if choices and text not in choices:
        raise SettingsError(f"--{name} refused: {text!r} is none of {', '.join(choices)}.")
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"--{name} refused: {text!r} is not a number.") from None


def _unknown(argument: str, name: str) -> str:
    nearest = difflib.get_close_matches(name, [*_FIELDS, *NOT_HONOURED], n=1)
    hint = f" Did you mean --{nearest[0]}?" if nearest else " See --help."
    return f"Unknown argument {argument!r} refused.{hint} Flags are written --name=value."
