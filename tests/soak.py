"""How much of a sweep or a race runs: in the suite a part, in a soak (LIFTGATE_SOAK=1, `make soak`) all of it.

Its place in the flow: the kill sweeps ask it which places to kill at, the races how many rounds to run. The part
begins at random, anew in each run of the suite, so that many runs see every place; pytest's seed repeats it.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

# Read here: the tests' own environment is emptied of LIFTGATE_ names.
IS_SOAK = os.environ.get("LIFTGATE_SOAK") == "1"


@dataclass(frozen=True)
class Places:
    """Every `step`-th place from `first`, counted from 1."""

    first: int
    step: int

    def __str__(self) -> str:
        return "at every place" if self.step == 1 else f"every {self.step} places from {self.first}"


def every(step: int) -> Places:
    """Every `step`-th place from a random one on; in a soak every place."""
    if IS_SOAK:
        return Places(first=1, step=1)
    return Places(first=random.randint(1, step), step=step)


def fewest(places: int, *, step: int) -> int:
    """How many of so many places `every` takes at least."""
    return places if IS_SOAK else places // step


def rounds(usual: int, *, soak: int) -> int:
    """How many rounds of a race, or histories of kills, to run."""
    return soak if IS_SOAK else usual
