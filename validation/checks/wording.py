"""How the gate's reasons speak of p-values, of labels that are needed and of more names than a person reads.

Its place in the flow: the checks put their figures into sentences with these.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_TOLD = 50
"""So many items of a kind are told of one by one; the rest share a sentence."""

_SMALLEST_SHOWN = 1e-4


def names_text(names: Sequence[str], *, most: int = MOST_TOLD) -> str:
    """Return "cat, dog", or "cat, dog …" where there are more than a person reads."""
    return ", ".join(names[:most]) + (" …" if names[most:] else "")


def p_value_text(p_value: float) -> str:
    """Return "p = 0.0312", or "p < 0.0001" where more digits would say no more."""
    return f"p < {_SMALLEST_SHOWN:.4f}" if p_value < _SMALLEST_SHOWN else f"p = {p_value:.4f}"


def labels_text(more: int | None, *, power: float, of: str | None = None, is_new: bool = False) -> str:
    """Return how many more labels (of a class or slice), or how many in a new holdout, decide with `power`.

    None stands for "no number would", 0 for "the sealed photos are as many as it takes".
    """
    if more is None:
        return "no affordable number of labels would decide, the difference seems to lie on the line itself"
    if more == 0:
        return f"the sealed photos are enough to decide with {power:.0%} power"
    of_group = f" of {of}" if of else ""
    if is_new:
        return (
            f"a new holdout with about {photos_text(more, kind='sealed')}{of_group} would decide with {power:.0%} power"
        )
    return f"about {more:,} more {'label' if more == 1 else 'labels'}{of_group} would decide with {power:.0%} power"


def photos_text(n: int, *, kind: str = "") -> str:
    """Return "1 photo", "4,000 sealed photos"."""
    return f"{n:,} {kind}{' ' if kind else ''}{'photo' if n == 1 else 'photos'}"
