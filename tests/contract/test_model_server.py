"""Liftgate's own client and process against every server command at hand: photos in, scores and states out.

What servers owe to any client stands in tests/contract/serving.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError
from serving.model_server import GrpcModelServer, ModelConfig, VersionMissingError, VersionState
from serving.server_process import ServerProcess, server_command

EMBEDDED = (sys.executable, "-m", "serving.embedded_server")
# Read now: during tests the environment is emptied of Liftgate's variables.
COMMANDS: dict[str, tuple[str, ...]] = {"embedded": EMBEDDED}
if server_command() != EMBEDDED:
    COMMANDS["tensorflow_model_server"] = server_command()

PIXELS = np.zeros((2, 8, 8, 1), np.uint8)
SECONDS = 30.0


@pytest.fixture(scope="session")
def tiny(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_models", repository / "tests/tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def exports(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1, 2 and 3, of which each likes the class of its number best."""
    base = tmp_path_factory.mktemp("exports")
    for version in (1, 2, 3):
        tiny.tiny_model(base / str(version), classes=4, favourite_class=version, version_marker=version)
    return base


@pytest.fixture(scope="module", params=COMMANDS)
def process(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(command=COMMANDS[request.param], is_rest_enabled=True) as process:
        yield process


@pytest.fixture
def server(process: ServerProcess) -> Iterator[GrpcModelServer]:
    with GrpcModelServer(process.target) as server:
        yield server


@pytest.fixture
def model(server: GrpcModelServer, tmp_path: Path, exports: Path) -> Iterator[str]:
    """A model of the test's own with versions 1 and 2 available, and the label stable on 1."""
    for version in (1, 2):
        shutil.copytree(exports / str(version), tmp_path / str(version))
    name = f"model-{tmp_path.name}"
    server.reload((ModelConfig(name, str(tmp_path), (1, 2), {"stable": 1}),), timeout_seconds=SECONDS)
    until(lambda: states(server, name) == {2: VersionState.AVAILABLE, 1: VersionState.AVAILABLE})
    yield name
    server.reload((), timeout_seconds=SECONDS)


def states(server: GrpcModelServer, model: str) -> dict[int, VersionState]:
    return {entry.version: entry.state for entry in server.status(model)}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_predicts_by_version_and_by_label(server: GrpcModelServer, model: str) -> None:
    newest = server.predict(model, PIXELS)
    assert newest.scores.shape == (2, 4)
    assert newest.scores.dtype == np.float32
    assert newest.version == 2
    assert server.predict(model, PIXELS, version=1).version == 1
    assert server.predict(model, PIXELS, label="stable").scores.argmax(axis=1).tolist() == [1, 1]


def test_scores_are_those_that_tensorflow_computes_from_the_same_export(
    server: GrpcModelServer, model: str, exports: Path
) -> None:
    import tensorflow as tf

    pixels = np.random.default_rng(7).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    expected = tf.saved_model.load(str(exports / "2")).signatures["serving_default"](pixels=tf.constant(pixels))
    assert np.allclose(server.predict(model, pixels).scores, expected["probabilities"].numpy(), atol=1e-6)


def test_rest_gives_the_same_scores(server: GrpcModelServer, process: ServerProcess, model: str) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    url = f"http://127.0.0.1:{process.rest_port}/v1/models/{model}:predict"
    body = json.dumps({"inputs": pixels.tolist()}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=SECONDS) as response:
        answer = json.load(response)
    by_rest = np.array(answer["outputs"]["probabilities"], np.float32)
    assert np.array_equal(by_rest, server.predict(model, pixels).scores)


def test_it_sees_states_and_signatures(server: GrpcModelServer, model: str) -> None:
    assert [(entry.version, entry.state, entry.error_message) for entry in server.status(model)] == [
        (2, VersionState.AVAILABLE, ""),
        (1, VersionState.AVAILABLE, ""),
    ]
    assert server.status("nobody") == ()
    signature = server.signature(model, version=1)
    assert signature.version == 1
    assert signature.inputs["pixels"].dtype == "uint8"
    assert signature.inputs["pixels"].shape == (None, 8, 8, 1)
    assert signature.outputs["probabilities"].shape == (None, 4)


def test_refusals_say_where_and_why(server: GrpcModelServer, model: str) -> None:
    with pytest.raises(VersionMissingError, match=r"refused Predict of model nobody: NOT_FOUND: Servable not"):
        server.predict("nobody", PIXELS)
    twice = (ModelConfig(model, "/x", (1,)), ModelConfig(model, "/x", (1,)))
    with pytest.raises(ModelServerError, match=r"refused .*Reload.*INVALID_ARGUMENT") as caught:
        server.reload(twice, timeout_seconds=SECONDS)
    assert not isinstance(caught.value, ModelServerUnavailableError)
    assert server.predict(model, PIXELS).version == 2


def test_a_version_that_does_not_load_is_told_with_its_error(
    server: GrpcModelServer, model: str, tmp_path: Path, exports: Path
) -> None:
    shutil.copytree(exports / "3", tmp_path / "3")
    (tmp_path / "3/saved_model.pb").write_bytes(b"not a graph")
    server.reload((ModelConfig(model, str(tmp_path), (2, 3)),), timeout_seconds=SECONDS)
    until(lambda: states(server, model).get(3) is VersionState.END)
    broken = next(entry for entry in server.status(model) if entry.version == 3)
    assert broken.error_message
    assert server.predict(model, PIXELS).version == 2


def test_a_configuration_with_no_model_unloads_everything(server: GrpcModelServer, model: str) -> None:
    server.reload((), timeout_seconds=SECONDS)
    until(lambda: states(server, model) == {2: VersionState.END, 1: VersionState.END})
