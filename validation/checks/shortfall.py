"""How many sealed photos it takes, when the sealed photos do not show that all checks hold.

Its place in the flow: gate.py tells it with "cannot tell". It is reckoned from the open photos'
estimates alone, so that it says nothing of the sealed ones but how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from validation.checks.claims import Claim
from validation.checks.groups import Group, Sizes
from validation.checks.metric_checks import MetricDemand
from validation.checks.wording import names_text

_MOST_LISTED = 12


@dataclass(frozen=True)
class Shortfall:
    """The sealed photos that it takes to show what the open photos suggest.

    Attributes:
        labels: how many in all, 0 if there are enough. All of them are new labels: sealed photos that
            were asked once cannot be sealed in another holdout.
        groups: how many of them must be of which class or slice that has too few, the most first.
        undecidable: the checks that no affordable number of labels would decide.
        level, power: at which, and with which probability, they would decide.
    """

    labels: int
    groups: tuple[tuple[str, int], ...]
    undecidable: tuple[str, ...]
    level: float
    power: float

    @property
    def text(self) -> str:
        """One or two sentences about it."""
        said = []
        if self.labels:
            groups = names_text([f"{needed:,} of {name}" for name, needed in self.groups], most=_MOST_LISTED)
            among = f" ({groups})" if groups else ""
            said.append(
                f"Judged by the open photos, a new holdout with about {self.labels:,} sealed photos{among} would "
                f"decide with {self.power:.0%} power at level {self.level:.3g}."
            )
        if self.undecidable:
            checks = names_text(self.undecidable, most=_MOST_LISTED)
            said.append(f"No affordable number of labels would decide: {checks}.")
        if not said:
            said.append(
                f"They are enough to show, with {self.power:.0%} power at level {self.level:.3g}, what the open photos "
                "suggest; what is there seems to be less than that."
            )
        return " ".join(said)


def shortfall(
    claims: Iterable[Claim], demands: Iterable[MetricDemand], *, sealed: Sizes, level: float, power: float
) -> Shortfall:
    """Return what it takes to show all claims and demands, each with probability `power`, at `level`.

    Args:
        claims: made of the open photos; those about groups without an open photo are left out.
        demands: made of the open photos.
        sealed: how many sealed photos there are.
        level: of the try that is to decide.
        power: the probability of finding what is there.
    """
    needs = [(_name(claim), claim.group, claim.labels_needed(level, power)) for claim in claims if claim.n]
    needs += [(demand.check, None, demand.labels_needed(level, power)) for demand in demands]
    wanted: dict[Group | None, int] = {}
    for _, group, needed in needs:
        wanted[group] = max(wanted.get(group, 0), needed or 0)
    too_few = {group: needed for group, needed in wanted.items() if needed > sealed.of(group)}
    return Shortfall(
        labels=_in_all(wanted) if too_few else 0,
        groups=tuple(sorted(((group.name, needed) for group, needed in too_few.items() if group), key=lambda e: -e[1])),
        undecidable=tuple(name for name, _, needed in needs if needed is None),
        level=level,
        power=power,
    )


def _in_all(wanted: Mapping[Group | None, int]) -> int:
    """Return how many photos hold as many of each group; those of classes and of a slice column are the same photos."""
    sums: dict[str | None, int] = {}
    for group, needed in wanted.items():
        if group is not None:
            sums[group.column] = sums.get(group.column, 0) + needed
    return max([wanted.get(None, 0), *sums.values()])


def _name(claim: Claim) -> str:
    return claim.check if claim.group is None else f"{claim.check} of {claim.group.name}"
