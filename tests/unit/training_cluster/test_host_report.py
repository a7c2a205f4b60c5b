"""What a host says of itself, from files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifact_sync.run_folder import RunFolder
from training_cluster.hosts import host_report
from training_cluster.hosts.gpu import parse_gpus
from training_cluster.hosts.host_report import HostReport, report
from training_cluster.hosts.launch_folder import LaunchFolder


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_report, "read_gpus", tuple)


def look(folder: Path, *, index: int = 0, log_offset: int | None = None) -> HostReport:
    launch = LaunchFolder(folder / ".launch")
    return report(launch, RunFolder(folder / "run"), index=index, log_offset=log_offset)


def write_progress(folder: Path, *lines: dict[str, object], name: str = "progress.jsonl") -> None:
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / name).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')


def step(number: int, *, second: int, **figures: float) -> dict[str, object]:
    at = f"2026-11-20T06:00:{second:02}Z"
    return {"at": at, "event": "step", "step": number, "total_steps": 50, **figures}


def test_the_newest_figures_and_the_newest_evaluation_are_told_apart(tmp_path: Path) -> None:
    evaluation = {"event": "epoch", "step": 20, "total_steps": 50, "validation_loss": 0.5, "epoch": 2}
    write_progress(tmp_path, step(10, second=0, loss=0.9), evaluation, step(30, second=10, loss=0.4))

    seen = look(tmp_path)

    assert (seen.step, seen.total_steps, seen.figures) == (30, 50, {"loss": 0.4})
    assert seen.evaluation == {"step": 20.0, "loss": 0.5}
    assert seen.steps_per_second == 2.0


def test_another_worker_has_progress_of_its_own(tmp_path: Path) -> None:
    write_progress(tmp_path, step(10, second=0, loss=0.9))
    write_progress(tmp_path, step(11, second=0, host_images_per_second=70.0), name="progress-1.jsonl")

    assert look(tmp_path, index=1).figures == {"host_images_per_second": 70.0}


def test_the_pace_is_that_since_the_training_went_back_to_its_checkpoint(tmp_path: Path) -> None:
    write_progress(tmp_path, step(10, second=0), step(20, second=1), step(11, second=30), step(16, second=40))

    assert look(tmp_path).steps_per_second == 0.5


def test_a_log_is_told_once_in_whole_lines_from_where_it_was_read(tmp_path: Path) -> None:
    launch = LaunchFolder(tmp_path / ".launch")
    launch.path.mkdir()
    launch.log.write_text("one\ntwo\nthr")
    first = look(tmp_path)
    with launch.log.open("a") as log:
        log.write("ee\n")

    assert first.log == ("one", "two")
    assert look(tmp_path, log_offset=first.log_offset).log == ("three",)


def test_a_long_log_is_begun_near_its_end_with_a_whole_line_unless_all_is_asked_for(tmp_path: Path) -> None:
    launch = LaunchFolder(tmp_path / ".launch")
    launch.path.mkdir()
    lines = tuple(f"line {number:06}" for number in range(5000))
    launch.log.write_text("\n".join(lines) + "\n")

    near_end = look(tmp_path).log

    assert 0 < len(near_end) < 1000
    assert near_end == lines[-len(near_end) :]
    assert look(tmp_path, log_offset=0).log == lines


def test_a_log_that_was_removed_begins_anew(tmp_path: Path) -> None:
    launch = LaunchFolder(tmp_path / ".launch")
    launch.path.mkdir()
    launch.log.write_text("new\n")

    assert look(tmp_path, log_offset=1_000_000).log == ("new",)


def test_a_run_that_was_never_started_is_absent(tmp_path: Path) -> None:
    seen = look(tmp_path)

    assert (seen.status, seen.step, seen.figures, seen.log) == ("absent", 0, {}, ())


def test_what_a_driver_does_not_know_is_missing() -> None:
    figures = parse_gpus("0, Tesla T4, [N/A], 1200, 15360, 44\nNVIDIA-SMI has failed\n")

    assert [(gpu.name, gpu.use_percent, gpu.memory_used_megabytes) for gpu in figures] == [("Tesla T4", None, 1200.0)]
