"""Training real digits in this process: accuracy, records, events, repetition and refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact_sync.clock import ManualClock, SystemClock
from artifact_sync.errors import IntegrityError, RefusedError, TrainingError
from artifact_sync.manifest import verify_manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.trainer import TrainingTask, main, train
from training_cluster.training.interruption import Interruption

_GOOD = """
[model]
widths = [16, 32]
dense_units = 64
[optimization]
epochs = 12
batch_size = 32
learning_rate = 3e-3
warmup_share = 0.1
[data]
validation_share = 0.2
"""


def _task(training: Any, run_id: str, config: str | None = None) -> TrainingTask:
    if config is not None:
        training.config_path.write_text(config)
    path = training.folder(run_id).path
    return TrainingTask(path, run_id, "digits", training.config_path, str(training.data_dir), "ada")


def _train(task: TrainingTask) -> bool:
    return train(task, clock=SystemClock(), interruption=Interruption())


def _contents(folder: RunFolder) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.path.rglob("*")}


def test_a_run_learns_the_digits_and_describes_itself(training: Any) -> None:
    task = _task(training, "good", _GOOD)
    assert _train(task)
    folder = training.folder("good")
    run = folder.read_run()
    assert run.metrics["validation_accuracy"] >= 0.95, run.metrics
    assert run.metrics["export_parity_difference"] <= 1e-4
    assert (run.run_id, run.model, run.trained_by, run.labels[3]) == ("good", "digits", "ada", "3")
    assert run.config["optimization"]["epochs"] == 12
    assert run.config["execution"]["seed"] == run.seed == 1
    assert run.environment["keras"]
    assert run.environment["onednn"]
    assert {"intra_op_threads", "inter_op_threads", "workers"} <= run.environment.keys()
    verify_manifest(folder.export, folder.read_manifest())
    lines = [json.loads(line) for line in (folder.path / "progress.jsonl").read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["started", "complete"]
    assert lines[-1]["step"] == lines[-1]["total_steps"] == run.metrics["steps"]

    before = _contents(folder)
    assert _train(task)
    assert _contents(folder) == before


def test_tensorboard_finds_scalars_pictures_and_the_configuration(training: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    assert _train(_task(training, "seen"))
    events = {}
    for part in ("train", "validation"):
        events[part] = EventAccumulator(str(training.folder("seen").events / part))
        events[part].Reload()
    assert {"loss", "accuracy", "learning_rate", "images_per_second", "configuration"} <= set(
        events["train"].Tags()["tensors"]
    )
    rates = [float(make_ndarray(event.tensor_proto)) for event in events["train"].Tensors("learning_rate")]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 10 * rates[-1]
    assert {"loss", "accuracy", "confusion matrix", "most confident mistakes"} <= set(
        events["validation"].Tags()["tensors"]
    )
    (picture, *_) = events["validation"].Tensors("confusion matrix")
    assert make_ndarray(picture.tensor_proto)[2].startswith(b"\x89PNG")


def test_a_run_that_was_cut_off_while_exporting_is_finished_without_training_again(training: Any) -> None:
    task = _task(training, "cut")
    assert _train(task)
    folder = training.folder("cut")
    weights = next((folder.export / "variables").glob("variables.data*")).read_bytes()
    folder.manifest_json.unlink()
    folder.run_json.unlink()
    next((folder.export / "variables").glob("variables.data*")).write_bytes(b"half")
    assert _train(task)
    verify_manifest(folder.export, folder.read_manifest())
    assert next((folder.export / "variables").glob("variables.data*")).read_bytes() == weights
    events = [json.loads(line) for line in (folder.path / "progress.jsonl").read_text().splitlines()]
    resumed = [line["event"] for line in events].index("resumed")
    assert "step" not in [line["event"] for line in events[resumed:]]


def test_a_loss_that_is_no_number_ends_the_run_without_a_candidate(training: Any) -> None:
    wild = "[optimization]\nepochs = 3\nbatch_size = 32\noptimizer = 'sgd'\nlearning_rate = 1e38\n"
    task = _task(training, "wild", wild)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf).*no candidate is written"):
        _train(task)
    folder = training.folder("wild")
    assert not folder.is_complete
    assert not folder.export.exists()
    assert not list(folder.path.glob("checkpoints/*.checkpoint"))


def test_a_run_does_not_go_on_with_another_configuration(training: Any) -> None:
    assert _train(_task(training, "bound"))
    training.folder("bound").manifest_json.unlink()
    with pytest.raises(RefusedError, match="with another config"):
        _train(_task(training, "bound", _GOOD))


def test_changed_shards_are_refused_before_anything_is_trained(
    training: Any, training_lab: Any, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    manifest = training_lab.write_dataset(
        damaged, np.zeros((50, 8, 8, 1), np.uint8), np.arange(50) % 10, labels=tuple("0123456789")
    )
    shard = damaged / manifest.shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    task = TrainingTask(tmp_path / "run", "run", "digits", training.config_path, str(damaged), "ada")
    with pytest.raises(IntegrityError, match="is not what its manifest says"):
        _train(task)
    assert not (tmp_path / "run").exists()


def test_batch_normalisation_resumes_bit_for_bit_too(training: Any, training_lab: Any) -> None:
    config = training_lab.QUICK.replace("small-cnn", "small-cnn-batchnorm")
    assert _train(_task(training, "peace", config))

    class AfterSomeSteps(Interruption):
        """Asks for an end when it was looked at often enough."""

        looks = 0

        @property
        def is_requested(self) -> bool:
            self.looks += 1
            return self.looks > 11

        @is_requested.setter
        def is_requested(self, value: bool) -> None:
            del value

    task = _task(training, "unrest", config)
    clock = ManualClock(datetime(2026, 11, 20, tzinfo=UTC))
    assert not train(task, clock=clock, interruption=AfterSomeSteps())
    assert _train(task)
    checkpoints = [
        sorted((training.folder(run_id).path / "checkpoints").iterdir())[-1].read_bytes()
        for run_id in ("peace", "unrest")
    ]
    assert checkpoints[0] == checkpoints[1]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("--config", "none.toml"), 2, "there is no configuration none.toml"),
        (("--data", "none"), 4, "There is no dataset in none"),
        (("--run-id", "other"), 9, "run other cannot lie in"),
        (("--run-id", "R"), 2, "'R' cannot name a run"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_with_the_exit_code_of_the_error(
    training: Any, capsys: pytest.CaptureFixture[str], change: tuple[str, str], code: int, said: str
) -> None:
    arguments = training.command("refused")[3:]
    arguments[arguments.index(change[0]) + 1] = change[1]
    assert main(arguments) == code
    assert said in capsys.readouterr().err
