"""Two workers that train one model together, as two processes on this machine, each with a disk of its own."""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.clock import SystemClock
from artifact_sync.errors import SettingsError
from training_cluster.trainer import TrainingTask, train
from training_cluster.training.interruption import Interruption


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listening.getsockname()[1] for listening in sockets]


class _Pair:
    """A chief and a second worker, each with a runs folder of its own: neither sees the other's checkpoints."""

    def __init__(self, training: Any, training_lab: Any) -> None:
        folders = [training.runs_dir / f"disk-{index}" for index in (0, 1)]
        self.own = [training_lab.Training(training.data_dir, training.config_path, folder) for folder in folders]

    def start(self, run_id: str) -> tuple[Any, Any]:
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
        tf_configs = [
            json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
            for index in (0, 1)
        ]
        chief, second = (self.own[index].spawn(run_id, TF_CONFIG=tf_configs[index]) for index in (0, 1))
        return chief, second

    def checkpoint(self, run_id: str, index: int) -> Path:
        newest: Path = sorted(self.own[index].folder(run_id).checkpoints.glob("step-*"))[-1]
        return newest


def _wait_for_step(process: Any, step: int) -> None:
    for line in process.stdout:
        if json.loads(line)["step"] >= step:
            return
    raise AssertionError(process.stderr.read())


def _ended(*processes: Any) -> list[tuple[int, list[dict[str, Any]], str]]:
    said = [process.communicate() for process in processes]
    return [
        (process.returncode, [json.loads(line) for line in out.splitlines()], error)
        for process, (out, error) in zip(processes, said, strict=True)
    ]


def test_two_workers_survive_the_loss_of_one_and_of_the_chiefs_disk_and_end_bit_for_bit_as_two_left_in_peace(
    training: Any, training_lab: Any, tmp_path: Path
) -> None:
    training.config_path.write_text(training_lab.QUICK + "threads = 1\n")
    pair = _Pair(training, training_lab)
    peace = _ended(*pair.start("peace"))
    assert [code for code, *_ in peace] == [0, 0], peace

    # The second worker is killed: the chief ends, and says what to do.
    chief, second = pair.start("unrest")
    _wait_for_step(chief, 10)
    second.kill()
    (code, _, error), _ = _ended(chief, second)
    assert code == 76, error
    assert "another of the 2 workers ended, hangs or cannot be reached" in error
    assert pair.checkpoint("unrest", 0).read_bytes() == pair.checkpoint("unrest", 1).read_bytes()

    # The chief's disk is lost: the second worker's checkpoint is what both go on from.
    shutil.rmtree(pair.own[0].folder("unrest").path)
    chief, second = pair.start("unrest")
    _wait_for_step(chief, 15)
    second.terminate()
    second.terminate()
    (code, said, error), (code_of_second, said_of_second, _) = _ended(chief, second)
    assert (code, code_of_second) == (75, 75), error
    assert said[-1]["event"] == said_of_second[-1]["event"] == "interrupted"
    stopped_at = said[-1]["step"]
    halfway = tmp_path / "alone" / "unrest"
    shutil.copytree(pair.own[0].folder("unrest").path, halfway)

    resumed, resumed_second = _ended(*pair.start("unrest"))
    assert (resumed[0], resumed_second[0]) == (0, 0), resumed[2]
    assert (resumed[1][0]["event"], resumed[1][0]["step"]) == ("resumed", stopped_at)
    assert len({pair.checkpoint(run_id, index).read_bytes() for run_id in ("peace", "unrest") for index in (0, 1)}) == 1
    run = pair.own[0].folder("unrest").read_run()
    assert run.environment["workers"] == "2"
    assert run.metrics["steps"] == 40
    of_peace = pair.own[0].folder("peace").read_run().metrics
    assert run.metrics["validation_loss"] == of_peace["validation_loss"]
    # Both tell how they do, the chief of the whole.
    figures = {"host_images_per_second", "input_wait_share", "images_per_second", "loss"}
    for _, lines, _ in (resumed, resumed_second):
        assert figures <= next(line for line in lines if line["event"] == "step").keys()
    assert (pair.own[1].folder("unrest").path / "progress-1.jsonl").is_file()
    assert not pair.own[1].folder("unrest").run_json.exists()

    # One worker alone goes on with what is left of the epoch.
    alone = training_lab.Training(training.data_dir, training.config_path, halfway.parent).execute("unrest")
    assert alone.returncode == 0, alone.stderr
    lines = [json.loads(line) for line in (halfway / "progress.jsonl").read_text().splitlines()]
    assert next(line for line in reversed(lines) if line["event"] == "resumed")["step"] == stopped_at
    assert lines[-1]["step"] == 40


@pytest.mark.parametrize(
    ("tf_config", "spread", "said"),
    [
        ("", "hosts", "TF_CONFIG names none"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 0}}', "host", "over one host, and TF_CONFIG names"),
        ('{"cluster": ["a:1"]}', "hosts", "TF_CONFIG is not of the form"),
    ],
)
def test_a_spread_that_is_not_what_tf_config_says_is_refused(
    training: Any, monkeypatch: pytest.MonkeyPatch, tf_config: str, spread: Any, said: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config)
    task = TrainingTask(
        *(training.folder("run").path, "run", "digits", training.config_path, str(training.data_dir), "ada", spread)
    )
    with pytest.raises(SettingsError, match=said):
        train(task, clock=SystemClock(), interruption=Interruption())
