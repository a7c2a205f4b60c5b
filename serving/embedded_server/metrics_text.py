"""Prometheus's text format (0.0.4), written as TensorFlow Serving writes it.

Its place in the flow: metrics.py counts, and hands what it has counted to `exposition`. Written here
rather than with prometheus_client: that library appends "_total" to every counter and "_created"
lines, and the names that operators have on their dashboards carry neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Histogram(Protocol):
    """Values counted by bucket; `bounds` are the upper ends, the last bucket has none."""

    bounds: Sequence[float]
    counts: list[int]
    total: float


@dataclass(frozen=True)
class Family:
    """One metric by name: its kind, and its value for each set of labels.

    Args:
        name: with ":" for each "/" of TensorFlow's own name.
        kind: what the TYPE line says.
        samples: the values; a summary's are (count, sum).
        help_text: what the HELP line says; TensorFlow Serving has none.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    samples: Mapping[Labels, float | Histogram | tuple[int, float]]
    help_text: str = ""


def exponential_bounds(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Return `count` upper bounds of buckets, each `factor` times the one before."""
    return tuple(start * factor**index for index in range(count))


def exposition(families: Iterable[Family]) -> str:
    """Return the page; families without values are left out, as in the real server."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        if family.help_text:
            lines.append(f"# HELP {family.name} {family.help_text}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples.items():
            lines += _sample_lines(family.name, _label_text(labels), value)
    return "\n".join(lines) + "\n"


def _sample_lines(name: str, labels: str, value: float | Histogram | tuple[int, float]) -> list[str]:
    if isinstance(value, int | float):
        return [f"{name}{{{labels}}} {_number(value)}"]
    if isinstance(value, tuple):
        count, total = value
        return [f"{name}_sum{{{labels}}} {_number(total)}", f"{name}_count{{{labels}}} {count}"]
    return _histogram_lines(name, labels, value)


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    lines, seen = [], 0
    start = f"{name}_bucket{{{labels}{',' if labels else ''}"
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        seen += count
        limit = "+Inf" if bound == math.inf else f"{bound:g}"
        lines.append(f'{start}le="{limit}"}} {seen}')
    return [*lines, f"{name}_sum{{{labels}}} {_number(histogram.total)}", f"{name}_count{{{labels}}} {seen}"]


def _label_text(labels: Labels) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
