"""What a holdout may still spend, and the level at which its next try is tested.

Its place in the flow: ledger.py keeps the history in the bucket and asks here; docs/gate.md derives
the bound and says what the trainer may do. All in two rules:

    a try at level l takes l from what remains; if it is not confirmed, l is gone;
    if it is confirmed, what remains is l, and nothing else.

Whatever the tries' levels and however the trainer answers to answers, the probability that one or
more candidates are confirmed that are not better is then at most alpha (`remaining`).

Sources: Bretz et al., Statistics in Medicine 28 (2009) 586, whose procedure this is on the tree of
all histories; Dwork et al., Science 349 (2015) 636 and Renggli et al., MLSys 2019 (ease.ml/ci) for
counting the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from artifact_sync.canonical import FrozenModel
from validation.checks.policy import Policy

FIRST_MODEL_SHARE = 0.9
"""Of the whole budget, what the first try of a first model takes: it is confirmed, and then still there, or never."""


class Terms(FrozenModel):
    """What a holdout may spend in all, as its first use binds it.

    Attributes:
        alpha: the accepted probability that one or more candidates that are not better are let through.
        tries: how many comparisons with a champion the sealed photos may decide.
        promotions: how many of these may be confirmed before the holdout is opened.
    """

    alpha: Annotated[float, Field(gt=0, le=0.5)]
    tries: Annotated[int, Field(ge=1)]
    promotions: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _no_more_promotions_than_tries(self) -> Self:
        if self.promotions > self.tries:
            raise ValueError("promotions cannot be more than tries")
        return self

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """Return the terms that a policy asks for."""
        return cls(alpha=policy.accuracy.alpha, tries=policy.budget.tries, promotions=policy.budget.promotions)


@dataclass(frozen=True)
class Try:
    """One question to the sealed photos, as those see it who come later.

    Attributes:
        level: the level at which it is tested.
        is_first: it has no champion (`--first`).
        is_confirmed: the answer; None as long as it was told to nobody.
        pending: the numbers (from 1) of earlier tries whose answers nobody knew when this one began.
    """

    level: float
    is_first: bool
    is_confirmed: bool | None
    pending: tuple[int, ...] = ()


@dataclass(frozen=True)
class History:
    """All tries of one holdout, in the order in which they began."""

    tries: tuple[Try, ...] = ()

    @property
    def firsts(self) -> int:
        """How many tries had no champion."""
        return sum(one.is_first for one in self.tries)

    @property
    def comparisons(self) -> int:
        """How many tries had a champion."""
        return len(self.tries) - self.firsts

    @property
    def confirmed(self) -> int:
        """How many comparisons were confirmed."""
        return sum(bool(one.is_confirmed) and not one.is_first for one in self.tries)

    @property
    def pending(self) -> tuple[int, ...]:
        """The numbers of tries without an answer."""
        return tuple(number for number, one in enumerate(self.tries, start=1) if one.is_confirmed is None)


def remaining(terms: Terms, history: History) -> float:
    """Return what the next try may spend at most; any level up to it keeps the promise.

    An answer that nobody knows counts as "not confirmed" until it is told. Where it turns out to be
    "confirmed", each try that began in between halves what remains, whatever its own answer: its
    level was taken from the other branch, and the two halves of this branch sum up to the whole.
    """
    left = terms.alpha
    for one in history.tries:
        if any(history.tries[number - 1].is_confirmed for number in one.pending):
            left /= 2
        else:
            left = one.level if one.is_confirmed else left - one.level
    return max(left, 0.0)


def is_spent(terms: Terms, history: History) -> bool:
    """Return whether no further try can begin, so that nothing is left to protect: the holdout is open.

    A try that began before and has no answer yet keeps its candidate and its level, and may be finished.
    """
    return history.comparisons >= terms.tries or history.confirmed >= terms.promotions


def tries_left(terms: Terms, history: History) -> int:
    """Return how many more candidates can be compared with a champion."""
    return 0 if is_spent(terms, history) else terms.tries - history.comparisons


def level_of(terms: Terms, history: History, *, is_first: bool) -> float:
    """Return the level of the next try.

    The first comparison with a new champion takes half of what remains, since a team that comes
    seldom and well prepared should not pay for one that comes often; those after it share the rest
    evenly. A first model takes 0.9 of the whole, the f-th one after it 1/f of what remains.

    Raises:
        ValueError: nothing is left to spend.
    """
    left = remaining(terms, history)
    if is_spent(terms, history) or left <= 0:
        raise ValueError("the budget is spent")
    if is_first:
        return left * FIRST_MODEL_SHARE if not history.tries else left / max(2, history.firsts + 1)
    open_tries = terms.tries - history.comparisons
    return left / min(2, open_tries) if _is_new_champion(history) else left / open_tries


def _is_new_champion(history: History) -> bool:
    for one in reversed(history.tries):
        if one.is_confirmed:
            return True
        if not one.is_first:
            return False
    return True
