"""Following a run and what `liftgate train` refuses; the run is files and a held lock, so nothing has to train."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner, Result

from artifact_sync.durable import write_durably
from artifact_sync.errors import LiftgateError
from liftgate import run_following
from liftgate.commands.train import command
from liftgate.run_following import follow
from training_cluster.cluster import Cluster, TrainingRequest, TrainingState
from training_cluster.hosts.attachment import AttachedHost, Attachment, attachment_path
from training_cluster.hosts.local_cluster import LocalCluster


@pytest.fixture
def request_training(tmp_path: Path) -> TrainingRequest:
    """A run of this machine that was started."""
    runs, launch = tmp_path / "runs", tmp_path / "runs" / ".launch" / "run-1"
    host = AttachedHost(
        name="here",
        connection="local",
        python="python3",
        app_dir=PurePosixPath("/"),
        launch_dir=PurePosixPath(launch),
        run_dir=PurePosixPath(runs / "run-1"),
    )
    (runs / "run-1").mkdir(parents=True)
    write_durably(attachment_path(runs, "run-1"), Attachment.of("run-1", (host,)).model_dump_json().encode())
    (launch / "log").write_text("began\n\x1b[31mred\n")
    (launch / "lock").touch()
    return TrainingRequest("run-1", "digits", tmp_path / "t.toml", str(tmp_path), runs, "ann")


@contextmanager
def training(request: TrainingRequest, *, until: threading.Event, exit_code: int) -> Iterator[None]:
    """Hold the run's lock as a supervisor does, write a step, and end when told to."""
    launch = attachment_path(request.runs_dir, request.run_id).parent
    line = {"at": "2026-11-20T06:00:00Z", "event": "step", "step": 7, "total_steps": 50, "loss": 0.25}
    (request.run_folder.path / "progress.jsonl").write_text(json.dumps(line) + "\n")
    descriptor = os.open(launch / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def end() -> None:
        until.wait(60)
        (launch / "exit_code").write_text(f"{exit_code}\n")
        os.close(descriptor)

    thread = threading.Thread(target=end)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(("logs", "said"), [(False, "  step 7 of 50 (14 %), loss 0.25"), (True, "here | \\x1b[31mred")])
def test_a_run_is_followed_to_its_end(
    request_training: TrainingRequest, monkeypatch: pytest.MonkeyPatch, *, logs: bool, said: str
) -> None:
    is_said = threading.Event()
    monkeypatch.setattr(run_following, "say", lambda text: is_said.set() if text == said else None)

    with training(request_training, until=is_said, exit_code=75):
        state = follow(LocalCluster(), request_training, logs=logs)

    assert is_said.is_set()
    assert (state.status, state.step) == ("interrupted", 7)


def test_ctrl_c_ends_the_looking_and_says_how_to_look_again(
    request_training: TrainingRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    class Pressed:
        def state(self, _request: TrainingRequest) -> TrainingState:
            raise KeyboardInterrupt

    cluster: Cluster = Pressed()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        follow(cluster, request_training)

    assert "Run run-1 goes on; `liftgate train --attach run-1` shows it again." in capsys.readouterr().err


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "liftgate.toml").write_text('model = "digits"\n[training]\n')

    def run(*words: str) -> Result:
        return CliRunner().invoke(command, list(words), obj=tmp_path / "liftgate.toml")

    return run


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--stop",), "Which run is --stop for?"),
        (("--run-id", "run-1", "--attach", "run-1"), "give one of them"),
        (("--attach", "run-1", "--kill", "--profile", "5"), "--profile and --kill are two things"),
        (("--attach", "run-1", "--data", "x", "--on", "hosts"), "--data, --on changes nothing of a run"),
        (("--run-id", "run-1", "--workers", "2"), "give --on hosts with it"),
        (("--attach", "other", "--kill"), "run other was never started"),
        (("--attach", "other"), "There is nothing to show"),
        (("--attach", "run-1", "--histograms"), "run run-1 is not running here"),
    ],
)
@pytest.mark.usefixtures("request_training")
def test_what_cannot_be_meant_is_refused(train: Callable[..., Result], words: tuple[str, ...], reason: str) -> None:
    error = train(*words).exception

    assert isinstance(error, LiftgateError)
    assert reason in str(error)


@pytest.mark.usefixtures("request_training")
def test_a_run_that_was_interrupted_is_shown_with_the_exit_code_that_says_so(train: Callable[..., Result]) -> None:
    shown = train("--attach", "run-1")

    assert shown.exit_code == 75
    assert "Run run-1 is interrupted: killed, or its machine went down" in shown.output
