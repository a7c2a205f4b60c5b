"""The gate's checks of single classes: floors, and losses against the champion.

Its place in the flow: gate.py asks for these reasons. A class that passes is told of in one
sentence with all others; a class that does not has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from validation.exact_margin import margin_p_values
from validation.policy import Policy
from validation.power import labels_for_floor, labels_for_non_inferiority
from validation.proportions import floor_p_values
from validation.report import ClassMeasurements, Report
from validation.statistics import holm
from validation.verdict import Reason
from validation.wording import labels_text, p_value_text


@dataclass(frozen=True)
class _Claim:
    """One class held against one line: the p-values of "not kept" and "kept", and how to speak of it."""

    measured: ClassMeasurements
    kept_p: float
    broken_p: float
    figures: str
    labels_needed: Callable[[], int | None]


def class_floor_reasons(report: Report, policy: Policy) -> Iterator[Reason]:
    """Yield the reasons about each class's recall against its floor, if the policy sets floors."""
    rule = policy.per_class
    claims = []
    for measured in report.classes:
        floor = rule.floor_of(measured.label) if rule is not None else None
        if floor is not None:
            claims.append(_floor_claim(measured, floor, policy))
    yield from _reasons("recall floor", claims, policy)


def class_margin_reasons(report: Report, policy: Policy) -> Iterator[Reason]:
    """Yield the reasons about each class's loss against the champion, if the policy sets a margin."""
    margin = policy.per_class.margin if policy.per_class is not None else None
    if margin is None or report.paired is None:
        return
    yield from _reasons("class loss", [_margin_claim(measured, margin, policy) for measured in report.classes], policy)


def _floor_claim(measured: ClassMeasurements, floor: float, policy: Policy) -> _Claim:
    recall = measured.candidate_right / measured.n if measured.n else 0.0
    kept, broken = floor_p_values(measured.candidate_right, measured.n, floor=floor)
    rule = policy.accuracy
    return _Claim(
        measured=measured,
        kept_p=kept,
        broken_p=broken,
        figures=f"recall {recall:.3f} ({measured.candidate_right:,} of {measured.n:,}), floor {floor:g}",
        labels_needed=lambda: labels_for_floor(proportion=recall, floor=floor, alpha=rule.alpha, power=rule.power),
    )


def _margin_claim(measured: ClassMeasurements, margin: float, policy: Policy) -> _Claim:
    paired = measured.paired
    assert paired is not None, "a report with a champion has paired counts for each class"
    kept, broken = margin_p_values(paired, margin=margin)
    rule = policy.accuracy
    return _Claim(
        measured=measured,
        kept_p=kept,
        broken_p=broken,
        figures=f"recall {paired.gain:+.3f} against the champion ({paired.candidate_only:,} fixed, "
        f"{paired.champion_only:,} broken, {paired.n:,} photos), accepted loss {margin:g}",
        labels_needed=lambda: labels_for_non_inferiority(
            gain=paired.gain, disagreement=paired.disagreement, margin=margin, alpha=rule.alpha, power=rule.power
        ),
    )


def _reasons(check: str, claims: list[_Claim], policy: Policy) -> Iterator[Reason]:
    if not claims:
        return
    alpha = policy.accuracy.alpha
    corrected = holm([claim.broken_p for claim in claims])
    passed = []
    for claim, broken_p in zip(claims, corrected, strict=True):
        if broken_p <= alpha:
            yield _broken(check, claim, broken_p)
        elif claim.measured.n < _minimum(policy):
            yield _too_few(check, claim, _minimum(policy))
        elif claim.kept_p <= alpha:
            passed.append(claim)
        else:
            yield _undecided(check, claim, policy)
    if passed:
        closest = max(passed, key=lambda claim: claim.kept_p)
        yield Reason(
            check=check,
            outcome="better",
            statement=f"Kept in {len(passed)} of {len(claims)} classes; closest is {closest.measured.label}: "
            f"{closest.figures} ({p_value_text(closest.kept_p)}).",
        )


def _minimum(policy: Policy) -> int:
    return policy.per_class.minimum_photos if policy.per_class is not None else 1


def _broken(check: str, claim: _Claim, p_value: float) -> Reason:
    label = claim.measured.label
    statement = f"{label}: {claim.figures}: broken ({p_value_text(p_value)} after Holm's correction)."
    return Reason(check=check, outcome="not better", statement=statement, label=label)


def _too_few(check: str, claim: _Claim, minimum: int) -> Reason:
    label, more = claim.measured.label, minimum - claim.measured.n
    statement = f"{label}: {claim.measured.n:,} photos, the policy asks for {minimum:,}: {more:,} more labels."
    return Reason(check=check, outcome="cannot tell", statement=statement, label=label, more_labels=more)


def _undecided(check: str, claim: _Claim, policy: Policy) -> Reason:
    label, needed = claim.measured.label, claim.labels_needed()
    more = None if needed is None else max(1, needed - claim.measured.n)
    asked = labels_text(more, power=policy.accuracy.power, label=label)
    statement = f"{label}: {claim.figures}: not shown to hold ({p_value_text(claim.kept_p)}); {asked}."
    return Reason(check=check, outcome="cannot tell", statement=statement, label=label, more_labels=more)
