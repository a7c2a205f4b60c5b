"""The real binary's command line and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from artifact_sync.errors import ModelServerError, NotFoundError, SettingsError
from serving.model_server import ModelConfig, model_config_text
from serving.tensorflow_serving import (
    ServerFlags,
    binary_version,
    command_line,
    find_binary,
    monitoring_config_text,
    write_server_files,
)

FLAGS = ServerFlags(socket_path=Path("/run/liftgate/server.sock"), config_path=Path("/models/models.config"))


def program(path: Path, answer: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def test_the_command_line_keeps_grpc_on_a_socket_and_retries_to_the_agent() -> None:
    command = command_line(Path("/usr/bin/tensorflow_model_server"), FLAGS)
    assert command == (
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


def test_every_flag_is_one_word_with_its_value() -> None:
    # The binary takes --name=value only, and goes on after an argument that it does not know.
    command = command_line(Path("/x"), replace(FLAGS, monitoring_path=Path("/etc/monitoring.config"), rest_port=8501))
    assert all(word.startswith("--") and "=" in word for word in command[1:])
    assert command[-2:] == ("--rest_api_port=8501", "--monitoring_config_file=/etc/monitoring.config")


@pytest.mark.parametrize(
    "change",
    [
        {"socket_path": Path("server.sock")},
        {"socket_path": Path("/run") / ("x" * 110)},
        {"load_threads": 0},
        {"poll_seconds": 0},
        {"rest_port": 70_000},
    ],
)
def test_flags_that_would_jam_the_server_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        replace(FLAGS, **change)


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


def test_monitoring_is_rendered_as_the_binarys_message() -> None:
    assert monitoring_config_text("/m") == 'prometheus_config {\n  enable: true\n  path: "/m"\n}\n'


def test_files_are_written_once_and_the_agents_file_is_left_alone(tmp_path: Path) -> None:
    flags = replace(FLAGS, config_path=tmp_path / "models.config", monitoring_path=tmp_path / "monitoring.config")
    write_server_files(flags)
    assert flags.config_path.read_text() == model_config_text(())
    kept = model_config_text((ModelConfig("shapes", "/models/shapes", (1,), {"stable": 1}),))
    flags.config_path.write_text(kept)
    write_server_files(flags)
    assert flags.config_path.read_text() == kept
    assert "/monitoring/prometheus/metrics" in (tmp_path / "monitoring.config").read_text()
