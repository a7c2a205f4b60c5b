"""How the gate's reasons speak of p-values and of labels that are needed.

Its place in the flow: gate.py and class_checks.py put their figures into sentences with these.
"""

from __future__ import annotations

_SMALLEST_SHOWN = 1e-4


def p_value_text(p_value: float) -> str:
    """Return "p = 0.0312", or "p < 0.0001" where more digits would say no more."""
    return f"p < {_SMALLEST_SHOWN:.4f}" if p_value < _SMALLEST_SHOWN else f"p = {p_value:.4f}"


def labels_text(more: int | None, *, power: float, label: str | None = None) -> str:
    """Return how many more labels (of a class) decide with `power`; None stands for "no number would"."""
    if more is None:
        return "no affordable number of labels would decide, the difference seems to lie on the line itself"
    noun = "label" if more == 1 else "labels"
    return f"about {more:,} more {noun}{f' of {label}' if label else ''} would decide with {power:.0%} power"
