"""A reload under steady load loses no request, and a killed server comes back as it was configured last."""

from __future__ import annotations

import importlib.util
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync.durable import write_durably
from artifact_sync.errors import ModelServerError
from serving.model_server import GrpcModelServer, ModelConfig, VersionState, model_config_text
from serving.server_process import ServerProcess, server_command

COMMAND = server_command()
CLASSES = 7
VERSIONS = range(1, 8)
CLIENTS = 4
REQUESTS = 10_000
KILLS = 8


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
    """Versions 1 to 7; the class that version N likes best is N modulo 7."""
    base = tmp_path_factory.mktemp("digits")
    for version in VERSIONS:
        tiny.tiny_model(base / str(version), classes=CLASSES, favourite_class=version % CLASSES)
    return base


@dataclass
class Load:
    """Clients that ask as fast as they are answered, and note every answer.

    They ask two models in turn: "digits" by its label, which moves in two steps, and "letters" for
    its newest version, which is replaced by one configuration that names only the next.
    """

    target: str
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    # Which versions may answer: the one before and the one after the move that is under way.
    digits: set[int] = field(default_factory=lambda: {1})
    letters: set[int] = field(default_factory=lambda: {1})

    def run(self) -> None:
        pixels = np.zeros((1, 8, 8, 1), np.uint8)
        models = itertools.cycle([("digits", "stable"), ("letters", None)])
        with GrpcModelServer(self.target) as server:
            while not self.stopping.is_set():
                model, label = next(models)
                allowed = self.allowed(model)
                began = time.perf_counter()
                try:
                    answer = server.predict(model, pixels, label=label)
                except ModelServerError as error:
                    self.failures.append(str(error))
                    continue
                self.seconds.append(time.perf_counter() - began)
                # A move may have begun meanwhile.
                allowed |= self.allowed(model)
                if answer.version not in allowed:
                    self.failures.append(f"version {answer.version} of {model} answered, allowed were {allowed}")
                if int(answer.scores.argmax()) != answer.version % CLASSES:
                    self.failures.append(f"version {answer.version} of {model} gave the scores of another")

    def allowed(self, model: str) -> set[int]:
        with self.lock:
            return set(self.digits if model == "digits" else self.letters)

    def allow(self, model: str, *versions: int) -> None:
        with self.lock:
            setattr(self, model, set(versions))


def wait_for(server: GrpcModelServer, model: str, version: int, state: VersionState) -> None:
    until(lambda: (version, state) in {(status.version, status.state) for status in server.status(model)})


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def move(server: GrpcModelServer, load: Load, base_path: Path, *, old: int, new: int) -> None:
    """Replace both models' versions, each in its way; when this returns only the new ones are in memory."""

    def reload(digits: tuple[int, ...], stable: int, letters: int) -> None:
        models = (
            ModelConfig("digits", str(base_path), digits, {"stable": stable}),
            ModelConfig("letters", str(base_path), (letters,)),
        )
        server.reload(models, timeout_seconds=30)

    load.allow("letters", old, new)
    reload((old, new), old, new)
    wait_for(server, "digits", new, VersionState.AVAILABLE)
    load.allow("digits", old, new)
    reload((old, new), new, new)
    load.allow("digits", new)
    reload((new,), new, new)
    wait_for(server, "letters", old, VersionState.END)
    load.allow("letters", new)
    time.sleep(0.2)  # steady state between two moves


def test_a_reload_under_steady_load_loses_no_request(base_path: Path) -> None:
    first = (ModelConfig("digits", str(base_path), (1,), {"stable": 1}), ModelConfig("letters", str(base_path), (1,)))
    moves = 0
    with ServerProcess(first, command=COMMAND) as process, GrpcModelServer(process.target) as server:
        load = Load(process.target)
        threads = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            while moves < 12 or (len(load.seconds) < REQUESTS and time.monotonic() - began < 60):
                old = VERSIONS[moves % len(VERSIONS)]
                new = VERSIONS[(moves + 1) % len(VERSIONS)]
                move(server, load, base_path, old=old, new=new)
                moves += 1
        finally:
            load.stopping.set()
            for thread in threads:
                thread.join()
    took = time.monotonic() - began
    milliseconds = np.percentile(np.array(load.seconds) * 1000, [50, 99, 100])
    print(
        f"\n{len(load.seconds)} requests by {CLIENTS} clients in {took:.1f} s, "
        f"{moves} moves of two models to other versions, "
        f"{len(load.failures)} failed; p50 {milliseconds[0]:.2f} ms, p99 {milliseconds[1]:.2f} ms, "
        f"longest {milliseconds[2]:.0f} ms"
    )
    assert load.failures == []
    assert len(load.seconds) >= REQUESTS


def test_a_server_killed_at_any_moment_of_a_reload_comes_back_on_its_last_configuration(
    base_path: Path, tmp_path: Path
) -> None:
    config_path = tmp_path / "models.config"
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    process = ServerProcess(config_path, command=COMMAND)
    write_config(config_path, base_path, 1)
    try:
        for kill in range(KILLS):
            old, new = VERSIONS[kill % len(VERSIONS)], VERSIONS[(kill + 1) % len(VERSIONS)]
            process.start()
            with GrpcModelServer(process.target) as server:
                assert server.predict("digits", pixels, label="stable").version == old
                # As the agent does it: the file first, then the running server.
                write_config(config_path, base_path, new)
                models = (ModelConfig("digits", str(base_path), (old, new), {"stable": old}),)
                server.reload(models, timeout_seconds=10)
                time.sleep(0.004 * kill)  # from before the load begins until after it has ended
                process.kill()
        process.start()
        with GrpcModelServer(process.target) as server:
            answer = server.predict("digits", pixels, label="stable")
    finally:
        process.stop()
    print(f"\n{KILLS} kills between 0 and {4 * (KILLS - 1)} ms after the reload was accepted")
    assert answer.version == VERSIONS[KILLS % len(VERSIONS)]
    assert int(answer.scores.argmax()) == answer.version % CLASSES


def write_config(path: Path, base_path: Path, version: int) -> None:
    config = ModelConfig("digits", str(base_path), (version,), {"stable": version})
    write_durably(path, model_config_text([config]).encode())
