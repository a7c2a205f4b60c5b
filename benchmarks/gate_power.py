"""How many labels the budget costs against one fixed test, computed and then simulated.

Its place in the flow: gate.py prints the table. A label is a photo, open or sealed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.gate_rules import p_value
from validation.budgets.budget import History, Terms, Try, level_of
from validation.figures.power import labels_for_superiority
from validation.figures.statistics import PairedCounts


@dataclass(frozen=True)
class PowerRow:
    """One situation: the level, the labels for the power, and the share that finds the gain with so many."""

    terms: Terms
    situation: str
    gain: float
    disagreement: float
    level: float
    labels: int
    single: int
    found: float
    found_by_single: float

    @property
    def ratio(self) -> float:
        """Labels against those of one test of all photos at alpha."""
        return self.labels / self.single


def situations(terms: Terms) -> Iterator[tuple[str, float]]:
    """Yield what came before, and the level that the budget gives then."""
    histories = {
        "first comparison": (),
        "first comparison, after a first model": ((True, True),),
        "second comparison": ((False, False),),
        "tenth comparison": ((False, False),) * 9,
        "first comparison after a promotion at the first": ((False, True),),
    }
    for name, past in histories.items():
        history = History()
        for is_first, is_confirmed in past:
            history = _after(terms, history, is_first=is_first, is_confirmed=is_confirmed)
        yield name, level_of(terms, history, is_first=False)


def power_rows(
    terms: Terms, *, gain: float, disagreement: float, power: float, open_share: float, draws: int, seed: int
) -> Iterator[PowerRow]:
    """Yield the table's rows for one true gain."""
    random = np.random.default_rng(seed)
    single = _labels(gain, disagreement, alpha=terms.alpha, power=power)
    found_by_single = _found(random, single, gain, disagreement, level=terms.alpha, draws=draws)
    for situation, level in situations(terms):
        sealed = _labels(gain, disagreement, alpha=level, power=power)
        yield PowerRow(
            terms=terms,
            situation=situation,
            gain=gain,
            disagreement=disagreement,
            level=level,
            labels=math.ceil(sealed / (1 - open_share)),
            single=single,
            found=_found(random, sealed, gain, disagreement, level=level, draws=draws),
            found_by_single=found_by_single,
        )


def _after(terms: Terms, history: History, *, is_first: bool, is_confirmed: bool) -> History:
    level = level_of(terms, history, is_first=is_first)
    return History((*history.tries, Try(level, is_first, is_confirmed)))


def _labels(gain: float, disagreement: float, *, alpha: float, power: float) -> int:
    labels = labels_for_superiority(gain=gain, disagreement=disagreement, alpha=alpha, power=power)
    assert labels is not None
    return labels


def _found(
    random: np.random.Generator, photos: int, gain: float, disagreement: float, *, level: float, draws: int
) -> float:
    decided = random.binomial(photos, disagreement, draws)
    fixed = random.binomial(decided, (disagreement + gain) / (2 * disagreement))
    counts = (
        PairedCounts(n=photos, both_right=0, candidate_only=int(f), champion_only=int(d - f))
        for f, d in zip(fixed, decided, strict=True)
    )
    return sum(p_value(one) <= level for one in counts) / draws
