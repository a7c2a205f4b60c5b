"""The embedded server as a process: its flags, its ports, its start without models, its end."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import grpc
import numpy as np
import pytest

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError
from serving.model_server import GrpcModelServer, ModelConfig, VersionState, model_config_text
from serving.server_process import ServerProcess

COMMAND = (sys.executable, "-m", "serving.embedded_server")
PIXELS = np.zeros((1, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def tiny(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_models", repository / "tests/tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base_path(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("digits")
    for version in (1, 2):
        tiny.tiny_model(base / str(version), favourite_class=version)
    return base


@pytest.fixture(scope="module")
def slow_path(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes some seconds for an answer."""
    base = tmp_path_factory.mktemp("slow")
    tiny.slow_model(base / "1", rounds=150_000)
    shutil.copytree(base / "1", base / "2")
    return base


@contextmanager
def started(*flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start the server on ports of its own choice; yield it and what its READY line says."""
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        word, *addresses = process.stdout.readline().split()
        assert word == "READY"
        yield process, dict(address.split("=", 1) for address in addresses)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def finished(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=60, check=False)


def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_one_model_by_name_on_a_tcp_port(base_path: Path) -> None:
    flags = ("--port=0", "--model_name=digits", f"--model_base_path={base_path}")
    with started(*flags) as (_, ready), GrpcModelServer(ready["grpc"]) as server:
        assert ready["grpc"].startswith("127.0.0.1:")
        assert ready["rest"] == "-"
        assert server.predict("digits", PIXELS).version == 2
        assert server.predict("digits", PIXELS).scores.argmax() == 2


def test_the_ports_are_open_to_this_machine_alone(base_path: Path) -> None:
    rest_port = free_port()
    flags = ("--port=0", f"--rest_api_port={rest_port}", f"--model_base_path={base_path}")
    with started(*flags) as (_, ready):
        assert ready["rest"] == f"127.0.0.1:{rest_port}"
        for address in ready.values():
            port = int(address.rpartition(":")[2])
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            # Another address of this machine, which a server that listens everywhere would answer on.
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_port_that_is_taken_is_said_and_ends_the_start(base_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = finished(f"--port={taken.getsockname()[1]}", f"--model_base_path={base_path}")
        rest = finished("--port=0", f"--rest_api_port={taken.getsockname()[1]}", f"--model_base_path={base_path}")
    assert (result.returncode, rest.returncode) == (255, 255)
    assert "Failed to start server. Error: UNAVAILABLE: Cannot listen on 127.0.0.1:" in result.stdout
    assert "Cannot listen on 127.0.0.1:" in rest.stdout


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (("--modle_name=m",), 2, "Did you mean --model_name?"),
        (("--port=0",), 255, "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (("--port=0", "--model_config_file=/nowhere"), 255, "Cannot read the model config file /nowhere"),
        (("--port=0", "--model_base_path=models"), 255, "absolute path or URI"),
        (("--version",), 0, "TensorFlow Library: 2."),
        (("--help",), 0, "--model_config_file"),
    ],
)
def test_a_start_that_cannot_be_says_why(flags: tuple[str, ...], code: int, text: str) -> None:
    result = finished(*flags)
    assert (result.returncode, text in result.stdout + result.stderr) == (code, True)


def test_a_flag_without_effect_is_said_at_start(base_path: Path) -> None:
    model = ModelConfig("digits", str(base_path), (1,))
    with ServerProcess((model,), command=COMMAND, flags=("--mixed_precision=bfloat16",)) as process:
        assert "--mixed_precision has no effect: models run as they were exported." in process.log


def test_labels_of_the_config_file_point_at_their_versions_from_the_first_request(base_path: Path) -> None:
    model = ModelConfig("digits", str(base_path), (1, 2), {"stable": 1, "canary": 2})
    with ServerProcess((model,), command=COMMAND) as process, GrpcModelServer(process.target) as server:
        assert [server.predict("digits", PIXELS, label=label).version for label in ("stable", "canary")] == [1, 2]


def test_a_server_without_models_waits_for_its_first_configuration(base_path: Path) -> None:
    with ServerProcess(command=COMMAND) as process, GrpcModelServer(process.target) as server:
        assert server.status("digits") == ()
        server.reload((ModelConfig("digits", str(base_path), (1,), {"stable": 1}),), timeout_seconds=10)
        assert server.predict("digits", PIXELS, label="stable").version == 1


def test_a_model_without_versions_does_not_keep_the_others_from_starting(base_path: Path, tmp_path: Path) -> None:
    models = (ModelConfig("late", str(tmp_path / "late"), (1,)), ModelConfig("digits", str(base_path), (1,)))
    with ServerProcess(models, command=COMMAND) as process, GrpcModelServer(process.target) as server:
        assert server.predict("digits", PIXELS).version == 1
        assert "Could not find base path" in process.log
        shutil.copytree(base_path / "1", tmp_path / "late/.tmp-1")
        (tmp_path / "late/.tmp-1").rename(tmp_path / "late/1")
        until(lambda: bool(server.status("late")) and server.status("late")[0].state is VersionState.AVAILABLE)


def test_a_config_file_that_changes_is_followed_and_a_broken_one_changes_nothing(
    base_path: Path, tmp_path: Path
) -> None:
    config = tmp_path / "models.config"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(config)

    write(model_config_text([ModelConfig("digits", str(base_path), (1,))]))
    flags = ("--model_config_file_poll_wait_seconds=1",)
    with (
        ServerProcess(config, command=COMMAND, flags=flags) as process,
        GrpcModelServer(process.target) as server,
    ):
        write("model_config_list { config {")
        until(lambda: "not applied" in process.log)
        assert server.predict("digits", PIXELS).version == 1
        write(model_config_text([ModelConfig("digits", str(base_path), (1, 2))]))
        until(lambda: len(server.status("digits")) == 2)
        until(lambda: server.predict("digits", PIXELS).version == 2)


def test_health_is_told_without_a_flag_for_it(base_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    model = ModelConfig("digits", str(base_path), (1,))
    with ServerProcess((model,), command=COMMAND) as process, grpc.insecure_channel(process.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "PredictionService", "ModelService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_after_sigterm_running_requests_are_answered_and_new_ones_are_not_taken(slow_path: Path) -> None:
    model = ModelConfig("slow", str(slow_path), (1,))
    answers: list[object] = []
    with ServerProcess((model,), command=COMMAND) as process:
        target = process.target

        def ask() -> None:
            with GrpcModelServer(target) as server:
                answers.append(server.predict("slow", PIXELS, timeout_seconds=60).version)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        assert not answers, "the model is too quick for this test"
        ending = threading.Thread(target=lambda: answers.append(f"exit {process.terminate()}"))
        ending.start()

        def is_refused() -> bool:
            try:
                with GrpcModelServer(target) as server:
                    server.status("slow")
            except ModelServerUnavailableError:
                return True
            return False

        until(is_refused)
        assert not answers, "the model is too quick for this test"
        asking.join()
        ending.join()
    assert answers == [1, "exit 0"]


def test_a_version_in_use_is_unloaded_after_its_last_answer(slow_path: Path) -> None:
    with (
        ServerProcess((ModelConfig("slow", str(slow_path), (1,)),), command=COMMAND) as process,
        GrpcModelServer(process.target) as server,
    ):
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(server.predict("slow", PIXELS, timeout_seconds=60).version)
        )
        asking.start()
        time.sleep(0.3)
        server.reload((ModelConfig("slow", str(slow_path), (2,)),), timeout_seconds=10)

        def states() -> dict[int, VersionState]:
            return {status.version: status.state for status in server.status("slow")}

        until(lambda: states() == {2: VersionState.AVAILABLE, 1: VersionState.UNLOADING})
        assert not answers, "the model is too quick for this test"
        asking.join()
        assert answers == [1]
        until(lambda: states() == {2: VersionState.AVAILABLE, 1: VersionState.END})


def test_a_deadline_ends_the_work_and_not_only_the_waiting(slow_path: Path) -> None:
    model = ModelConfig("slow", str(slow_path), (1,))
    with ServerProcess((model,), command=COMMAND) as process, GrpcModelServer(process.target) as server:
        with pytest.raises(ModelServerUnavailableError, match=r"did not answer Predict of model slow within 0\.2 s"):
            server.predict("slow", PIXELS, timeout_seconds=0.2)
        server.reload((), timeout_seconds=10)
        # The version can be unloaded only when no request runs on it any more.
        until(lambda: server.status("slow")[0].state is VersionState.END, seconds=2)


def test_nobody_there_is_told_with_the_address_and_what_to_do(tmp_path: Path) -> None:
    with GrpcModelServer(f"unix:{tmp_path}/nobody.sock") as server:
        with pytest.raises(ModelServerUnavailableError, match=r"nobody\.sock cannot be reached .*Check that it runs"):
            server.status("digits")
        with pytest.raises(ModelServerUnavailableError):
            server.predict("digits", PIXELS, timeout_seconds=1)


def test_the_client_finds_a_restarted_server_again(base_path: Path) -> None:
    model = ModelConfig("digits", str(base_path), (1,))
    process = ServerProcess((model,), command=COMMAND)
    process.start()
    try:
        with GrpcModelServer(process.target) as server:
            assert server.predict("digits", PIXELS).version == 1
            process.kill()
            with pytest.raises(ModelServerUnavailableError):
                server.predict("digits", PIXELS)
            process.start()
            until(lambda: bool(_version_or_none(server)), seconds=5)
    finally:
        process.stop()


def _version_or_none(server: GrpcModelServer) -> int | None:
    try:
        return server.predict("digits", PIXELS).version
    except ModelServerUnavailableError:
        return None


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("nonsense")
    with pytest.raises(ModelServerError, match=r"(?s)ended at start with exit code 255.*Error parsing text-format"):
        ServerProcess(config, command=COMMAND).start()
