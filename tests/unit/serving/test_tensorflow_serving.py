"""The real binary: where it is, which versions work, and its command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from artifact_sync.errors import ModelServerError, NotFoundError
from serving.protos import tfs_pb2
from serving.server_flags import ServerFlags
from serving.tensorflow_serving import binary_version, command_line, find_binary, version_warning
from serving.tls_files import TlsFiles

BINARY = "/usr/bin/tensorflow_model_server"
FLAGS = ServerFlags(config_path=Path("/models/models.config"), socket_path=Path("/run/liftgate/server.sock"))


def program(path: Path, answer: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def test_the_command_line_keeps_grpc_on_a_socket_and_retries_to_the_agent() -> None:
    assert command_line([BINARY], FLAGS) == (
        "/usr/bin/tensorflow_model_server",
        "--port=0",
        "--grpc_socket_path=/run/liftgate/server.sock",
        "--model_config_file=/models/models.config",
        "--model_config_file_poll_wait_seconds=0",
        "--allow_version_labels_for_unavailable_models=true",
        "--max_num_load_retries=0",
        "--num_load_threads=1",
        "--num_unload_threads=1",
        "--file_system_poll_wait_seconds=1",
        "--enable_model_warmup=true",
        "--rest_api_port=0",
    )


def test_every_choice_becomes_one_word_with_its_value() -> None:
    # The binary takes --name=value only, and goes on after an argument that it does not know.
    everything = replace(
        FLAGS,
        socket_path=None,
        port=8500,
        tls=TlsFiles(Path("/tls/ca.pem"), Path("/tls/server.pem"), Path("/tls/server.key")),
        batching=tfs_pb2.BatchingParameters(),
        has_metrics=True,
        rest_port=8501,
        intra_op_threads=2,
        inter_op_threads=3,
    )
    command = command_line(["podman", "run", "image"], everything)
    assert command[:4] == ("podman", "run", "image", "--port=8500")
    assert all(word.startswith("--") and "=" in word for word in command[3:])
    assert not any("socket" in word or "server.key" in word for word in command)
    assert command[-7:] == (
        "--rest_api_port=8501",
        "--monitoring_config_file=/run/liftgate/monitoring.config",
        "--enable_batching=true",
        "--batching_parameters_file=/run/liftgate/batching.config",
        "--ssl_config_file=/run/liftgate/ssl.config",
        "--tensorflow_intra_op_parallelism=2",
        "--tensorflow_inter_op_parallelism=3",
    )


def test_the_binary_is_found_by_its_variable_before_the_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    on_path = program(tmp_path / "bin" / "tensorflow_model_server", "a")
    named = program(tmp_path / "mine", "b")
    environment = {"PATH": str(tmp_path / "bin")}
    assert find_binary(environment) == on_path
    assert find_binary({**environment, "LIFTGATE_TENSORFLOW_MODEL_SERVER": str(named)}) == named


def test_a_missing_binary_is_said_with_the_way_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not on the PATH"):
        find_binary({"PATH": str(tmp_path)})
    with pytest.raises(NotFoundError, match="cannot be executed"):
        find_binary({"PATH": str(tmp_path), "LIFTGATE_TENSORFLOW_MODEL_SERVER": str(tmp_path / "nothing")})


def test_the_version_is_read_from_the_binarys_answer(tmp_path: Path) -> None:
    binary = program(tmp_path / "server", "TensorFlow ModelServer: 2.20.0-rc1\nTensorFlow Library: 2.20.0")
    assert binary_version(binary) == "2.20.0-rc1"
    with pytest.raises(ModelServerError, match="does not answer"):
        binary_version(program(tmp_path / "other", "hello"))
    with pytest.raises(ModelServerError, match="does not run"):
        binary_version(tmp_path / "absent")


@pytest.mark.parametrize("version", ["2.16.1", "2.19.0", "2.20.0-rc1", "2.20.7"])
def test_a_version_that_is_known_needs_no_warning(version: str) -> None:
    assert version_warning(version) is None


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("2.15.1", "older than 2.16"),
        ("1.15.0", "older than 2.16"),
        ("2.21.0", "newer than 2.20"),
        ("3.0.0", "newer than 2.20"),
        ("0.0.0+dev.sha.9d981c5", "older than 2.16"),
        ("unknown", "cannot be read"),
    ],
)
def test_a_version_that_is_not_known_is_said_with_what_to_look_for(version: str, why: str) -> None:
    warning = version_warning(version)
    assert why in warning
    assert "unknown argument" in warning
