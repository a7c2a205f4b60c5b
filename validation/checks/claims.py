"""One thing that a policy wants shown, as two p-values, and what photos say of it.

Its place in the flow: the checks of accuracy, classes and slices make claims of what was counted.
On the open photos they become findings, and these the verdict's reasons; on the sealed ones all of
them must be kept at the level of the try.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from validation.checks.groups import Group, Sizes
from validation.checks.verdict import Outcome, Reason
from validation.checks.wording import labels_text


@dataclass(frozen=True)
class Finding:
    """What photos say of one check, before it is written down.

    Attributes:
        check: the check's name in the verdict.
        outcome: what they show.
        statement: a sentence with the figures, without a full stop.
        group: the class or slice that it is about; None for all photos.
        ask: what would decide it, where they do not.
        more: how many labels that is.
    """

    check: str
    outcome: Outcome
    statement: str
    group: Group | None = None
    ask: str = ""
    more: int | None = None

    @property
    def reason(self) -> Reason:
        """The reason that the verdict gives."""
        group = self.group
        return Reason(
            check=self.check,
            outcome=self.outcome,
            statement=f"{self.statement}{'; ' if self.ask else ''}{self.ask}.",
            label=group.value if group is not None and group.column is None else None,
            slice=group.name if group is not None and group.column is not None else None,
            more_labels=self.more or None,
        )

    def confirmed(self) -> Finding:
        """Return what it is once the sealed photos show that every check holds."""
        if self.outcome != "cannot tell":
            return self
        return replace(self, outcome="better", ask="the sealed photos show that it holds", more=None)


@dataclass(frozen=True)
class Claim:
    """Something that must be shown to hold.

    Attributes:
        check: the check's name in the verdict.
        group: the class or slice that it is about; None for all photos.
        n: the photos that were counted.
        figures: what was counted and against what, without a full stop.
        p_values: of "it does not hold" (small: it is kept) and of "it holds" (small: it is broken).
        labels_needed: photos in all, of the group, that show it with a power at a level: (level, power).
    """

    check: str
    group: Group | None
    n: int
    figures: str
    p_values: Callable[[], tuple[float, float]]
    labels_needed: Callable[[float, float], int | None]

    @cached_property
    def kept_p(self) -> float:
        """The p-value of "it does not hold"."""
        return self.p_values()[0]

    @cached_property
    def broken_p(self) -> float:
        """The p-value of "it holds"."""
        return self.p_values()[1]

    def finding(self, outcome: Outcome, said: str, *, ask: str = "", more: int | None = None) -> Finding:
        """Return what was found of it; `said` follows the figures."""
        named = f"{self.group.name}: " if self.group is not None else ""
        statement = f"{named}{self.figures}{said}"
        return Finding(self.check, outcome, statement, group=self.group, ask=ask, more=more)


@dataclass(frozen=True)
class Question:
    """How the shown photos are asked, and how labels are reckoned.

    Attributes:
        alpha: the level of each check on the shown photos.
        level: the level at which the labels that are asked for are to decide.
        power: the probability with which they are to find what is there.
        sealed: the sizes of the sealed part, which decides; None when the shown photos themselves do.
    """

    alpha: float
    level: float
    power: float
    sealed: Sizes | None = None

    @property
    def photos(self) -> str:
        """What the shown photos are called."""
        return "photos" if self.sealed is None else "open photos"

    def more(self, needed: int | None, *, n: int, group: Group | None) -> int | None:
        """Return how many labels to bring when it takes `needed`; None for None.

        Sealed photos that were asked once cannot be sealed in another holdout, so a larger one takes
        as many new labels as it has; 0 where the sealed photos are as many as it takes.
        """
        if needed is None:
            return None
        if self.sealed is not None:
            return needed if needed > self.sealed.of(group) else 0
        # Where the shown photos decide, they were just seen to be too few, so it takes at least one.
        return max(1, needed - n)

    def missing(self, claim: Claim) -> tuple[int | None, str]:
        """Return how many labels would decide an open claim, and the words for it."""
        more = self.more(claim.labels_needed(self.level, self.power), n=claim.n, group=claim.group)
        return more, self.text(more, group=claim.group)

    def text(self, more: int | None, *, group: Group | None = None) -> str:
        """Return the words for that number."""
        of = group.name if group is not None else None
        return labels_text(more, power=self.power, of=of, is_new=self.sealed is not None)
