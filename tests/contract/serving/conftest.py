"""Servers for the contract suite: each command at hand, a zoo of models, and few processes for many tests.

Its place in the flow: the fixtures `standing` (never reconfigured), `reloading` (each test has it for
itself) and `optioned` (every optional flag on), and `command` for tests that start servers of their own.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serving.server_process import server_command

_TESTS = Path(__file__).parents[2]


def _load(path: Path) -> ModuleType:
    # With importmode=importlib no folder of tests is on the path. Test modules import these by their names.
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


server_lab = _load(Path(__file__).with_name("server_lab.py"))
client_lab = _load(Path(__file__).with_name("client_lab.py"))
odd_models = _load(Path(__file__).with_name("odd_models.py"))
serving_models = _load(_TESTS / "serving_models.py")
tiny_models = _load(_TESTS / "tiny_models.py")

EMBEDDED = server_lab.ServerCommand("embedded", (sys.executable, "-m", "serving.embedded_server"))
# Read now: during tests the environment is emptied of Liftgate's variables.
COMMANDS = {EMBEDDED.name: EMBEDDED}
if server_command() != EMBEDDED.arguments:
    COMMANDS["tensorflow_model_server"] = server_lab.ServerCommand("tensorflow_model_server", server_command())


@pytest.fixture(scope="session", params=COMMANDS)
def command(request: pytest.FixtureRequest) -> Any:
    """A server's command; every test that asks for it runs once for each."""
    return COMMANDS[request.param]


@pytest.fixture(scope="session")
def embedded() -> Any:
    """The embedded server's command."""
    return EMBEDDED


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base paths of all test models; nobody writes here, tests copy what they change."""
    zoo = tmp_path_factory.mktemp("zoo")
    serving_models.half_plus_two(zoo / "half_plus_two/123")
    serving_models.half_plus_three(zoo / "half_plus_three/123")
    serving_models.many_types(zoo / "many_types/1")
    serving_models.strings(zoo / "strings/1")
    serving_models.matrix_half_plus_two(zoo / "matrix/1")
    serving_models.counter(zoo / "counter/1")
    serving_models.slow(zoo / "slow/1", 2.0)
    serving_models.slow(zoo / "endless/1", 3600.0)
    serving_models.wide(zoo / "wide/1")
    odd_models.pair(zoo / "pair/1")
    odd_models.features(zoo / "features/1")
    odd_models.sizes(zoo / "sizes/1")
    for version in (1, 2, 3):
        odd_models.plus(zoo / f"plus/{version}", float(version))
    return zoo


@pytest.fixture(scope="session")
def zoo_config(zoo: Path) -> str:
    """A model config file with all test models; plus has its three versions and labels for two of them."""
    models = [
        server_lab.model_config(base.name, base)
        for base in sorted(zoo.iterdir())
        if base.name not in ("plus", "counter")
    ]
    labels = {"stable": 1, "canary": 2, "an odd label!": 3}
    models.append(server_lab.model_config("plus", zoo / "plus", wants_all=True, labels=labels))
    models.append(server_lab.model_config("counter", zoo / "counter"))
    text: str = server_lab.config_text(*models)
    return text


@pytest.fixture(scope="session")
def zoo_config_without_labels(zoo: Path) -> str:
    """The same without labels, so that it needs no flag."""
    models = [server_lab.model_config(base.name, base, wants_all=True) for base in sorted(zoo.iterdir())]
    text: str = server_lab.config_text(*models)
    return text


@pytest.fixture(scope="session")
def _standing(command: Any, zoo_config: str) -> Iterator[Any]:
    flags = ("--model_config_file={directory}/models", "--allow_version_labels_for_unavailable_models")
    with server_lab.started(command, *flags, files={"models": zoo_config}) as server:
        yield server


@pytest.fixture
def standing(_standing: Any) -> Iterator[Any]:
    """A client of a server with all test models, whose configuration no test changes."""
    yield from _client(_standing)


@pytest.fixture(scope="session")
def _optioned(command: Any, zoo_config: str) -> Iterator[Any]:
    flags = (
        "--model_config_file={directory}/models",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_serialization_as_tensor_content",
        "--enable_signature_method_name_check=true",
        "--enable_grpc_healthcheck_service=true",
        "--rest_api_enable_cors_support",
        "--rest_api_timeout_in_ms=1500",
    )
    with server_lab.started(command, *flags, files={"models": zoo_config}) as server:
        yield server


@pytest.fixture
def optioned(_optioned: Any) -> Iterator[Any]:
    """A client of a server with all test models and every optional flag on."""
    yield from _client(_optioned)


@pytest.fixture(scope="session")
def _reloading(command: Any, zoo: Path) -> Iterator[Any]:
    resident = server_lab.config_text(server_lab.model_config(client_lab.RESIDENT, zoo / client_lab.RESIDENT))
    flags = (
        "--model_config_file={directory}/models",
        "--allow_version_labels_for_unavailable_models=true",
        "--file_system_poll_wait_seconds=1",
        "--max_num_load_retries=0",
    )
    with server_lab.started(command, *flags, files={"models": resident}) as server:
        yield server


class Operator:
    """A server's configuration in the hands of one test, with a base path of the test's own.

    The resident model stays in every configuration that `reload` sends.
    """

    def __init__(self, client: Any, *, zoo: Path, home: Path) -> None:
        self.client = client
        self.zoo = zoo
        self.home = home
        self.name = f"model-{home.name}"
        self.resident = server_lab.model_config(client_lab.RESIDENT, zoo / client_lab.RESIDENT)

    def entry(self, name: str | None = None, base_path: Path | str | None = None, **choices: Any) -> Any:
        """Return a ModelConfig, of the test's own model if nothing else is said."""
        return server_lab.model_config(name or self.name, base_path or self.home / "own", **choices)

    def reload(self, *models: Any, **choices: Any) -> Any:
        return self.client.reload(self.resident, *models, **choices)

    def add(self, version: int | str, *, source: str | None = None, base: str = "own") -> Path:
        """Let a version appear whole; without a source it is `plus/<version>`, which adds its number."""
        target = self.home / base / str(version)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".tmp-{target.name}"
        shutil.copytree(self.zoo / (source or f"plus/{version}"), temporary)
        return temporary.rename(target)

    def serve(self, *versions: int, **choices: Any) -> None:
        """Have these versions of the own model available, and no other."""
        for version in versions:
            if not (self.home / "own" / str(version)).exists():
                self.add(version)
        self.reload(self.entry(versions=versions, **choices))
        self.client.wait_for(self.name, dict.fromkeys(sorted(versions, reverse=True), "AVAILABLE"))

    def answer(self, name: str | None = None, **spec: Any) -> float:
        """Return what the model makes of zero: for `plus` the number of the version."""
        response = self.client.predict(name or self.name, {"x": [0.0]}, **spec)
        value: float = client_lab.numbers(response, "y")[0]
        return value

    def states(self, name: str | None = None) -> dict[int, str]:
        found: dict[int, str] = self.client.states(name or self.name)
        return found

    def wait_for(self, expected: dict[int, str], name: str | None = None) -> None:
        self.client.wait_for(name or self.name, expected)


@pytest.fixture
def operator(_reloading: Any, zoo: Path, tmp_path: Path) -> Iterator[Operator]:
    """The configuration of a server that looks for versions each second and never retries a load."""
    for client in _client(_reloading):
        operator = Operator(client, zoo=zoo, home=tmp_path)
        yield operator
        operator.reload()


def _client(server: Any) -> Iterator[Any]:
    with server_lab.open_channel(server.target) as channel:
        yield client_lab.Client(rest_port=server.rest_port, channel=channel, target=server.target)
