"""Flags, and how a server starts or says why it does not."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import client_lab
import pytest
import server_lab

LOOK_SECONDS = 1.5


@contextlib.contextmanager
def served(command: Any, *flags: str, **choices: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a started server and a client of it."""
    with (
        server_lab.started(command, *flags, **choices) as server,
        server_lab.open_channel(server.target) as channel,
    ):
        yield server, client_lab.Client(rest_port=server.rest_port, channel=channel)


@pytest.fixture
def resident(zoo: Path) -> tuple[str, str]:
    """The flags for the one resident model."""
    return "--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}"


class TestRefusedStarts:
    def test_the_version_is_printed(self, command: Any) -> None:
        ended = server_lab.run_to_the_end(command, "--version", with_grpc="none", with_rest=False)
        assert ended.exit_code == 0
        assert re.search(r"^TensorFlow ModelServer: \S", ended.stdout, re.MULTILINE)
        assert re.search(r"^TensorFlow Library: \d+\.\d+", ended.stdout, re.MULTILINE)

    def test_nothing_to_serve(self, command: Any) -> None:
        ended = server_lab.run_to_the_end(command)
        assert ended.exit_code == 255
        assert (
            "Failed to start server. Error: INVALID_ARGUMENT: Both server_options.model_base_path and "
            "server_options.model_config_file are empty!"
        ) in ended.stdout

    def test_batching_parameters_without_batching(self, command: Any, resident: tuple[str, ...]) -> None:
        flags = ("--batching_parameters_file={directory}/batching",)
        ended = server_lab.run_to_the_end(command, *resident, *flags, files={"batching": ""})
        assert ended.exit_code == 255
        assert (
            "Failed to start server. Error: INVALID_ARGUMENT: server_options.batching_parameters_file is set "
            "without setting server_options.enable_batching to true."
        ) in ended.stdout

    @pytest.mark.parametrize("text", ["improperly formatted file!", "model_config_list { config { nme: 'x' } }"])
    def test_a_config_file_that_cannot_be_parsed(self, command: Any, text: str) -> None:
        flags = ("--model_config_file={directory}/models",)
        ended = server_lab.run_to_the_end(command, *flags, files={"models": text})
        assert ended.exit_code == 255
        assert "Failed to start server. Error: " in ended.stdout
        assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in ended.stderr

    def test_a_config_file_that_is_not_there(self, command: Any) -> None:
        ended = server_lab.run_to_the_end(command, "--model_config_file={directory}/nowhere")
        assert ended.exit_code == 255
        assert "Failed to start server. Error: " in ended.stdout

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"base_path": "a/relative/path"}, "to have an absolute path or URI; got base_path()=a/relative/path"),
            ({"platform": "caffe"}, "Model plus requests unsupported platform caffe"),
            ({"platform": ""}, "Illegal setting neither ModelServerConfig::model_type"),
        ],
    )
    def test_a_model_that_is_refused(self, command: Any, zoo: Path, change: dict[str, str], message: str) -> None:
        entry = server_lab.model_config("plus", **(dict[str, Any](base_path=zoo / "plus") | change))
        flags = ("--model_config_file={directory}/models",)
        ended = server_lab.run_to_the_end(command, *flags, files={"models": server_lab.config_text(entry)})
        assert ended.exit_code == 255
        assert "Failed to start server. Error: INVALID_ARGUMENT: " in ended.stdout
        assert message in ended.stdout

    @pytest.mark.parametrize("flag", ["--port=many", "--enable_model_warmup=perhaps", "--max_num_load_retries=1.5"])
    def test_a_value_that_is_not_of_its_flags_kind(self, command: Any, resident: tuple[str, ...], flag: str) -> None:
        ended = server_lab.run_to_the_end(command, *resident, flag, with_grpc="none", with_rest=False)
        assert ended.exit_code not in (0, None)
        assert flag.removeprefix("--").partition("=")[0] in ended.stdout + ended.stderr


class TestStarts:
    def test_one_model_by_flags(self, command: Any, resident: tuple[str, ...]) -> None:
        with served(command, *resident) as (_, client):
            client.assert_serving()

    def test_the_models_name_is_default_when_none_is_given(self, command: Any, zoo: Path) -> None:
        with served(command, f"--model_base_path={zoo / 'half_plus_two'}") as (_, client):
            assert client_lab.numbers(client.predict("default"), "y") == [3.0]

    def test_several_models_by_a_file_which_wins_over_the_flags(self, command: Any, zoo: Path) -> None:
        entries = [server_lab.model_config(name, zoo / name) for name in ("half_plus_two", "half_plus_three")]
        flags = ("--model_config_file={directory}/models", "--model_name=plus", f"--model_base_path={zoo / 'plus'}")
        with served(command, *flags, files={"models": server_lab.config_text(*entries)}) as (_, client):
            client.assert_serving()
            assert client_lab.numbers(client.predict("half_plus_three"), "y") == [4.0]
            assert client.refused(lambda: client.predict("plus"))[0] == "NOT_FOUND"

    def test_ports_open_when_every_model_is_there(self, command: Any, zoo: Path) -> None:
        entries = [server_lab.model_config(name, zoo / name) for name in ("half_plus_two", "many_types", "strings")]
        flags = ("--model_config_file={directory}/models",)
        with served(command, *flags, files={"models": server_lab.config_text(*entries)}) as (_, client):
            for name in ("half_plus_two", "many_types", "strings"):
                assert set(client.states(name).values()) == {"AVAILABLE"}

    def test_a_base_path_that_comes_later_is_served_then(self, command: Any, zoo: Path, tmp_path: Path) -> None:
        base = tmp_path / "late"
        flags = ("--model_name=half_plus_two", f"--model_base_path={base}", "--file_system_poll_wait_seconds=1")
        with server_lab.launched(command, *flags) as server:
            time.sleep(LOOK_SECONDS)
            assert server.process.poll() is None
            shutil.copytree(zoo / "half_plus_two", tmp_path / "whole")
            (tmp_path / "whole").rename(base)
            server.wait_until_ready()
            with server_lab.open_channel(server.target) as channel:
                client = client_lab.Client(rest_port=0, channel=channel)
                client.wait_for("half_plus_two", {123: "AVAILABLE"})
                client.assert_serving()

    def test_a_socket_instead_of_a_port(self, command: Any, resident: tuple[str, ...]) -> None:
        with served(command, *resident, with_grpc="unix") as (server, client):
            assert (server.directory / "grpc.sock").is_socket()
            client.assert_serving()

    def test_a_socket_beside_a_port(self, command: Any, resident: tuple[str, ...]) -> None:
        with served(command, *resident, "--grpc_socket_path={directory}/grpc.sock") as (server, client):
            client.assert_serving()
            with server_lab.open_channel(f"unix:{server.directory / 'grpc.sock'}") as channel:
                client_lab.Client(rest_port=0, channel=channel).assert_serving()

    def test_labels_from_the_start(self, command: Any, zoo: Path) -> None:
        entry = server_lab.model_config("plus", zoo / "plus", wants_all=True, labels={"stable": 1})
        flags = ("--model_config_file={directory}/models", "--allow_version_labels_for_unavailable_models=true")
        with served(command, *flags, files={"models": server_lab.config_text(entry)}) as (_, client):
            client.wait_for("plus", {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"})
            response = client.predict("plus", {"x": [0.0]}, label="stable")
            assert response.model_spec.version.value == 1

    def test_flags_that_operators_pass_are_taken(self, command: Any, resident: tuple[str, ...]) -> None:
        flags = (
            "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
            "--per_process_gpu_memory_fraction=0.5",
            "--num_load_threads=2",
            "--num_unload_threads=2",
            "--tensorflow_intra_op_parallelism=1",
            "--tensorflow_inter_op_parallelism=2",
            "--rest_api_num_threads=8",
            "--flush_filesystem_caches=false",
            "--saved_model_tags=serve",
            "--enable_model_warmup",
        )
        with served(command, *resident, *flags) as (_, client):
            client.assert_serving()

    def test_warm_up_can_be_turned_off(self, command: Any, zoo: Path, tmp_path: Path) -> None:
        shutil.copytree(zoo / "half_plus_two", tmp_path / "base")
        extra = tmp_path / "base/123/assets.extra"
        extra.mkdir()
        (extra / "tf_serving_warmup_requests").write_bytes(b"no TFRecord at all")
        flags = ("--model_name=half_plus_two", f"--model_base_path={tmp_path / 'base'}", "--enable_model_warmup=false")
        with served(command, *flags) as (_, client):
            client.assert_serving()


class TestRestPort:
    def test_without_the_flag_there_is_only_grpc(self, command: Any, resident: tuple[str, ...]) -> None:
        with served(command, *resident, with_rest=False) as (server, client):
            client.assert_serving()
            assert listening_ports(server.process.pid) == {int(server.target.rpartition(":")[2])}


class TestPolling:
    def test_zero_looks_at_the_file_system_once(self, command: Any, zoo: Path, tmp_path: Path) -> None:
        base = tmp_path / "base"
        shutil.copytree(zoo / "half_plus_two/123", base / "123")
        flags = ("--model_name=half_plus_two", f"--model_base_path={base}", "--file_system_poll_wait_seconds=0")
        with served(command, *flags) as (_, client):
            shutil.copytree(zoo / "half_plus_two/123", tmp_path / "124")
            (tmp_path / "124").rename(base / "124")
            time.sleep(LOOK_SECONDS)
            assert client.states("half_plus_two") == {123: "AVAILABLE"}
            client.assert_serving()


class TestConfigFilePolling:
    def write(self, server: Any, text: str) -> None:
        """Replace the file as an editor would, so that no poll sees a half of it."""
        new = server.directory / ".models"
        new.write_text(text)
        new.rename(server.directory / "models")

    def test_a_changed_file_is_followed_and_a_wrong_one_is_not(self, command: Any, zoo: Path) -> None:
        resident, three = (server_lab.model_config(name, zoo / name) for name in ("half_plus_two", "half_plus_three"))
        flags = ("--model_config_file={directory}/models", "--model_config_file_poll_wait_seconds=1")
        with served(command, *flags, files={"models": server_lab.config_text(resident)}) as (server, client):
            self.write(server, server_lab.config_text(resident, three))
            client.wait_for("half_plus_three", {123: "AVAILABLE"})
            for text in ("improperly formatted file!", "", server_lab.config_text(three, three)):
                self.write(server, text)
                time.sleep(LOOK_SECONDS)
                client.assert_serving()
                assert client.states("half_plus_three") == {123: "AVAILABLE"}
            (server.directory / "models").unlink()
            time.sleep(LOOK_SECONDS)
            client.assert_serving()
            self.write(server, server_lab.config_text(resident))
            client.wait_for("half_plus_three", {123: "END"})
            client.assert_serving()

    def test_without_the_flag_it_is_read_once(self, command: Any, zoo: Path) -> None:
        resident, three = (server_lab.model_config(name, zoo / name) for name in ("half_plus_two", "half_plus_three"))
        flags = ("--model_config_file={directory}/models",)
        with served(command, *flags, files={"models": server_lab.config_text(resident)}) as (server, client):
            self.write(server, server_lab.config_text(three))
            time.sleep(LOOK_SECONDS)
            assert client.states("half_plus_three") == {}
            client.assert_serving()


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports that a process listens on, by what Linux tells of it."""
    sockets = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            is_listening = fields[3] == "0A"
            if is_listening and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
