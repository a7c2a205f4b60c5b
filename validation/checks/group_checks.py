"""The gate's checks of single classes and slices: floors, and losses against the champion.

Its place in the flow: gate.py asks for these claims and, of the open photos, for what they say.
Groups that pass are told of in one sentence; a group that does not has its own. One broken group
is enough to refuse a candidate, so harm is corrected by Holm's method over all groups of a check;
to be let through, all must hold, which needs no correction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from validation.checks.claims import Claim, Finding, Question
from validation.checks.groups import Counts, Group, Tally
from validation.checks.policy import Policy
from validation.checks.wording import MOST_TOLD, names_text, p_value_text
from validation.figures.exact_margin import labels_for_margin, margin_p_values
from validation.figures.power import labels_for_floor
from validation.figures.proportions import floor_p_values
from validation.figures.statistics import holm


def group_claims(counts: Counts, *, policy: Policy) -> Iterator[Claim]:
    """Yield what the policy wants shown in every class and slice."""
    for claims in _families(counts, policy).values():
        yield from claims


def group_findings(counts: Counts, *, policy: Policy, question: Question) -> Iterator[Finding]:
    """Yield what the shown photos say of these claims."""
    for check, claims in _families(counts, policy).items():
        kind = "classes" if check in {"recall floor", "class loss"} else "slices"
        yield from _findings(check, claims, kind=kind, question=question)


def _families(counts: Counts, policy: Policy) -> dict[str, list[Claim]]:
    """Return the claims of each check, in the order in which they are told of."""
    classes, slices = policy.per_class, policy.per_slice
    families: dict[str, list[Claim]] = {}
    if classes is not None:
        floors = {group: classes.floor_of(group.value) for group in counts.classes}
        families["recall floor"] = _floors("recall floor", counts.classes, floors, unit="recall")
        families["class loss"] = _losses("class loss", counts.classes, margin=classes.margin, unit="recall")
    if slices is not None:
        floors = dict.fromkeys(counts.slices, slices.accuracy_floor)
        families["slice floor"] = _floors("slice floor", counts.slices, floors, unit="accuracy")
        families["slice loss"] = _losses("slice loss", counts.slices, margin=slices.margin, unit="accuracy")
    return {check: claims for check, claims in families.items() if claims}


def _floors(
    check: str, tallies: Mapping[Group, Tally], floors: Mapping[Group, float | None], *, unit: str
) -> list[Claim]:
    return [
        _floor(check, group, tally, floor=floor, unit=unit)
        for group, tally in tallies.items()
        if (floor := floors[group]) is not None
    ]


def _floor(check: str, group: Group, tally: Tally, *, floor: float, unit: str) -> Claim:
    return Claim(
        check=check,
        group=group,
        n=tally.n,
        figures=f"{unit} {tally.accuracy:.3f} ({tally.right:,} of {tally.n:,}), floor {floor:g}",
        p_values=lambda: floor_p_values(tally.right, tally.n, floor=floor),
        labels_needed=lambda level, power: labels_for_floor(
            proportion=tally.accuracy, floor=floor, alpha=level, power=power
        ),
    )


def _losses(check: str, tallies: Mapping[Group, Tally], *, margin: float | None, unit: str) -> list[Claim]:
    return [
        _loss(check, group, tally, margin=margin, unit=unit)
        for group, tally in tallies.items()
        if margin is not None and tally.paired is not None
    ]


def _loss(check: str, group: Group, tally: Tally, *, margin: float, unit: str) -> Claim:
    paired = tally.paired
    assert paired is not None, "a loss is a loss against the champion"
    return Claim(
        check=check,
        group=group,
        n=tally.n,
        figures=f"{unit} {paired.gain:+.3f} against the champion ({paired.candidate_only:,} fixed, "
        f"{paired.champion_only:,} broken, {paired.n:,} photos), accepted loss {margin:g}",
        p_values=lambda: margin_p_values(paired, margin=margin),
        labels_needed=lambda level, power: labels_for_margin(paired, margin=margin, alpha=level, power=power),
    )


def _findings(check: str, claims: Sequence[Claim], *, kind: str, question: Question) -> Iterator[Finding]:
    kept, undecided, broken = [], [], []
    for claim, broken_p in zip(claims, holm([claim.broken_p for claim in claims]), strict=True):
        if broken_p <= question.alpha:
            broken.append(claim.finding("not better", f": broken ({p_value_text(broken_p)} after Holm's correction)"))
        elif claim.kept_p <= question.alpha:
            kept.append(claim)
        else:
            undecided.append(_undecided(claim, question))
    yield from _told(broken, kind=kind)
    yield from _told(undecided, kind=kind)
    if kept:
        closest = max(kept, key=lambda claim: claim.kept_p)
        assert closest.group is not None, "a claim of a check of groups has a group"
        statement = (
            f"Kept in {len(kept)} of {len(claims)} {kind}; closest is {closest.group.name}: "
            f"{closest.figures} ({p_value_text(closest.kept_p)})"
        )
        yield Finding(check, "better", statement)


def _undecided(claim: Claim, question: Question) -> Finding:
    if claim.n == 0:
        return claim.finding("cannot tell", f": there are no {question.photos} of it")
    more, text = question.missing(claim)
    said = f": not shown to hold ({p_value_text(claim.kept_p)})"
    return claim.finding("cannot tell", said, ask=text, more=more)


def _told(findings: Sequence[Finding], *, kind: str) -> Iterator[Finding]:
    """Yield the findings, those beyond a number that a person reads in one sentence together."""
    yield from findings[:MOST_TOLD]
    rest = findings[MOST_TOLD:]
    if rest:
        names = names_text([finding.group.name for finding in rest if finding.group is not None])
        yield Finding(
            rest[0].check,
            rest[0].outcome,
            f"The same holds for {len(rest):,} more {kind}: {names}",
            more=sum(finding.more or 0 for finding in rest),
        )
