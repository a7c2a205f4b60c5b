"""The real agent, the real embedded server, signed releases: forward, back, and through kills."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from artifact_sync.clock import SystemClock
from artifact_sync.records import GoldenExample, GoldenExamples
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from serving.model_server import GrpcModelServer, VersionState
from serving.server_memory import ServerMemory
from serving.server_process import ServerProcess

PIXELS = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)

TICK = """
import os, signal, sys
from pathlib import Path
from artifact_sync.clock import SystemClock
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.registry import Registry
from artifact_sync.trust import TrustedReader
from serving.agent import Agent
from serving.model_server import GrpcModelServer
from serving.settings import AgentSettings
from serving.step_runner import StepRunner

root, target, before_step, after_step = Path(sys.argv[1]), *sys.argv[2:5]
run = StepRunner.run
def dying(self, step):
    if type(step).__name__ == before_step:
        os.kill(os.getpid(), signal.SIGKILL)
    run(self, step)
    if type(step).__name__ == after_step:
        os.kill(os.getpid(), signal.SIGKILL)
StepRunner.run = dying
registry = Registry(DirectoryStore(root / "bucket"), model="shapes")
reader = TrustedReader(registry, metadata_dir=root / "host" / "trust", root=(root / "root.json").read_bytes())
settings = AgentSettings(host="host-1", models_dir=root / "host" / "models")
Agent(registry, trust=reader, server=GrpcModelServer(target), settings=settings, clock=SystemClock()).tick()
"""


def load(repository: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, repository / "tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exports(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports 1, 2, 3 of a tiny model, whose first label is class 1, 2 and 0; their scores are computed by hand."""
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One embedded server for the module; each test points its start-up file where it needs it."""
    config = tmp_path_factory.mktemp("server") / "models.config"
    config.write_text("model_config_list {\n}\n")
    with ServerProcess(config) as process:
        yield process


@pytest.fixture
def lab(repository: Path, exports: Path, server: ServerProcess, tmp_path: Path) -> Iterator[Any]:
    agent_lab = load(repository, "agent_lab")
    lab = agent_lab.Lab(tmp_path)
    lab.initialise()
    (tmp_path / "root.json").write_bytes(lab.root_json)
    (tmp_path / "runs").symlink_to(exports)
    with GrpcModelServer(server.target) as client:
        client.reload((), timeout_seconds=30)
        lab.server.truth = {}
        lab.client = client
        lab.real = lambda **settings: lab.agent(
            server=client, clock=SystemClock(), settings=lab.settings.model_copy(update=settings)
        )
        yield lab


def steps(report: Any) -> list[str]:
    return [step.name for step in report.steps]


def answering(lab: Any) -> int:
    answer = lab.client.predict("shapes", PIXELS, label="stable")
    assert (answer.scores.argmax(axis=1) == answer.version % 3).all()
    return answer.version


def test_forward_back_within_the_bake_time_and_forward_again(lab: Any) -> None:
    agent = lab.real()
    assert agent.tick().outcome == "idle"
    lab.publish(1)
    report = agent.tick()
    assert (report.outcome, report.served, answering(lab)) == ("serving", {"stable": 1}, 1), report
    lab.publish(2)
    report = agent.tick()
    assert (report.served, report.loaded, answering(lab)) == ({"stable": 2}, (1, 2), 2), report
    lab.publish(1, kind="rollback")
    report = agent.tick()
    assert steps(report) == ["ProbeVersion", "MoveLabels", "RecordServing", "Acknowledge"], "no byte pulled or loaded"
    assert answering(lab) == 1
    assert [record.outcome for number in (1, 2, 3) for record in lab.acknowledgements(number)] == ["serving"] * 3


def test_a_rollback_after_the_bake_time_loads_again_and_the_disk_keeps_two(lab: Any) -> None:
    agent = lab.real(bake_seconds=0.0)
    for version in (1, 2, 3):
        lab.publish(version)
        report = agent.tick()
        assert (report.served, report.loaded) == ({"stable": version}, (version,)), report
    assert sorted(path.name for path in lab.model_dir.iterdir() if path.name.isdecimal()) == ["2", "3"]
    lab.publish(2)
    report = agent.tick()
    assert "LoadVersions" in steps(report)
    assert "PullVersion" not in steps(report)
    assert answering(lab) == 2


def test_a_killed_server_comes_back_from_the_agents_file(lab: Any) -> None:
    agent = lab.real()
    for version in (1, 2):
        lab.publish(version)
        agent.tick()
    with ServerProcess(lab.settings.config_path) as process, GrpcModelServer(process.target) as client:
        assert client.predict("shapes", PIXELS, label="stable").version == 2
        process.kill()
        report = lab.agent(server=client, clock=SystemClock()).tick()
        assert (report.outcome, report.exit_code) == ("unreachable", 10)
        process.start()
        # A new connection: the old one pauses for up to a second before it tries again.
        with GrpcModelServer(process.target) as again:
            assert again.predict("shapes", PIXELS, label="stable").version == 2


def test_the_figures_of_the_real_server_are_acknowledged(lab: Any, server: ServerProcess) -> None:
    agent = real_with_memory(lab, server)
    lab.publish(1)
    agent.tick()
    lab.publish(2)
    assert agent.tick().served == {"stable": 2}
    (said,) = lab.acknowledgements(2)
    figures = (
        r"Memory: about \d+ MiB needed, \d+ MiB free of \d+ MiB .*Latency of version 2 against version 1: median \d"
    )
    assert re.search(figures, said.detail), said.detail


def test_a_version_without_room_is_refused_by_what_the_real_process_holds(lab: Any, server: ServerProcess) -> None:
    agent = real_with_memory(lab, server)
    lab.publish(1)
    agent.tick()
    held = ServerMemory(server.target).read().server_bytes
    assert held is not None
    assert held > 50 * 2**20, "a process with TensorFlow"
    lab.publish(2)
    report = real_with_memory(lab, server, memory_limit_bytes=held + 20 * 2**20).tick()
    assert (report.outcome, report.exit_code, answering(lab)) == ("refused", 12, 1)
    assert "(memory_limit_bytes)" in lab.acknowledgements(2)[0].detail


def real_with_memory(lab: Any, server: ServerProcess, **settings: Any) -> Any:
    """The agent that asks the system about the real process."""
    changed = lab.settings.model_copy(update={"server_address": server.target, **settings})
    memory = ServerMemory(server.target, limit_bytes=changed.memory_limit_bytes)
    return lab.agent(server=lab.client, clock=SystemClock(), settings=changed, memory=memory)


def test_a_version_that_answers_otherwise_gets_no_label(lab: Any, exports: Path) -> None:
    agent = lab.real()
    lab.publish(1)
    agent.tick()
    wrong = lab.root / "wrong"
    shutil.copytree(exports / "3", wrong)
    golden = (exports / "2" / GOLDEN_EXAMPLES_PATH).read_bytes()
    (wrong / GOLDEN_EXAMPLES_PATH).write_bytes(golden)
    (lab.root / "runs").unlink()
    (lab.root / "runs").mkdir()
    wrong.rename(lab.root / "runs" / "4")
    (lab.root / "runs" / "1").symlink_to(exports / "1")
    lab.publish(4)
    report = agent.tick()
    assert (report.outcome, report.served, answering(lab)) == ("failed", {"stable": 1}, 1)
    assert "with another first label" in report.detail
    available = {status.version for status in lab.client.status("shapes") if status.state is VersionState.AVAILABLE}
    assert available == {1}


def test_a_version_that_cannot_be_loaded_is_refused_and_the_next_release_is_taken(lab: Any, exports: Path) -> None:
    agent = lab.real()
    lab.publish(1)
    agent.tick()
    (lab.root / "runs").unlink()
    shutil.copytree(exports, lab.root / "runs")
    (lab.root / "runs" / "3" / "saved_model.pb").write_bytes(b"no graph")
    lab.publish(3)
    report = agent.tick()
    assert (report.outcome, report.served, answering(lab)) == ("failed", {"stable": 1}, 1)
    lab.publish(2)
    assert agent.tick().outcome == "serving"
    assert answering(lab) == 2


KILLS = (
    ("before", "PullVersion"),
    ("before", "LoadVersions"),
    ("before", "ProbeVersion"),
    ("before", "MoveLabels"),
    ("after", "MoveLabels"),
    ("after", "RecordServing"),
)


def test_an_agent_killed_around_a_step_leaves_one_version_answering(lab: Any, server: ServerProcess) -> None:
    lab.publish(1)
    version = 1
    lab.real(bake_seconds=0.0).tick()
    for moment, step in KILLS:
        old, version = version, version % 3 + 1
        number = lab.publish(version).number
        arguments = (step, "") if moment == "before" else ("", step)
        child = subprocess.run(
            [sys.executable, "-c", TICK, str(lab.root), server.target, *arguments], check=False, env={**os.environ}
        )
        assert child.returncode == -signal.SIGKILL, (moment, step)
        assert answering(lab) in {old, version}
        report = lab.real(bake_seconds=0.0).tick()
        assert (report.outcome, answering(lab)) == ("serving", version), report
        assert lab.acknowledgements(number)[-1].outcome == "serving"
