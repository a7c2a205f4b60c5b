"""The decision: measurements and a policy in, a verdict out, nothing else touched.

Its place in the flow: validate.py calls it last. The verdict is

    not better    if one check shows harm: worse, below a floor, beyond a limit, not worth it
    cannot tell   else, if one check needs more labels than there are
    better        else: every check is shown to hold

To be let through, *every* check must hold, so each may be tested at the full alpha: the chance to
pass a candidate that violates any one of them is at most alpha (Berger, Technometrics 24 (1982)
295). To be refused, *one* class is enough, so those tests are corrected by Holm's method.

The promise is about one comparison. Many candidates judged on one holdout add up (benchmarks/gate.py
shows by how much); a fresh holdout starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from artifact_sync.errors import RefusedError
from validation.class_checks import class_floor_reasons, class_margin_reasons
from validation.exact_margin import margin_p_values
from validation.policy import Policy
from validation.power import labels_for_floor, labels_for_non_inferiority, labels_for_superiority
from validation.proportions import floor_p_values
from validation.report import Report
from validation.statistics import PairedCounts, difference_interval, superiority_p_value
from validation.verdict import Outcome, Reason, Verdict
from validation.wording import labels_text, p_value_text


def refuse_unfit_policy(policy: Policy, *, labels: Sequence[str], is_first: bool) -> None:
    """Check that the policy can be applied to a model with these labels, before anything is measured.

    Raises:
        RefusedError: there is no champion to beat and the policy sets no floor either, or the policy
            sets a floor for a class that does not exist.
    """
    if is_first and not policy.has_floor:
        raise RefusedError(
            "Validation refused: a first model has no champion to beat, and the policy sets no floor. "
            "Set accuracy.floor or per_class.recall_floor in the policy."
        )
    named = policy.per_class.recall_floors if policy.per_class is not None else {}
    strangers = sorted(set(named) - set(labels))
    if strangers:
        raise RefusedError(
            f"Validation refused: the policy sets recall floors for {', '.join(strangers)}, and the labels are "
            f"{', '.join(labels)}. Correct per_class.recall_floors in the policy."
        )


def judge(report: Report, *, policy: Policy, decided_at: datetime) -> Verdict:
    """Return the verdict; the same report and policy give the same outcome and reasons.

    Raises:
        RefusedError: as `refuse_unfit_policy`.
    """
    refuse_unfit_policy(policy, labels=report.labels, is_first=report.paired is None)
    reasons = tuple(_reasons(report, policy))
    return Verdict(
        run_id=report.run_id,
        model=report.model,
        outcome=combine(reasons),
        reasons=reasons,
        candidate_manifest_sha256=report.candidate.manifest_sha256,
        champion=report.champion_reference,
        holdout_sha256=report.holdout_sha256,
        policy_sha256=policy.sha256,
        report_sha256=report.sha256,
        decided_at=decided_at,
    )


def combine(reasons: tuple[Reason, ...]) -> Outcome:
    """Return the outcome of all checks together: the worst one."""
    outcomes = {reason.outcome for reason in reasons}
    if "not better" in outcomes:
        return "not better"
    return "cannot tell" if "cannot tell" in outcomes else "better"


def _reasons(report: Report, policy: Policy) -> Iterator[Reason]:
    yield from _enough_photos(report, policy)
    if report.paired is not None:
        yield _accuracy(report, report.paired, policy)
    if policy.accuracy.floor is not None:
        yield _accuracy_floor(report, policy, policy.accuracy.floor)
    if policy.per_class is not None:
        yield from class_floor_reasons(report, policy)
        yield from class_margin_reasons(report, policy)
    yield from _soundness(report, policy)
    yield from _limits(report, policy)


def _enough_photos(report: Report, policy: Policy) -> Iterator[Reason]:
    missing = policy.accuracy.minimum_photos - report.photos
    if missing > 0:
        yield Reason(
            check="holdout size",
            outcome="cannot tell",
            statement=f"The holdout has {report.photos:,} photos, the policy asks for "
            f"{policy.accuracy.minimum_photos:,}: {missing:,} more labels are needed.",
            more_labels=missing,
        )


def _accuracy(report: Report, paired: PairedCounts, policy: Policy) -> Reason:
    test = _superiority if policy.accuracy.test == "superiority" else _non_inferiority
    outcome, finding, more = test(paired, policy)
    figures = (
        f"Accuracy {report.candidate_accuracy:.4f} against {report.champion_accuracy:.4f} on {report.photos:,} photos: "
        f"{paired.candidate_only:,} fixed, {paired.champion_only:,} broken, {finding}"
    )
    return Reason(check=f"accuracy, {policy.accuracy.test}", outcome=outcome, statement=figures, more_labels=more)


def _superiority(paired: PairedCounts, policy: Policy) -> tuple[Outcome, str, int | None]:
    rule = policy.accuracy
    p_value = superiority_p_value(paired)
    shown = f"exact one-sided McNemar {p_value_text(p_value)}"
    if p_value <= rule.alpha:
        return "better", f"{shown}, at or under {rule.alpha:g}.", None
    upper = difference_interval(paired, confidence=1 - 2 * rule.alpha)[1]
    if superiority_p_value(paired.reversed()) <= rule.alpha:
        return "not better", f"{shown}: it is shown to be worse.", None
    if upper < rule.smallest_gain:
        found = f"{shown}: at best it gains {upper:+.4f}, less than the {rule.smallest_gain:g} worth a promotion."
        return "not better", found, None
    more = _more_for_superiority(paired, policy, upper=upper)
    return "cannot tell", f"{shown}, above {rule.alpha:g}; {labels_text(more, power=rule.power)}.", more


def _more_for_superiority(paired: PairedCounts, policy: Policy, *, upper: float) -> int | None:
    rule = policy.accuracy
    # One imagined disagreement more, so that perfect agreement does not ask for no labels at all.
    disagreement = max(paired.disagreement, 1 / (paired.n + 1))
    gain = max(paired.gain, rule.smallest_gain)
    needed = labels_for_superiority(gain=gain, disagreement=disagreement, alpha=rule.alpha, power=rule.power)
    if needed is None:
        return None
    if paired.gain < rule.smallest_gain:
        # If what was seen goes on, the upper end falls under the smallest gain at this many photos.
        shrink = (upper - paired.gain) / (rule.smallest_gain - paired.gain)
        needed = max(needed, round(paired.n * shrink**2))
    return max(1, needed - paired.n)


def _non_inferiority(paired: PairedCounts, policy: Policy) -> tuple[Outcome, str, int | None]:
    rule = policy.accuracy
    margin = rule.margin or 0.0
    not_inferior, inferior = margin_p_values(paired, margin=margin)
    shown = f"score test of a loss of {margin:g}: {p_value_text(not_inferior)}"
    if not_inferior <= rule.alpha:
        return "better", f"{shown}, at or under {rule.alpha:g}: it is not inferior.", None
    if inferior <= rule.alpha:
        return "not better", f"{shown}: it is shown to lose more than that.", None
    needed = labels_for_non_inferiority(
        gain=paired.gain, disagreement=paired.disagreement, margin=margin, alpha=rule.alpha, power=rule.power
    )
    more = None if needed is None else max(1, needed - paired.n)
    return "cannot tell", f"{shown}, above {rule.alpha:g}; {labels_text(more, power=rule.power)}.", more


def _accuracy_floor(report: Report, policy: Policy, floor: float) -> Reason:
    rule, accuracy = policy.accuracy, report.candidate_accuracy
    reached, missed = floor_p_values(report.candidate.right, report.photos, floor=floor)
    statement = f"Accuracy {accuracy:.4f} on {report.photos:,} photos, the floor is {floor:g}"
    if reached <= rule.alpha:
        return Reason(check="accuracy floor", outcome="better", statement=f"{statement} ({p_value_text(reached)}).")
    if missed <= rule.alpha:
        return Reason(check="accuracy floor", outcome="not better", statement=f"{statement}: it is missed.")
    needed = labels_for_floor(proportion=accuracy, floor=floor, alpha=rule.alpha, power=rule.power)
    more = None if needed is None else max(1, needed - report.photos)
    said = f"{statement}: too close to say ({p_value_text(reached)}); {labels_text(more, power=rule.power)}."
    return Reason(check="accuracy floor", outcome="cannot tell", statement=said, more_labels=more)


def _soundness(report: Report, policy: Policy) -> Iterator[Reason]:
    model = report.candidate
    share, allowed = model.non_finite_photos / report.photos, policy.limits.maximum_nan_share
    yield _bound(
        "finite scores",
        share <= allowed,
        f"{model.non_finite_photos:,} of {report.photos:,} photos are answered with NaN or infinity; "
        f"{allowed:.2%} are allowed.",
    )
    if model.is_constant:
        yield _bound("looks at the photo", False, "Every photo gets the same scores: the model ignores its input.")
    if model.golden_difference is not None and model.golden_tolerance is not None:
        yield _bound(
            "golden examples",
            model.golden_difference <= model.golden_tolerance,
            f"The golden examples' scores are off by at most {model.golden_difference:.2g} on this server; "
            f"{model.golden_tolerance:g} is allowed.",
        )


def _limits(report: Report, policy: Policy) -> Iterator[Reason]:
    model, limits = report.candidate, policy.limits
    if limits.size_bytes is not None:
        found = f"The export has {model.size_bytes:,} bytes; {limits.size_bytes:,} are allowed."
        yield _bound("size", model.size_bytes <= limits.size_bytes, found)
    if limits.load_seconds is not None:
        found = f"It loads in {model.load_seconds:.2f} s; {limits.load_seconds:g} s are allowed."
        yield _bound("load time", model.load_seconds <= limits.load_seconds, found)
    p95 = model.latency_ms.p95
    if limits.latency_p95_ms is not None:
        found = f"95 % of single photos are answered within {p95:.1f} ms; {limits.latency_p95_ms:g} ms are allowed."
        yield _bound("latency", p95 <= limits.latency_p95_ms, found)
    if limits.latency_p95_ratio is not None and report.champion is not None:
        reference = report.champion.latency_ms.p95
        found = (
            f"95 % of single photos are answered within {p95:.1f} ms, the champion's within {reference:.1f} ms; "
            f"{limits.latency_p95_ratio:g} times that is allowed."
        )
        yield _bound("latency against the champion", p95 <= limits.latency_p95_ratio * reference, found)


def _bound(check: str, holds: bool, statement: str) -> Reason:
    return Reason(check=check, outcome="better" if holds else "not better", statement=statement)
