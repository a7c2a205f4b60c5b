"""What the GPUs of this machine are doing, as nvidia-smi says it.

Its place in the flow: `host_report` adds these figures to what a training host says of itself. A machine
without a GPU has none, and one whose driver hangs must not keep the rest from being told.
"""

from __future__ import annotations

import csv
import shutil
import subprocess

from artifact_sync.canonical import FrozenModel

_QUERY = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu"
_DRIVER_SECONDS = 10.0


class GpuFigures(FrozenModel):
    """One GPU now; a figure that the driver does not give is None."""

    index: int
    name: str
    use_percent: float | None = None
    memory_used_megabytes: float | None = None
    memory_total_megabytes: float | None = None
    temperature_celsius: float | None = None


def read_gpus() -> tuple[GpuFigures, ...]:
    """Return the GPUs of this machine; none when there is no driver or it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> tuple[GpuFigures, ...]:
    """Return the GPUs that nvidia-smi's table of comma-separated values lists; other lines are passed over."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(_QUERY.split(",")) or not row[0].isdigit():
            continue
        use, used, total, temperature = (_number(cell) for cell in row[2:])
        found.append(
            GpuFigures(
                index=int(row[0]),
                name=row[1],
                use_percent=use,
                memory_used_megabytes=used,
                memory_total_megabytes=total,
                temperature_celsius=temperature,
            )
        )
    return tuple(found)


def _number(cell: str) -> float | None:
    # "[N/A]", "[Not Supported]" and "[Unknown Error]" stand where a figure is missing.
    try:
        return float(cell)
    except ValueError:
        return None
