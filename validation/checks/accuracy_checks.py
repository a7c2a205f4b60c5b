"""The gate's checks of accuracy over all photos: against the champion, and against a floor.

Its place in the flow: gate.py asks for these claims and, of the open photos, for what they say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from validation.checks.claims import Claim, Finding, Question
from validation.checks.groups import Counts, Tally
from validation.checks.policy import Policy
from validation.checks.wording import p_value_text
from validation.figures.exact_margin import labels_for_margin, margin_p_values
from validation.figures.power import labels_for_floor, labels_for_superiority
from validation.figures.proportions import floor_p_values
from validation.figures.statistics import PairedCounts, difference_interval, superiority_p_value


def accuracy_claims(counts: Counts, *, policy: Policy, photos: str = "photos") -> Iterator[Claim]:
    """Yield what the policy wants shown over all photos; the accuracy against the champion first, if there is one."""
    whole, rule = counts.whole, policy.accuracy
    if whole.paired is not None:
        yield (
            _superiority(whole.paired, policy)
            if rule.test == "superiority"
            else _non_inferiority(whole.paired, margin=rule.margin or 0.0)
        )
    if rule.floor is not None:
        yield _floor(whole, floor=rule.floor, photos=photos)


def accuracy_findings(counts: Counts, *, policy: Policy, question: Question) -> Iterator[Finding]:
    """Yield what the shown photos say of each of these claims."""
    for claim in accuracy_claims(counts, policy=policy, photos=question.photos):
        if claim.check == "accuracy floor":
            yield _floor_finding(claim, question)
        else:
            paired = counts.whole.paired
            assert paired is not None, "a claim against the champion rests on paired counts"
            accuracies = f"Accuracy {counts.whole.accuracy:.4f} against {counts.whole.accuracy - paired.gain:.4f}"
            found = (
                _superiority_finding(claim, paired, policy, question)
                if policy.accuracy.test == "superiority"
                else _non_inferiority_finding(claim, question)
            )
            yield replace(found, statement=f"{accuracies} on {paired.n:,} {question.photos}: {found.statement}")


def _superiority(paired: PairedCounts, policy: Policy) -> Claim:
    # One imagined disagreement more, so that perfect agreement does not ask for no labels at all.
    disagreement = max(paired.disagreement, 1 / (paired.n + 1))
    gain = max(paired.gain, policy.accuracy.smallest_gain)
    p_value = superiority_p_value(paired)
    return Claim(
        check="accuracy, superiority",
        group=None,
        n=paired.n,
        figures=f"{_changes(paired)}, exact one-sided McNemar {p_value_text(p_value)}",
        p_values=lambda: (p_value, superiority_p_value(paired.reversed())),
        labels_needed=lambda level, power: labels_for_superiority(
            gain=gain, disagreement=disagreement, alpha=level, power=power
        ),
    )


def _superiority_finding(claim: Claim, paired: PairedCounts, policy: Policy, question: Question) -> Finding:
    alpha, smallest = question.alpha, policy.accuracy.smallest_gain
    if claim.kept_p <= alpha:
        return claim.finding("better", f", at or under {alpha:g}")
    if claim.broken_p <= alpha:
        return claim.finding("not better", ": it is shown to be worse")
    upper = difference_interval(paired, confidence=1 - 2 * alpha)[1]
    if upper < smallest:
        said = f": at best it gains {upper:+.4f}, less than the {smallest:g} worth a promotion"
        return claim.finding("not better", said)
    more, text = question.missing(claim)
    if question.sealed is None and more is not None and paired.gain < smallest:
        # If what was seen goes on, the upper end falls under the smallest gain at this many photos.
        shrink = (upper - paired.gain) / (smallest - paired.gain)
        more = question.more(max(paired.n + more, round(paired.n * shrink**2)), n=paired.n, group=None)
        text = question.text(more)
    return claim.finding("cannot tell", f", above {alpha:g}", ask=text, more=more)


def _non_inferiority(paired: PairedCounts, *, margin: float) -> Claim:
    p_values = margin_p_values(paired, margin=margin)
    return Claim(
        check="accuracy, non-inferiority",
        group=None,
        n=paired.n,
        figures=f"{_changes(paired)}, exact test of a loss of {margin:g}: {p_value_text(p_values[0])}",
        p_values=lambda: p_values,
        labels_needed=lambda level, power: labels_for_margin(paired, margin=margin, alpha=level, power=power),
    )


def _non_inferiority_finding(claim: Claim, question: Question) -> Finding:
    alpha = question.alpha
    if claim.kept_p <= alpha:
        return claim.finding("better", f", at or under {alpha:g}: it is not inferior")
    if claim.broken_p <= alpha:
        return claim.finding("not better", ": it is shown to lose more than that")
    more, text = question.missing(claim)
    return claim.finding("cannot tell", f", above {alpha:g}", ask=text, more=more)


def _floor(whole: Tally, *, floor: float, photos: str) -> Claim:
    return Claim(
        check="accuracy floor",
        group=None,
        n=whole.n,
        figures=f"Accuracy {whole.accuracy:.4f} on {whole.n:,} {photos}, the floor is {floor:g}",
        p_values=lambda: floor_p_values(whole.right, whole.n, floor=floor),
        labels_needed=lambda level, power: labels_for_floor(
            proportion=whole.accuracy, floor=floor, alpha=level, power=power
        ),
    )


def _floor_finding(claim: Claim, question: Question) -> Finding:
    if claim.kept_p <= question.alpha:
        return claim.finding("better", f" ({p_value_text(claim.kept_p)})")
    if claim.broken_p <= question.alpha:
        return claim.finding("not better", ": it is missed")
    more, text = question.missing(claim)
    return claim.finding("cannot tell", f": too close to say ({p_value_text(claim.kept_p)})", ask=text, more=more)


def _changes(paired: PairedCounts) -> str:
    return f"{paired.candidate_only:,} fixed, {paired.champion_only:,} broken"
