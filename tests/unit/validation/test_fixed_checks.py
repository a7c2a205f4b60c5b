from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from validation.checks.fixed_checks import fixed_reasons
from validation.checks.policy import Policy
from validation.reports.report import LabelOrder, LatencyMs, NearDuplicate, Report

MakeReport = Callable[..., Report]
MakePolicy = Callable[..., Policy]


@pytest.fixture
def report(make_report: MakeReport) -> Callable[..., Report]:
    """A report of 100 photos, a champion beside the candidate, changed as told."""

    def build(*, fields: dict[str, Any] | None = None, **candidate: Any) -> Report:
        right = np.arange(100) % 10 != 0
        return make_report(right, right, **candidate).model_copy(update=fields or {})

    return build


@pytest.mark.parametrize(
    ("limits", "candidate", "check"),
    [
        ({"size_bytes": 999}, {}, "size"),
        ({"load_seconds": 0.4}, {}, "load time"),
        ({"latency_p50_ms": 0.9}, {}, "latency p50"),
        ({"latency_p95_ms": 1.9}, {}, "latency"),
        ({"latency_p99_ms": 2.9}, {}, "latency p99"),
        ({"latency_p95_ratio": 2.0}, {"latency_ms": LatencyMs(p50=1, p95=4.1, p99=5)}, "latency against the champion"),
        ({}, {"non_finite_photos": 1}, "finite scores"),
        ({}, {"is_constant": True}, "looks at the photo"),
        ({}, {"golden_difference": 0.02, "golden_tolerance": 0.001}, "golden examples"),
        (
            {},
            {"golden_difference": 0.0, "golden_drift": 0.01, "golden_tolerance": 0.001},
            "golden examples, asked twice",
        ),
    ],
)
def test_what_is_unsound_or_too_much_for_the_hosts_is_refused_by_name(
    report: Callable[..., Report],
    make_policy: MakePolicy,
    limits: dict[str, Any],
    candidate: dict[str, Any],
    check: str,
) -> None:
    reasons = fixed_reasons(report(**candidate), policy=make_policy(limits=limits))
    assert [found.check for found in reasons if found.outcome == "not better"] == [check]


def test_what_lies_on_the_limit_is_kept(report: Callable[..., Report], make_policy: MakePolicy) -> None:
    limits = {
        "size_bytes": 1000,
        "load_seconds": 0.5,
        "latency_p50_ms": 1.0,
        "latency_p95_ms": 2.0,
        "latency_p99_ms": 3.0,
        "latency_p95_ratio": 1.0,
        "memory_bytes": 5000,
    }
    found = report(fields={"memory_bytes": 5000}, golden_difference=0.001, golden_drift=0.001, golden_tolerance=0.001)
    reasons = fixed_reasons(found, policy=make_policy(limits=limits))
    assert len(reasons) == 10
    assert {reason.outcome for reason in reasons} == {"better"}


def test_memory_of_both_models_is_held_against_the_host(report: Callable[..., Report], make_policy: MakePolicy) -> None:
    policy = make_policy(limits={"memory_bytes": 5000})
    outcomes = [fixed_reasons(report(fields={"memory_bytes": taken}), policy=policy)[-1] for taken in (5001, None)]
    assert [reason.outcome for reason in outcomes] == ["not better", "cannot tell"]
    assert "holds candidate and champion and answers takes 5,001 bytes" in outcomes[0].statement
    assert "could not be measured" in outcomes[1].statement


def test_exchanged_columns_are_named_in_the_order_that_fits(
    report: Callable[..., Report], make_policy: MakePolicy
) -> None:
    order = LabelOrder(labels=("dog", "cat"), accuracy=0.97)
    reasons = fixed_reasons(report(fields={"label_order": order}), policy=make_policy())
    (found,) = [reason for reason in reasons if reason.check == "label order"]
    assert found.outcome == "not better"
    assert "in the order dog, cat: accuracy 0.9700 instead of 0.9000" in found.statement


@pytest.mark.parametrize(("duplicates", "outcome"), [(0, "better"), (11, "better"), (12, "cannot tell")])
def test_too_many_near_duplicates_make_the_holdout_unfit(
    report: Callable[..., Report], make_policy: MakePolicy, duplicates: int, outcome: str
) -> None:
    near = tuple(
        NearDuplicate(sha256=f"{index:064x}", label="cat", training_sha256="a" * 64, distance=2)
        for index in range(duplicates)
    )
    # Of sealed ones only the number is known.
    named = {"near_duplicates": near[:5], "sealed_near_duplicates": len(near[5:])}
    reasons = fixed_reasons(report(fields=named), policy=make_policy())
    (found,) = [reason for reason in reasons if reason.check == "near duplicates"]
    assert found.outcome == outcome
    assert f"{duplicates} of {100 + duplicates} photos look like training photos" in found.statement
