"""SIGTERM, kill -9 and a second trainer: a run goes on, and ends with the very bits of one left in peace."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.clock import ManualClock
from artifact_sync.errors import RefusedError
from training_cluster.trainer import TrainingTask, train
from training_cluster.training.checkpoint import read_checkpoint
from training_cluster.training.interruption import Interruption

_SEED = 20261120


def _newest_checkpoint(folder: Any) -> Path:
    return sorted((folder.path / "checkpoints").glob("*.checkpoint"))[-1]


def _export_bytes(folder: Any) -> dict[str, bytes]:
    # saved_model.pb holds names that TensorFlow numbers anew in each process; weights and scores are what counts.
    kept = ("variables/variables.data-00000-of-00001", "assets.extra/golden_examples.json")
    return {name: (folder.export / name).read_bytes() for name in kept}


def _wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["step"] >= step:
            return
    raise AssertionError(f"the trainer ended before step {step}")


def test_a_run_that_is_stopped_and_killed_ends_bit_for_bit_as_one_left_in_peace(training: Any) -> None:
    peaceful = training.spawn("peace")
    chance = random.Random(_SEED)
    folder = training.folder("unrest")

    stopped = training.spawn("unrest")
    _wait_for_step(stopped, chance.randrange(5, 14))
    stopped.terminate()
    last = json.loads(stopped.communicate()[0].splitlines()[-1])
    assert (stopped.returncode, last["event"]) == (75, "interrupted")
    assert read_checkpoint(_newest_checkpoint(folder)).step == last["step"]
    assert not folder.is_complete

    killed = training.spawn("unrest")
    _wait_for_step(killed, chance.randrange(20, 30))
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL

    finished = training.execute("unrest")
    assert finished.returncode == 0, finished.stderr
    peaceful.communicate()
    peace = training.folder("peace")
    print(
        f"seed {_SEED}: stopped at step {last['step']}, resumed {[json.loads(finished.stdout.splitlines()[0])['step']]}"
    )
    assert _newest_checkpoint(folder).read_bytes() == _newest_checkpoint(peace).read_bytes()
    assert _export_bytes(folder) == _export_bytes(peace)
    assert folder.read_run().metrics["validation_loss"] == peace.read_run().metrics["validation_loss"]


def test_a_second_trainer_of_the_same_run_is_refused(training: Any) -> None:
    folder = training.folder("shared")
    folder.path.mkdir(parents=True)
    first = os.open(folder.path / ".trainer-0.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    task = TrainingTask(folder.path, "shared", "digits", training.config_path, str(training.data_dir), "ada")
    clock = ManualClock(datetime(2026, 11, 20, tzinfo=UTC))
    try:
        with pytest.raises(RefusedError, match="another process trains run shared"):
            train(task, clock=clock, interruption=Interruption())
    finally:
        os.close(first)
    assert sorted(path.name for path in folder.path.iterdir()) == [".trainer-0.lock"]


def test_a_step_that_hangs_does_not_keep_the_one_who_asked_waiting() -> None:
    # The main thread is stuck where Python runs no handler, as in a TensorFlow that waits for a lost host.
    program = (
        "import ctypes, os, signal, threading\n"
        "from training_cluster.training.interruption import Interruption\n"
        "with Interruption(patience_seconds=0.1).listening():\n"
        "    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    ctypes.CDLL(None).pthread_mutex_lock(mutex := ctypes.create_string_buffer(64))\n"
        "    ctypes.CDLL(None).pthread_mutex_lock(mutex)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 75, done.stderr
    assert "goes on from the checkpoint before" in done.stderr
