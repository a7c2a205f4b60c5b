"""Progress lines: in the file and on stdout, also after a killed writer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from artifact_sync.clock import ManualClock
from training_cluster.training.progress import ProgressLog


def _log(directory: Path) -> ProgressLog:
    return ProgressLog(directory, clock=ManualClock(datetime(2026, 11, 20, 6, tzinfo=UTC)), total_steps=100)


def test_a_line_has_time_event_step_and_figures_in_the_file_and_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _log(tmp_path).write("step", step=20, loss=0.123456789, epoch=1)
    expected = {
        "at": "2026-11-20T06:00:00Z",
        "event": "step",
        "step": 20,
        "total_steps": 100,
        "loss": 0.123457,
        "epoch": 1,
    }
    assert json.loads((tmp_path / "progress.jsonl").read_text()) == expected
    assert json.loads(capsys.readouterr().out) == expected


def test_a_half_line_of_a_killed_trainer_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"event": "st')
    _log(tmp_path).write("resumed", step=3)
    lines = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert lines[0] == '{"event": "st'
    assert json.loads(lines[1])["event"] == "resumed"


def test_each_worker_has_a_file_and_a_full_disk_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = ManualClock(datetime(2026, 11, 20, 6, tzinfo=UTC))
    log = ProgressLog(tmp_path, clock=clock, total_steps=100, index=2)
    log.write("step", step=20)
    assert [path.name for path in tmp_path.iterdir()] == ["progress-2.jsonl"]
    (tmp_path / "progress-2.jsonl").unlink()
    # Writing there fails with ENOSPC.
    (tmp_path / "progress-2.jsonl").symlink_to("/dev/full")
    log.write("step", step=40)
    assert [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()] == [20, 40]
