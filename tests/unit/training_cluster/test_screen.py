"""What a person reads of a run: table, one line, and nothing that a terminal would obey."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from training_cluster.hosts.gpu import parse_gpus
from training_cluster.hosts.host_report import HostReport
from training_cluster.hosts.screen import host_lines, screen, whole_line
from training_cluster.hosts.watch import HostView


def said(**fields: Any) -> HostReport:
    given: dict[str, Any] = {
        "status": "running",
        "step": 120,
        "total_steps": 500,
        "detail": "",
        "load": 7.5,
        "cores": 16,
    }
    return HostReport.model_validate({**given, **fields})


def chief(**fields: Any) -> HostView:
    figures = {
        "loss": 0.51234,
        "accuracy": 0.8,
        "images_per_second": 12345.6,
        "host_images_per_second": 6172.8,
        "input_wait_share": 0.034,
    }
    gpus = parse_gpus("0, NVIDIA A100, 97, 30000, 81920, 60\n1, NVIDIA A100, 95, 30000, 81920, 61\n")
    report = said(figures=figures, gpus=gpus, steps_per_second=2.0, **fields)
    return HostView("gpu1", report=report, heard_at=100.0, last_line="restored step 100")


def shown(*views: HostView, now: float = 101.0) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(screen(views, run_id="flowers-1", now=now))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_whole_is_one_line_with_the_time_that_is_left() -> None:
    evaluated = chief(evaluation={"step": 100.0, "loss": 0.6, "accuracy": 0.75})

    assert whole_line([evaluated]) == (
        "step 120 of 500 (24 %), loss 0.5123, accuracy 0.8, 12,346 images/s, 0:03:10 left, "
        "evaluated after step 100: loss 0.6 and accuracy 0.75"
    )


def test_a_table_shows_each_hosts_share() -> None:
    text = shown(chief(), HostView("gpu2", report=said(step=119), heard_at=100.0))

    _, header, first, second = (" ".join(line.split()) for line in text.splitlines())
    assert header == "host state step images/s input wait GPU memory GPU use CPU load last line"
    assert first == "gpu1 running 120 6,173 3 % 62.9/172 GB 97 95 % 7.5/16 restored step 100"
    assert second == "gpu2 running 119 - - - - 7.5/16"


def test_a_host_that_does_not_answer_is_shown_so_with_what_it_said_last() -> None:
    silent = HostView("gpu2", report=said(step=90), heard_at=40.0, trouble="Host gpu2 cannot be reached")
    never = HostView("gpu3", trouble="Host gpu3 refuses user trainer")

    text = shown(chief(), silent, never)

    assert "no answer for 0:01:01" in text
    assert "Host gpu3 refuses user trainer" in text
    assert whole_line([chief(), silent, never]).endswith("0:03:10 left; no answer from gpu2, gpu3")
    assert shown(chief(), now=130.0).count("no answer for 0:00:30") == 1


def test_without_a_terminal_each_host_is_a_line() -> None:
    (line,) = host_lines([chief()], now=101.0)

    assert line == (
        "gpu1: running, step 120, images/s 6,173, input wait 3 %, GPU memory 62.9/172 GB, GPU use 97 95 %, "
        "CPU load 7.5/16"
    )


def test_a_run_that_ended_says_how() -> None:
    failed = HostView("gpu1", report=said(status="failed", step=7, total_steps=0, detail="exit code 12"), heard_at=1.0)

    assert whole_line([failed]) == "failed: exit code 12"
    assert whole_line([HostView("gpu1")]) == "waiting for the hosts"


def test_a_terminal_is_not_obeyed_to_what_a_log_says() -> None:
    hostile = HostView("gpu1", report=said(), heard_at=100.0, last_line="\x1b[2Jgone [bold]x[/bold] [/]")

    text = shown(hostile)

    assert "\x1b" not in text
    assert "[bold]x[/bold] [/]" in text
