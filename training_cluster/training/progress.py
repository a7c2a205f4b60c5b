"""How a training stands, as lines: `progress.jsonl` in the run folder and the same on stdout.

Its place in the flow: the trainer writes a line now and then, and clusters and people follow them. With
several workers the chief writes `progress.jsonl` and worker 1 `progress-1.jsonl`. Every line has `at`,
`event`, `step` and `total_steps`; figures come beside these.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from artifact_sync.clock import Clock


def file_name(index: int) -> str:
    """Return the name of a worker's file; 0 is the chief."""
    return f"progress-{index}.jsonl" if index else "progress.jsonl"


class ProgressLog:
    """Appends lines; a half line that a killed trainer left is closed first.

    Args:
        run_dir: the run folder.
        clock: gives each line its time.
        total_steps: steps of the whole training.
        index: the worker's number.
    """

    def __init__(self, run_dir: Path, *, clock: Clock, total_steps: int, index: int = 0) -> None:
        self._path = run_dir / file_name(index)
        self._clock = clock
        self._total_steps = total_steps

    def write(self, event: str, *, step: int, **figures: float | str) -> None:
        """Append one line to the file and to stdout; a full disk keeps it from the file only."""
        line = {
            "at": self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "event": event,
            "step": step,
            "total_steps": self._total_steps,
            **{name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in figures.items()},
        }
        text = json.dumps(line)
        # A training that could go on does not end because it cannot say so.
        with suppress(OSError), self._path.open("ab+") as stream:
            if stream.tell() and not _ends_a_line(stream.fileno(), stream.tell()):
                stream.write(b"\n")
            stream.write(text.encode() + b"\n")
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _ends_a_line(descriptor: int, size_bytes: int) -> bool:
    return os.pread(descriptor, 1, size_bytes - 1) == b"\n"
