"""The gate's checks that rest on no sample: soundness, and what the serving hosts can bear.

Its place in the flow: gate.py asks for these reasons; a measurement is under its line or it is not,
so they cost nothing of the error budget.
"""

from __future__ import annotations

from collections.abc import Iterator

from validation.checks.policy import Policy
from validation.checks.verdict import Reason
from validation.checks.wording import names_text
from validation.reports.report import ModelMeasurements, Report


def fixed_reasons(report: Report, *, policy: Policy) -> tuple[Reason, ...]:
    """Return what each of these checks says of the candidate."""
    return (*_soundness(report, policy), *_leakage(report, policy), *_limits(report, policy))


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
    order = report.label_order
    if order is not None:
        shown = names_text(order.labels, most=20)
        yield _bound(
            "label order",
            False,
            f"Its scores fit the labels better in the order {shown}: accuracy {order.accuracy:.4f} instead of "
            f"{report.candidate_accuracy:.4f}. The columns seem to be exchanged; export the run with the right order.",
        )
    yield from _golden(model)


def _golden(model: ModelMeasurements) -> Iterator[Reason]:
    difference, drift, allowed = model.golden_difference, model.golden_drift, model.golden_tolerance
    if difference is not None and allowed is not None:
        yield _bound(
            "golden examples",
            difference <= allowed,
            f"The golden examples' scores are off by at most {difference:.2g} on this server; {allowed:g} is allowed.",
        )
    if drift is not None and allowed is not None:
        yield _bound(
            "golden examples, asked twice",
            drift <= allowed,
            f"Asked twice on one server, the golden examples' scores differ by at most {drift:.2g}; "
            f"{allowed:g} is allowed.",
        )


def _leakage(report: Report, policy: Policy) -> Iterator[Reason]:
    if report.near_duplicates is None:
        return
    found = len(report.near_duplicates) + report.sealed_near_duplicates
    allowed = policy.leakage.maximum_share
    # The report's figures leave them out, so they come on top of the photos that it speaks of.
    photos = report.photos + report.sealed_photos + found
    holds = found <= allowed * photos
    statement = f"{found:,} of {photos:,} photos look like training photos and are left out; {allowed:.2%} are allowed."
    way_out = "" if holds else " Build the dataset without them and train again, or freeze a holdout of other photos."
    # This says nothing of the candidate, only that this holdout cannot judge it.
    yield Reason(
        check="near duplicates", outcome="better" if holds else "cannot tell", statement=f"{statement}{way_out}"
    )


def _limits(report: Report, policy: Policy) -> Iterator[Reason]:
    model, limits = report.candidate, policy.limits
    if limits.size_bytes is not None:
        found = f"The export has {model.size_bytes:,} bytes; {limits.size_bytes:,} are allowed."
        yield _bound("size", model.size_bytes <= limits.size_bytes, found)
    if limits.load_seconds is not None:
        found = f"It loads in {model.load_seconds:.2f} s; {limits.load_seconds:g} s are allowed."
        yield _bound("load time", model.load_seconds <= limits.load_seconds, found)
    if limits.memory_bytes is not None:
        yield _memory(report, limits.memory_bytes)
    yield from _latency(report, policy)


def _memory(report: Report, allowed: int) -> Reason:
    held = "candidate and champion" if report.champion is not None else "the candidate"
    if report.memory_bytes is None:
        return Reason(
            check="memory",
            outcome="cannot tell",
            statement=f"The memory of a server that holds {held} could not be measured here; the policy allows "
            f"{allowed:,} bytes. Validate on a machine where it can, or take limits.memory_bytes out of the policy.",
        )
    found = f"A server that holds {held} and answers takes {report.memory_bytes:,} bytes; {allowed:,} are allowed."
    return _bound("memory", report.memory_bytes <= allowed, found)


def _latency(report: Report, policy: Policy) -> Iterator[Reason]:
    latency, limits = report.candidate.latency_ms, policy.limits
    for share, name, measured, allowed in (
        (50, "latency p50", latency.p50, limits.latency_p50_ms),
        (95, "latency", latency.p95, limits.latency_p95_ms),
        (99, "latency p99", latency.p99, limits.latency_p99_ms),
    ):
        if allowed is not None:
            found = f"{share} % of single photos are answered within {measured:.1f} ms; {allowed:g} ms are allowed."
            yield _bound(name, measured <= allowed, found)
    if limits.latency_p95_ratio is not None and report.champion is not None:
        reference = report.champion.latency_ms.p95
        found = (
            f"95 % of single photos are answered within {latency.p95:.1f} ms, the champion's within "
            f"{reference:.1f} ms; {limits.latency_p95_ratio:g} times that is allowed."
        )
        yield _bound("latency against the champion", latency.p95 <= limits.latency_p95_ratio * reference, found)


def _bound(check: str, holds: bool, statement: str) -> Reason:
    return Reason(check=check, outcome="better" if holds else "not better", statement=statement)
