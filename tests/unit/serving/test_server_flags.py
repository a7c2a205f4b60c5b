"""What an operator may decide about a model server, and what is refused before a server would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from artifact_sync.errors import SettingsError
from serving.protos import tfs_pb2
from serving.server_flags import ServerFlags, batching_reasons, read_server_flags
from serving.tls_files import TlsFiles

FLAGS = ServerFlags(config_path=Path("/models/models.config"), socket_path=Path("/run/liftgate/server.sock"))
TLS = TlsFiles(Path("/tls/ca.pem"), Path("/tls/server.pem"), Path("/tls/server.key"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"socket_path": Path("server.sock")}, "absolute path of at most 107 bytes"),
        ({"socket_path": Path("/run") / ("x" * 110)}, "absolute path of at most 107 bytes"),
        ({"socket_path": None}, "nobody could reach it"),
        ({"config_path": Path("models.config")}, "must be absolute"),
        ({"load_threads": 0}, "load_threads 0 must be at least 1"),
        ({"poll_seconds": 0}, "poll_seconds 0 must be at least 1"),
        ({"rest_port": 70_000}, "rest_port 70000 must be from 0 to 65535"),
        ({"intra_op_threads": -1}, "intra_op_threads -1 must be at least 0"),
        ({"port": 8500}, "port 8500 would be open on every address"),
        ({"port": 8500, "tls": TLS, "rest_port": 8500}, "port and rest_port are both 8500"),
        ({"tls": TlsFiles(Path("/tls/ca.pem"))}, "tls needs certificate_path and key_path"),
        ({"has_metrics": True}, "has_metrics needs rest_port"),
        ({"batching": tfs_pb2.BatchingParameters(allowed_batch_sizes=[8])}, "must be the largest batch, 1000"),
    ],
)
def test_flags_that_would_jam_or_open_the_server_are_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        replace(FLAGS, **change)


def test_a_port_with_mutual_tls_is_taken_with_and_without_a_socket() -> None:
    both = replace(FLAGS, port=8500, tls=TLS)
    alone = replace(FLAGS, port=8500, tls=TLS, socket_path=None)
    assert [(flags.port, flags.socket_path) for flags in (both, alone)] == [(8500, FLAGS.socket_path), (8500, None)]


def batching(**values: object) -> tfs_pb2.BatchingParameters:
    wrapped = {
        name: {"value": value} if name not in ("allowed_batch_sizes", "pad_variable_length_inputs") else value
        for name, value in values.items()
    }
    return tfs_pb2.BatchingParameters(**wrapped)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"max_batch_size": 8, "allowed_batch_sizes": [2, 4]}, "is 4 and must be the largest batch, 8"),
        ({"max_batch_size": 8, "allowed_batch_sizes": [4, 2, 8]}, "must rise"),
        ({"max_batch_size": 8, "allowed_batch_sizes": [0, 8]}, "must rise from at least 1"),
        ({"max_batch_size": 0}, "max_batch_size 0 must be at least 1"),
        ({"num_batch_threads": 0}, "num_batch_threads 0 must be at least 1"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros -1 must be at least 0"),
        ({"max_execution_batch_size": 4}, "needs batching.enable_large_batch_splitting"),
        (
            {"max_batch_size": 8, "max_execution_batch_size": 16, "enable_large_batch_splitting": True},
            "16 must not be above max_batch_size 8",
        ),
        (
            {
                "max_batch_size": 64,
                "max_execution_batch_size": 16,
                "enable_large_batch_splitting": True,
                "allowed_batch_sizes": [8, 64],
            },
            "is 64 and must be the largest batch, 16",
        ),
    ],
)
def test_batching_with_which_no_model_would_load_is_refused(values: dict[str, object], why: str) -> None:
    (reason,) = batching_reasons(batching(**values))
    assert why in reason


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"max_batch_size": 8, "allowed_batch_sizes": [1, 2, 8], "batch_timeout_micros": 0},
        {
            "max_batch_size": 64,
            "max_execution_batch_size": 16,
            "enable_large_batch_splitting": True,
            "allowed_batch_sizes": [8, 16],
        },
    ],
)
def test_batching_that_works_is_taken(values: dict[str, object]) -> None:
    assert batching_reasons(batching(**values)) == []


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_the_file_says_what_the_class_does(tmp_path: Path) -> None:
    values = {
        "config_path": "/models/models.config",
        "socket_path": "/run/liftgate/server.sock",
        "port": 8500,
        "tls": {"ca_path": "/tls/ca.pem", "certificate_path": "/tls/server.pem", "key_path": "/tls/server.key"},
        "batching": {"max_batch_size": 8, "allowed_batch_sizes": [4, 8], "pad_variable_length_inputs": True},
        "load_threads": 2,
    }
    expected = batching(max_batch_size=8, allowed_batch_sizes=[4, 8], pad_variable_length_inputs=True)
    assert read_server_flags(write(tmp_path / "flags.json", values)) == replace(
        FLAGS, port=8500, tls=TLS, batching=expected, load_threads=2
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"loadthreads": 2}, r"unknown key 'loadthreads' in .*flags.json. Did you mean 'load_threads'\?"),
        ({"tls": {"cert_path": "/x"}}, r"unknown key 'cert_path' .* Did you mean 'ca_path'\?"),
        ({"tls": {}}, "tls.ca_path: Field required"),
        ({"tls": "yes"}, "tls: Input should be a dictionary"),
        ({"batching": {"max_batchsize": 8}}, 'no field named "max_batchsize"'),
        ({"batching": {"max_batch_size": "many"}}, "batching in .*flags.json"),
        ({"load_threads": "two"}, "load_threads: Input should be a valid integer"),
        ({"config_path": 3}, "config_path: Input is not a valid path"),
        ({"port": 8500}, "open on every address"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_its_key(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    values = {"config_path": "/models/models.config", "socket_path": "/run/liftgate/server.sock", **change}
    with pytest.raises(SettingsError, match=why):
        read_server_flags(write(tmp_path / "flags.json", values))


def test_a_file_that_is_missing_or_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_server_flags(path)
    path.write_text("{")
    with pytest.raises(SettingsError, match="is no JSON"):
        read_server_flags(path)
    with pytest.raises(SettingsError, match="must hold one object"):
        read_server_flags(write(path, []))
