#!/usr/bin/python3
"""Write what nvidia-smi says of the GPUs as a file for Prometheus' node exporter; one rename makes it whole.

Its place in the flow: a timer runs it on a training host, with the system's Python. When the driver does not
answer, the file says so and has no old figures.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

FIGURES = {
    "utilization.gpu": ("utilization_percent", "Share of the time in which a kernel ran.", 1),
    "memory.used": ("memory_used_bytes", "Memory in use.", 1 << 20),
    "memory.total": ("memory_total_bytes", "Memory that there is.", 1 << 20),
    "temperature.gpu": ("temperature_celsius", "Temperature of the chip.", 1),
    "power.draw": ("power_watts", "Power drawn.", 1),
}


def ask() -> list[list[str]]:
    """Return a row for each GPU: index, uuid, and a figure for each of `FIGURES`; none when nvidia-smi fails."""
    command = ["nvidia-smi", f"--query-gpu=index,uuid,{','.join(FIGURES)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [row for row in rows if len(row) == 2 + len(FIGURES) and row[0].isdigit()]


def exposition(rows: list[list[str]]) -> str:
    """Return the figures in Prometheus' text format."""
    lines = [
        "# HELP liftgate_gpu_driver_up Whether nvidia-smi answered.",
        "# TYPE liftgate_gpu_driver_up gauge",
        f"liftgate_gpu_driver_up {int(bool(rows))}",
    ]
    for column, (name, meaning, factor) in enumerate(FIGURES.values(), start=2):
        lines += [f"# HELP liftgate_gpu_{name} {meaning}", f"# TYPE liftgate_gpu_{name} gauge"]
        for row in rows:
            try:
                value = float(row[column]) * factor
            except ValueError:
                # "[N/A]": this card does not have the figure.
                continue
            lines.append(f'liftgate_gpu_{name}{{gpu="{row[0]}",uuid="{row[1]}"}} {value:.12g}')
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file that the first argument names."""
    path = Path(sys.argv[1])
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(exposition(ask()))
    temporary.chmod(0o644)
    os.replace(temporary, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
