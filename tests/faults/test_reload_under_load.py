"""A reload under steady load loses no request, and a killed server comes back as it was configured last."""

from __future__ import annotations

import importlib.util
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
    """Clients that ask as fast as they are answered, and note every answer."""

    target: str
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    # What label "stable" has pointed at, at least since the last move was confirmed.
    stable: int = 1
    moving_to: int = 1

    def run(self) -> None:
        pixels = np.zeros((1, 8, 8, 1), np.uint8)
        seconds, failures = [], []
        with GrpcModelServer(self.target) as server:
            while not self.stopping.is_set():
                with self.lock:
                    allowed = {self.stable, self.moving_to}
                began = time.perf_counter()
                try:
                    answer = server.predict("digits", pixels, label="stable")
                except ModelServerError as error:
                    failures.append(str(error))
                    continue
                seconds.append(time.perf_counter() - began)
                with self.lock:
                    # The label may have moved meanwhile.
                    allowed |= {self.stable, self.moving_to}
                if answer.version not in allowed:
                    failures.append(f"version {answer.version} answered, allowed were {allowed}")
                if int(answer.scores.argmax()) != answer.version % CLASSES:
                    failures.append(f"version {answer.version} gave the scores of another")
        with self.lock:
            self.seconds += seconds
            self.failures += failures


def wait_until_available(server: GrpcModelServer, version: int) -> None:
    until(lambda: (version, VersionState.AVAILABLE) in {(s.version, s.state) for s in server.status("digits")})


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def move(server: GrpcModelServer, load: Load, base_path: Path, *, old: int, new: int) -> None:
    """Load the new version beside the old, move the label, unload the old."""

    def reload(versions: tuple[int, ...], stable: int) -> None:
        server.reload((ModelConfig("digits", str(base_path), versions, {"stable": stable}),), timeout_seconds=30)

    reload((old, new), old)
    wait_until_available(server, new)
    with load.lock:
        load.moving_to = new
    reload((old, new), new)
    with load.lock:
        load.stable = new
    reload((new,), new)
    time.sleep(0.2)  # steady state between two moves


def test_a_reload_under_steady_load_loses_no_request(base_path: Path) -> None:
    first = ModelConfig("digits", str(base_path), (1,), {"stable": 1})
    moves = 0
    with ServerProcess((first,), command=COMMAND) as process, GrpcModelServer(process.target) as server:
        load = Load(process.target)
        threads = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            while moves < 12 or (moves * 400 < REQUESTS and time.monotonic() - began < 60):
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
        f"\n{len(load.seconds)} requests by {CLIENTS} clients in {took:.1f} s, {moves} reloads of distinct versions, "
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
