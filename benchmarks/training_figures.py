"""What a training benchmark finds: two rates of one run of the script and their ratio.

Its place in the flow: the parts of `benchmarks/training.py` return these; it prints and writes them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Something measured, beside what it is compared with.

    Attributes:
        part: of the benchmark.
        what: the measured thing.
        value: its figure.
        unit: images/s, s or %.
        against: what it is compared with; "" when it stands alone.
        against_value: the figure of that.
        ratio: `value` to `against_value`, or a scaling; None when it stands alone.
    """

    part: str
    what: str
    value: float
    unit: str = "images/s"
    against: str = ""
    against_value: float | None = None
    ratio: float | None = None


def compared(part: str, what: str, value: float, *, against: str, against_value: float) -> Figure:
    """Return a figure with its ratio."""
    return Figure(part, what, value, against=against, against_value=against_value, ratio=value / against_value)


def medians(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Measure all contenders in turn, several rounds, and return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            found[name].append(measure())
            say(f"  round {number + 1}: {name}: {found[name][-1]:,.1f}")
    return {name: statistics.median(values) for name, values in found.items()}


def say(text: str) -> None:
    """Tell a person how far it is."""
    print(text, file=sys.stderr, flush=True)
