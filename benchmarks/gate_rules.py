"""Rules of promotion, each with what it shows of a candidate: those that are in use, and Liftgate's own.

Their place in the flow: gate.py lets each of them meet each trainer of gate_trainers.py. Tests and
levels are validation's own functions; only the loop around them is written here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.gate_trainers import Feedback, Mask, Photos
from validation.budgets.budget import History, Terms, Try, is_spent, level_of
from validation.figures.statistics import PairedCounts, superiority_p_value


def paired(candidate: Mask, champion: Mask) -> PairedCounts:
    """Count what two models' right answers have in common."""
    return PairedCounts(
        n=len(candidate),
        both_right=int((candidate & champion).sum()),
        candidate_only=int((candidate & ~champion).sum()),
        champion_only=int((~candidate & champion).sum()),
    )


@cache
def _p_value(fixed: int, broken: int) -> float:
    # The test looks at nothing else, so equal counts are asked once.
    return superiority_p_value(PairedCounts(n=fixed + broken, both_right=0, candidate_only=fixed, champion_only=broken))


def p_value(counts: PairedCounts) -> float:
    """Return the exact McNemar p-value of "not better"."""
    return _p_value(counts.candidate_only, counts.champion_only)


class Shown:
    """A rule that looks at all photos and shows the whole report."""

    def __init__(self, photos: Photos, *, is_better: Callable[[PairedCounts], bool]) -> None:
        self._photos, self._is_better = photos, is_better

    def judge(self, candidate: Mask) -> Feedback | None:
        """Return what the rule says of a candidate's answers; None when it decides nothing any more."""
        label = self._photos.label
        counts = paired(candidate == label, self._photos.champion == label)
        return Feedback(self._is_better(counts), np.ones(len(label), dtype=np.bool_), counts.gain)


class Liftgate:
    """Open photos are shown; if they show no harm, the sealed ones answer at the level that the budget gives."""

    def __init__(self, photos: Photos, terms: Terms) -> None:
        self._photos, self._terms, self.history = photos, terms, History()

    def judge(self, candidate: Mask) -> Feedback | None:
        """Return what the gate says of a candidate's answers; None when the budget is spent."""
        if is_spent(self._terms, self.history):
            return None
        photos = self._photos
        right, rival = candidate == photos.label, photos.champion == photos.label
        seen = paired(right[photos.is_open], rival[photos.is_open])
        if p_value(seen.reversed()) <= self._terms.alpha:
            return Feedback(False, photos.is_open, seen.gain)
        level = level_of(self._terms, self.history, is_first=False)
        asked = paired(right[~photos.is_open], rival[~photos.is_open])
        is_confirmed = p_value(asked) <= level
        self.history = History((*self.history.tries, Try(level, False, is_confirmed)))
        shown = np.ones_like(photos.is_open) if is_spent(self._terms, self.history) else photos.is_open
        return Feedback(is_confirmed, shown, seen.gain)


Rule = Shown | Liftgate
MakeRule = Callable[[Photos], Rule]


def rules(alpha: float, *, tries: int) -> dict[str, MakeRule]:
    """Return the rules by name; `tries` is what Bonferroni's correction counts on."""

    def shown(is_better: Callable[[PairedCounts], bool]) -> MakeRule:
        return lambda photos: Shown(photos, is_better=is_better)

    def liftgate(tries: int, promotions: int) -> MakeRule:
        return lambda photos: Liftgate(photos, Terms(alpha=alpha, tries=tries, promotions=promotions))

    return {
        "accuracy is higher": shown(lambda counts: counts.gain > 0),
        "value and change thresholds": shown(
            lambda counts: (counts.both_right + counts.candidate_only) / counts.n >= 0.8 and counts.gain >= 0.005
        ),
        f"McNemar at {alpha:g}": shown(lambda counts: p_value(counts) <= alpha),
        f"McNemar at {alpha:g}/{tries}": shown(lambda counts: p_value(counts) <= alpha / tries),
        "Liftgate, 10 tries, 2 promotions": liftgate(10, 2),
        "Liftgate, 50 tries, 3 promotions": liftgate(50, 3),
    }
