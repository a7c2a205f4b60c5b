"""The model server itself is killed -9 around every step of a roll-out: it comes back on a good version by itself.

The server is a real process that starts from the agent's start-up file; the agent ticks on as it would.
"""

from __future__ import annotations

import base64
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from artifact_sync.clock import SystemClock
from artifact_sync.records import GoldenExample, GoldenExamples
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from serving.model_server import GrpcModelServer
from serving.server_process import ServerProcess
from serving.step_runner import StepRunner

PIXELS = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
MOST_TICKS = 120


def load(repository: Path, name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, repository / "tests" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def exports(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports 1, 2, 3 of a tiny model, whose first label is class 1, 2 and 0."""
    tiny = load(repository, "tiny_models")
    root = tmp_path_factory.mktemp("runs")
    for version in (1, 2, 3):
        export = tiny.tiny_model(root / str(version), favourite_class=version % 3, labels=("circle", "square", "star"))
        golden = GoldenExamples(
            height=8,
            width=8,
            channels=1,
            tolerance=0.001,
            examples=tuple(
                GoldenExample(
                    pixels_base64=base64.b64encode(photo.tobytes()).decode(), scores=scores_of(photo, version)
                )
                for photo in PIXELS
            ),
        )
        (export / GOLDEN_EXAMPLES_PATH).write_bytes(golden.to_json())
    return root


def scores_of(photo: np.ndarray, version: int) -> tuple[float, ...]:
    logits = photo.mean() / 255.0 * np.array([0.0, 0.5, 1.0])
    logits[version % 3] += 6.0
    scores = np.exp(logits) / np.exp(logits).sum()
    return tuple(float(score) for score in scores)


class Host:
    """A serving host with a real server process, serving version 1."""

    def __init__(self, lab: Any, agent_lab: ModuleType, process: ServerProcess) -> None:
        self.lab, self.process, self.served = lab, process, 1
        lab.server.truth = {}
        self.agent_lab = agent_lab
        self.lab.publish(1)
        self.until_served(1)

    def tick(self) -> Any:
        """One tick of a new agent, on a new connection."""
        with GrpcModelServer(self.process.target) as client:
            memory = self.agent_lab.MemoryForVersions(client, self.lab.limit_versions)
            return self.lab.agent(server=client, clock=SystemClock(), memory=memory).tick()

    def until_served(self, version: int) -> None:
        report = None
        for _ in range(MOST_TICKS):
            report = self.tick()
            if report.outcome == "serving" and report.served == {"stable": version}:
                self.served = version
                return
            time.sleep(0.5)
        pytest.fail(f"version {version} is not served: {report}")

    def answering(self) -> int:
        with GrpcModelServer(self.process.target) as client:
            answer = client.predict("shapes", PIXELS, label="stable")
        assert (answer.scores.argmax(axis=1) == answer.version % 3).all()
        return answer.version

    def roll_out_with_a_kill(self, monkeypatch: pytest.MonkeyPatch, *, moment: str, step: str) -> None:
        """Publish the next version, kill the server at a step, and see who answers afterwards and in the end."""
        old, new = self.served, self.served % 3 + 1
        self.lab.publish(new)
        run, kills = StepRunner.run, []

        def killing(runner: StepRunner, it: Any) -> None:
            is_here = type(it).__name__ == step and not kills
            if is_here and moment == "before":
                kills.append(self.process.kill())
            run(runner, it)
            if is_here and moment == "after":
                kills.append(self.process.kill())

        with monkeypatch.context() as patch:
            patch.setattr(StepRunner, "run", killing)
            self.tick()
        assert kills, f"there was no {step}"
        self.process.start()
        assert self.answering() in {old, new}, (moment, step)
        self.until_served(new)
        assert self.answering() == new


@pytest.fixture
def host(repository: Path, exports: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    agent_lab = load(repository, "agent_lab")
    settings = {"bake_seconds": 0, "retry_seconds": 1, "load_timeout_seconds": 60, "latency_pairs": 3}
    lab = agent_lab.Lab(tmp_path, settings={**settings, "when_memory_is_short": "swap"})
    lab.limit_versions = getattr(request, "param", 100.0)
    lab.initialise()
    (tmp_path / "runs").symlink_to(exports)
    lab.settings.models_dir.mkdir(parents=True)
    lab.settings.config_path.write_text("model_config_list {\n}\n")
    with ServerProcess(lab.settings.config_path) as process:
        yield Host(lab, agent_lab, process)


KILLS = (
    ("after", "PullVersion"),
    ("before", "LoadVersions"),
    ("after", "LoadVersions"),
    ("after", "ProbeVersion"),
    ("after", "MeasureLatency"),
    ("before", "MoveLabels"),
    ("after", "MoveLabels"),
    ("after", "RecordServing"),
    ("after", "UnloadVersions"),
)
SWAP_KILLS = (("before", "SwapOut"), ("after", "SwapOut"), ("after", "LoadVersions"), ("after", "MoveLabels"))


def test_a_server_that_is_killed_around_a_step_comes_back_on_a_good_version(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment, step in KILLS:
        host.roll_out_with_a_kill(monkeypatch, moment=moment, step=step)
    print(f"{len(KILLS)} kills of the server")


@pytest.mark.parametrize("host", [1.6], indirect=True)
def test_a_server_that_is_killed_in_a_swap_comes_back_on_a_good_version(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment, step in SWAP_KILLS:
        host.roll_out_with_a_kill(monkeypatch, moment=moment, step=step)
    print(f"{len(SWAP_KILLS)} kills of the server")


def test_a_version_that_must_go_is_left_although_its_server_is_dead(host: Host) -> None:
    host.lab.publish(2)
    host.until_served(2)
    assert host.answering() == 2
    host.process.kill()
    host.lab.store.is_away = True
    with GrpcModelServer(host.process.target) as client:
        report = host.lab.agent(server=client, clock=SystemClock()).return_to_last_good(reason="users complain")
    assert (report.outcome, report.served) == ("unreachable", None)
    host.process.start()
    assert host.answering() == 1, "the start-up file names the version before already"
    assert host.tick().served == {"stable": 1}
