"""The curves of a training as its progress lines hold them: which figure stood where at which step.

Its place in the flow: runs are shown and compared by them, without TensorBoard and without its files.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_NO_CURVES = frozenset({"step", "total_steps", "epoch"})
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Curve:
    """One figure over the steps, in the order of the steps."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1]


def read_curves(run_dir: Path) -> dict[str, Curve]:
    """Return the curves of "step" and "epoch" lines by the figure's name.

    A run that was killed writes steps a second time; what it wrote last counts.
    """
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for line in _lines(run_dir / "progress.jsonl"):
        step = line.get("step")
        if line.get("event") not in ("step", "epoch") or not isinstance(step, int):
            continue
        for name, value in line.items():
            if name not in _NO_CURVES and isinstance(value, int | float) and math.isfinite(value):
                points[name][step] = float(value)
    return {
        name: Curve(tuple(sorted(found)), tuple(found[step] for step in sorted(found)))
        for name, found in points.items()
    }


def sparkline(curve: Curve, *, width: int = 32, scale: tuple[float, float] | None = None) -> str:
    """Return a curve as a row of bars, each the mean of its share of the points.

    Args:
        curve: the curve.
        width: the most bars.
        scale: what the lowest and the highest bar stand for; by default the curve's own extremes.
    """
    count = min(width, len(curve.values))
    parts = [curve.values[len(curve.values) * i // count : len(curve.values) * (i + 1) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, high = scale or (min(means), max(means))
    span = high - low or 1.0
    return "".join(_BARS[min(7, max(0, int((mean - low) / span * 8)))] for mean in means)


def first_difference(first: Mapping[str, Curve], second: Mapping[str, Curve], *, name: str = "loss") -> int | None:
    """Return the first step at which two curves differ, or None when they agree where both have a point."""
    if name not in first or name not in second:
        return None
    one = dict(zip(first[name].steps, first[name].values, strict=True))
    other = dict(zip(second[name].steps, second[name].values, strict=True))
    return next((step for step in sorted(one.keys() & other.keys()) if one[step] != other[step]), None)


def _lines(path: Path) -> Iterator[dict[str, object]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            # The half line that a killed trainer left.
            continue
        if isinstance(line, dict):
            yield line
