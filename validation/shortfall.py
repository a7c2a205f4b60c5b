"""How many sealed labels are missing, when the sealed photos do not show that all checks hold.

Its place in the flow: gate.py tells it with "cannot tell". It is reckoned from the open photos'
estimates alone, so that it says nothing of the sealed ones but how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from validation.claims import Claim
from validation.groups import Sizes
from validation.metric_checks import MetricDemand

_TOLD = 12


@dataclass(frozen=True)
class Shortfall:
    """The sealed labels that are missing to show what the open photos suggest.

    Attributes:
        more: how many in all, 0 if there are enough.
        groups: how many of them must be of which class or slice, the most first.
        undecidable: the checks that no affordable number of labels would decide.
        level, power: at which, and with which probability, they would decide.
    """

    more: int
    groups: tuple[tuple[str, int], ...]
    undecidable: tuple[str, ...]
    level: float
    power: float

    @property
    def text(self) -> str:
        """One or two sentences about it."""
        said = []
        if self.more:
            listed = ", ".join(f"{more:,} of {name}" for name, more in self.groups[:_TOLD])
            among = f" ({listed}{' …' if self.groups[_TOLD:] else ''})" if listed else ""
            said.append(
                f"About {self.more:,} more sealed labels{among} would decide with {self.power:.0%} power at level "
                f"{self.level:.3g}, judged by the open photos."
            )
        if self.undecidable:
            listed = ", ".join(self.undecidable[:_TOLD]) + (" …" if self.undecidable[_TOLD:] else "")
            said.append(f"No affordable number of labels would decide: {listed}.")
        if not said:
            said.append(
                f"They are enough to show, with {self.power:.0%} power at level {self.level:.3g}, what the open photos "
                "suggest; what is there seems to be less than that."
            )
        return " ".join(said)


def shortfall(
    claims: Iterable[Claim], demands: Iterable[MetricDemand], *, sealed: Sizes, level: float, power: float
) -> Shortfall:
    """Return what is missing to show all claims and demands, each with probability `power`, at `level`.

    Args:
        claims: made of the open photos; those about groups without an open photo are left out.
        demands: made of the open photos.
        sealed: how many sealed photos there are.
        level: of the try that is to decide.
        power: the probability of finding what is there.
    """
    needs = [(_name(claim), claim, claim.labels_needed(level, power)) for claim in claims if claim.n]
    metrics = [(demand.check, demand.labels_needed(level, power)) for demand in demands]
    of_all = [needed for _, claim, needed in needs if claim.group is None and needed is not None]
    of_all += [needed for _, needed in metrics if needed is not None]
    groups = _of_groups([(claim, needed) for _, claim, needed in needs if needed is not None], sealed)
    sums: dict[str | None, int] = {}
    for (column, _), more in groups.items():
        sums[column] = sums.get(column, 0) + more
    # The labels of classes and of each slice column are the same photos, looked at in another way.
    more_in_all = max([0, *(needed - sealed.photos for needed in of_all), *sums.values()])
    return Shortfall(
        more=more_in_all,
        groups=tuple(sorted(((name, more) for (_, name), more in groups.items()), key=lambda entry: -entry[1])),
        undecidable=tuple(name for name, needed in [(n, w) for n, _, w in needs] + metrics if needed is None),
        level=level,
        power=power,
    )


def _of_groups(needs: Sequence[tuple[Claim, int]], sealed: Sizes) -> dict[tuple[str | None, str], int]:
    """Return the labels missing in each group that misses any, by (column, name)."""
    missing: dict[tuple[str | None, str], int] = {}
    for claim, needed in needs:
        group = claim.group
        if group is not None and needed > sealed.of(group):
            key = (group.column, group.name)
            missing[key] = max(missing.get(key, 0), needed - sealed.of(group))
    return missing


def _name(claim: Claim) -> str:
    return claim.check if claim.group is None else f"{claim.check} of {claim.group.name}"
