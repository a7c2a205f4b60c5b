"""Trainings beside their limits, in one run on one machine: `python benchmarks/training.py [PART …]`.

What counts is the ratio of two figures of one run, each the median of several rounds in turn:
  inputs       shards beside a loop that does nothing but decode JPEG, and beside photos in their files
  s3           a dataset that is streamed from an S3 server on this machine beside the same one in a folder
  workers      two workers of one thread beside one, by wall time and by processor time
  first-step   from `liftgate train` to the first step
  checkpoints  what they cost
  determinism  what it costs to have the same bits again
  gpu          MobileNetV2 on one GPU and on all of them, where there are any
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # `training_cluster` is the package, not a script beside this one
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.training_figures import Figure, say
from liftgate.output import table

PARTS = ("inputs", "s3", "workers", "first-step", "checkpoints", "determinism", "gpu")


def main() -> None:
    """Measure the chosen parts, print a table, write the figures down as JSON."""
    arguments = _arguments()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for part in arguments.parts or PARTS:
        say(part)
        began = time.perf_counter()
        figures += _measures(arguments)[part]()
        say(f"  {time.perf_counter() - began:.0f} s")
        # After each part: whoever ends it early keeps what is there.
        _write(arguments.json, figures)
    print(table([_row(figure) for figure in figures], header=("part", "what", "figure", "beside", "figure", "ratio")))
    print(arguments.json)


def _write(path: Path, figures: Sequence[Figure]) -> None:
    machine = {"cores": os.cpu_count(), "processor": platform.processor(), "python": platform.python_version()}
    document = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(document, indent=2) + "\n")


def _measures(arguments: argparse.Namespace) -> dict[str, Callable[[], list[Figure]]]:
    from benchmarks import training_inputs, training_runs

    given = {"directory": arguments.directory, "count": arguments.photos}
    timed = {**given, "seconds": arguments.seconds, "rounds": arguments.rounds}
    windowed = {**given, "windows": arguments.windows, "rounds": arguments.rounds}
    return {
        "inputs": lambda: training_inputs.shards_and_files(**timed),
        "s3": lambda: training_inputs.streamed(**timed) + training_runs.from_s3(**windowed),
        "workers": lambda: training_runs.two_workers(**windowed),
        "first-step": lambda: training_runs.first_step(**given, rounds=arguments.rounds),
        "checkpoints": lambda: training_runs.checkpoints(**given),
        "determinism": lambda: training_runs.determinism(**windowed),
        "gpu": lambda: training_runs.gpus(**given, windows=arguments.windows),
    }


def _row(figure: Figure) -> tuple[str, ...]:
    against = f"{figure.against_value:,.2f}" if figure.against_value is not None else ""
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
    return figure.part, figure.what, f"{figure.value:,.2f} {figure.unit}", figure.against, against, ratio


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), metavar="PART", help="default: all")
    parser.add_argument("--photos", type=int, default=2000, help="photos of the datasets; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each rate of the inputs; default: %(default)s")
    parser.add_argument("--windows", type=int, default=3, help="of four steps, for each training; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--directory", type=Path, default=REPOSITORY / "build" / "bench" / "training")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build" / "bench" / "training.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
