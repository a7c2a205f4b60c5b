"""What a training host says of itself and of its worker: one line of JSON every few seconds.

Its place in the flow: `watch` runs this module on every host of a run and reads its lines. It ends when
its input ends, which a broken connection brings about, so nothing of it is left on a host.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingStatus
from training_cluster.hosts.gpu import GpuFigures, read_gpus
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import observe

_TAIL_BYTES = 65536
_FIRST_LOG_BYTES = 8192
_LOG_BYTES = 262144
_PACE_LINES = 20
_NOT_FIGURES = ("at", "event", "step", "total_steps")
_VALIDATION = "validation_"


class HostReport(BaseModel):
    """One host of a run now.

    Attributes:
        status: how this host's part of the run stands.
        detail: one sentence for people.
        figures: the newest training figures that this host's worker wrote.
        evaluation: the newest figures over the validation examples, with the `step` they belong to.
        steps_per_second: over the last lines of progress, 0 when it is not known.
        load: processes that wanted a core, mean of the last minute.
        log: lines that were added since the last report.
        log_offset: where in the log the next report goes on.
    """

    # A host may run a newer release than the machine that looks.
    model_config = ConfigDict(frozen=True, extra="ignore")

    status: TrainingStatus
    step: int
    total_steps: int
    detail: str
    figures: Mapping[str, float] = {}
    evaluation: Mapping[str, float] = {}
    steps_per_second: float = 0.0
    gpus: tuple[GpuFigures, ...] = ()
    load: float = 0.0
    cores: int = 1
    log: tuple[str, ...] = ()
    log_offset: int = 0


def report(launch: LaunchFolder, run: RunFolder, *, index: int, log_offset: int | None) -> HostReport:
    """Look once at this machine's part of a run; `log_offset` None begins near the end of the log."""
    state = observe(launch, run, index=index)
    lines = _progress_lines(run.path / ("progress.jsonl" if index == 0 else f"progress-{index}.jsonl"))
    last = lines[-1] if lines else {}
    steps = _newest_stretch([line for line in lines if line.get("event") == "step"])
    evaluations = [line for line in lines if any(key.startswith(_VALIDATION) for key in line)]
    log, offset = _read_log(launch.log, log_offset)
    return HostReport(
        status=state.status,
        step=_whole(last.get("step"), otherwise=state.step),
        total_steps=_whole(last.get("total_steps"), otherwise=state.total_steps),
        detail=state.detail,
        figures=_figures(steps[-1]) if steps else {},
        evaluation=_evaluation(evaluations[-1]) if evaluations else {},
        steps_per_second=_pace(steps),
        gpus=read_gpus(),
        load=os.getloadavg()[0],
        cores=os.cpu_count() or 1,
        log=log,
        log_offset=offset,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print reports until the input ends or nobody reads them."""
    parser = argparse.ArgumentParser(prog="python -m training_cluster.hosts.host_report")
    parser.add_argument("--launch-dir", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--log-offset", type=int)
    parser.add_argument("--every-seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    launch, run, offset = LaunchFolder(options.launch_dir), RunFolder(options.run_dir), options.log_offset
    while True:
        now = report(launch, run, index=options.index, log_offset=offset)
        offset = now.log_offset
        try:
            sys.stdout.write(now.model_dump_json() + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if _input_ends_within(options.every_seconds):
            return 0


def _input_ends_within(seconds: float) -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 4096)


def _progress_lines(path: Path) -> list[dict[str, Any]]:
    """Return the last lines of a progress file that are whole."""
    lines = []
    for text in _tail(path, _TAIL_BYTES).split(b"\n")[:-1]:
        try:
            line = json.loads(text)
        except ValueError:
            # The first one of the tail is cut, or a killed trainer left half of one.
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _tail(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - most))
            return stream.read()
    except FileNotFoundError:
        return b""


def _newest_stretch(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last lines in which the steps ascend: a training that resumed goes back a little."""
    stretch: list[dict[str, Any]] = []
    for line in lines:
        if stretch and _whole(line.get("step"), otherwise=0) <= _whole(stretch[-1].get("step"), otherwise=0):
            stretch = []
        stretch.append(line)
    return stretch


def _pace(steps: Sequence[dict[str, Any]]) -> float:
    """Return the steps per second over the last lines' own times, which are whole seconds."""
    try:
        first, last = steps[-_PACE_LINES:][0], steps[-1]
        seconds = (datetime.fromisoformat(last["at"]) - datetime.fromisoformat(first["at"])).total_seconds()
        return float(last["step"] - first["step"]) / seconds
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0.0


def _figures(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in line.items()
        if name not in _NOT_FIGURES and isinstance(value, int | float) and math.isfinite(value)
    }


def _evaluation(line: Mapping[str, Any]) -> dict[str, float]:
    found = {name.removeprefix(_VALIDATION): value for name, value in _figures(line).items() if _VALIDATION in name}
    return {"step": float(_whole(line.get("step"), otherwise=0)), **found}


def _whole(value: object, *, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _read_log(path: Path, offset: int | None) -> tuple[tuple[str, ...], int]:
    """Return the whole lines after `offset`, and where to go on."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = max(0, size - _FIRST_LOG_BYTES) if offset is None else offset
            # A log that was removed begins anew.
            start = start if start <= size else 0
            stream.seek(start)
            if offset is None and start:
                start += len(stream.readline())
            data = stream.read(_LOG_BYTES)
    except FileNotFoundError:
        return (), 0
    # A line that fills the whole piece is told in pieces, else it would never be told.
    end = len(data) if len(data) == _LOG_BYTES and b"\n" not in data else data.rfind(b"\n") + 1
    text = data[:end].decode(errors="replace")
    return tuple(line.rstrip("\r") for line in text.split("\n") if line), start + end


if __name__ == "__main__":
    sys.exit(main())
