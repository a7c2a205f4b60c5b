"""What happens to a training besides steps: early ends, full disks, wishes, answers that are no numbers."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from artifact_sync.clock import SystemClock
from artifact_sync.errors import CapacityError, TrainingError
from liftgate.commands.evaluate import command as evaluate
from training_cluster.config.training_config import TrainingConfig
from training_cluster.trainer import TrainingTask, train
from training_cluster.training.checkpoint import Arrays, CheckpointFolder
from training_cluster.training.failures import PeerLostError, explained
from training_cluster.training.interruption import Interruption
from training_cluster.training.predictor import Predictor


class _AfterLooks(Interruption):
    """Asks for an end when it was looked at so often."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def is_requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    @is_requested.setter
    def is_requested(self, value: bool) -> None:
        del value


def _train(training: Any, run_id: str, interruption: Interruption | None = None) -> bool:
    task = TrainingTask(
        training.folder(run_id).path, run_id, "digits", training.config_path, str(training.data_dir), "ada"
    )
    return train(task, clock=SystemClock(), interruption=interruption or Interruption())


def _lines(training: Any, run_id: str, event: str) -> list[dict[str, Any]]:
    text = (training.folder(run_id).path / "progress.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def _newest(training: Any, run_id: str) -> Path:
    newest: Path = sorted(training.folder(run_id).checkpoints.glob("step-*"))[-1]
    return newest


def test_the_best_weights_are_exported_when_the_loss_gets_no_better_also_after_interruptions(
    training: Any, training_lab: Any
) -> None:
    wild = "epochs = 15\nearly_stopping_epochs = 2\noptimizer = 'sgd'\nmomentum = 0.0\nschedule = 'constant'"
    training.config_path.write_text(training_lab.QUICK.replace("epochs = 2", wild).replace("5e-3", "1.5"))
    assert _train(training, "peace")
    (ended,) = _lines(training, "peace", "ended-early")
    losses = {line["step"]: line["validation_loss"] for line in _lines(training, "peace", "epoch")}
    run = training.folder("peace").read_run()
    assert ended["step"] == ended["best_step"] + 40 == max(losses)
    assert run.metrics["exported_step"] == ended["best_step"] == min(losses, key=lambda step: losses[step])
    assert run.metrics["validation_loss"] == pytest.approx(min(losses.values()), rel=1e-5)

    # In the middle of an epoch, then between two parts of an evaluation: one look at the start, one for each step.
    assert not _train(training, "unrest", _AfterLooks(28))
    assert not _train(training, "unrest", _AfterLooks(14))
    steps = [line["step"] for line in _lines(training, "unrest", "interrupted")]
    assert steps == [26, 40]
    assert _train(training, "unrest")
    assert _newest(training, "unrest").read_bytes() == _newest(training, "peace").read_bytes()
    assert training.folder("unrest").read_run().metrics["validation_loss"] == run.metrics["validation_loss"]


def test_a_full_disk_costs_checkpoints_and_charts_but_not_the_training_unless_it_stays_full(
    training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = training.folder("full")
    folder.path.mkdir(parents=True)
    folder.events.write_bytes(b"in the way of the charts")
    save, full_at = CheckpointFolder.save, {14}

    def sometimes(self: CheckpointFolder, arrays: Arrays, *, step: int, **others: Any) -> Path:
        if step in full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, arrays, step=step, **others)

    monkeypatch.setattr(CheckpointFolder, "save", sometimes)
    full_at |= {28, 35}
    assert not _train(training, "full")
    warnings = [line["detail"] for line in _lines(training, "full", "warning")]
    assert "charts are given up" in warnings[0]
    assert [text for text in warnings if "could not be written" in text] == [
        f"the checkpoint of step {step} could not be written to {folder.checkpoints}: No space left on device. "
        "The one before stands, and the next is tried."
        for step in (14, 28, 35, 35)
    ]
    assert _newest(training, "full").name == "step-0000000021.checkpoint"
    full_at.clear()
    assert _train(training, "full")
    assert _lines(training, "full", "resumed")[0]["step"] == 21


def test_wishes_are_fulfilled_while_it_trains(training: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = training.folder("wished")
    folder.control.mkdir(parents=True)
    (folder.control / "profile").write_text("2")
    (folder.control / "histograms").touch()
    assert _train(training, "wished")
    assert list(folder.control.iterdir()) == []
    assert list((folder.events / "train" / "plugins" / "profile").rglob("*.xplane.pb"))
    notes = [line["detail"] for line in _lines(training, "wished", "note")]
    assert len(notes) == 2
    events = EventAccumulator(str(folder.events / "train"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {tag.partition("/")[0] for tag in tags} >= {"weights", "gradients", "input_wait_share"}
    assert "_hparams_/session_start_info" in tags
    assert events.Graph() is not None
    run = folder.read_run()
    shares = {"checkpoint_share", "input_wait_share"}
    assert all(0 <= run.metrics[name] <= 1 for name in shares)
    assert run.metrics["checkpoint_seconds_mean"] > 0
    assert run.metrics["first_step_seconds"] > 0
    assert _lines(training, "wished", "distribution")[0]["examples_per_epoch"] == 320


def test_a_checkpoint_is_evaluated_beside_the_training_as_the_training_does(training: Any, tmp_path: Path) -> None:
    assert not _train(training, "beside", _AfterLooks(24))
    folder = training.folder("beside")
    (epoch,) = _lines(training, "beside", "epoch")
    settings = tmp_path / "liftgate.toml"
    settings.write_text(
        f"model = 'digits'\n[training]\nruns_dir = '{training.runs_dir}'\ndata_dir = '{training.data_dir}'\n"
    )
    newest = _newest(training, "beside")
    newest.rename(newest.with_suffix(".away"))

    def found(*options: str) -> dict[str, Any]:
        done = CliRunner().invoke(evaluate, ["beside", "--json", *options], obj=settings, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    before = found()
    assert before["step"] == 21
    newest.with_suffix(".away").rename(newest)
    assert _train(training, "beside")
    at_the_end = found("--watch")
    assert at_the_end["step"] == 40
    assert at_the_end["loss"] == folder.read_run().metrics["validation_loss"]
    assert at_the_end["examples"] == sum(figures["examples"] for figures in at_the_end["classes"].values()) == 359
    assert np.trace(at_the_end["confusion"]) == round(at_the_end["accuracy"] * 359)
    assert sorted(path.name for path in folder.evaluations.iterdir()) == ["step-21.json", "step-40.json"]
    assert list((folder.events / "evaluation").iterdir())
    assert epoch["step"] == 20


def test_answers_that_are_no_numbers_end_the_run_without_a_candidate(
    training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Predictor.answers

    def no_numbers(self: Predictor, batches: Any) -> Any:
        return ((logits * np.nan, labels) for logits, labels in answers(self, batches))

    monkeypatch.setattr(Predictor, "answers", no_numbers)
    with pytest.raises(TrainingError, match=r"the validation loss is nan after step 20 of 40.*no candidate"):
        _train(training, "no-number")
    assert not training.folder("no-number").export.exists()


@pytest.mark.parametrize(
    ("error", "workers", "kind", "said"),
    [
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating on /device:GPU:0 by allocator GPU_0_bfc"),
            *(1, TrainingError, "a GPU has too little memory for batches of 128.*Lower optimization.batch_size"),
        ),
        (MemoryError(), 1, TrainingError, "this machine has too little memory.*Lower data.shuffle_megabytes"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 1, CapacityError, "at /runs/x. Make room"),
        (OSError(errno.EACCES, "Permission denied"), 1, PermissionError, "Permission denied"),
        (
            tf.errors.UnavailableError(None, None, "node\n\nCollective ops is aborted by: Connection reset by peer"),
            *(2, PeerLostError, r"another of the 2 workers ended.*\(Collective ops is aborted by: Connection reset"),
        ),
        (
            tf.errors.UnavailableError(None, None, "from task:0: these are unhealthy:\n/job:w/replica:0/task:1\n"),
            *(2, PeerLostError, r"\(worker 1: from task:0: these are unhealthy"),
        ),
        (tf.errors.CancelledError(None, None, ""), 2, PeerLostError, r"\(no reason given\)"),
        (tf.errors.UnavailableError(None, None, "alone"), 1, tf.errors.UnavailableError, "alone"),
        (tf.errors.InvalidArgumentError(None, None, "shape"), 2, tf.errors.InvalidArgumentError, "shape"),
    ],
)
def test_tensorflows_errors_are_told_in_words(error: Exception, workers: int, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said), explained(TrainingConfig(), workers=workers):
        raise error
