from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact_sync.errors import RefusedError
from validation.gate import combine, judge
from validation.policy import Policy
from validation.report import LatencyMs, Report
from validation.verdict import Reason, Verdict

Paired = Callable[..., tuple[NDArray[np.bool_], NDArray[np.bool_]]]
MakeReport = Callable[..., Report]
MakePolicy = Callable[..., Policy]


def reason(verdict: Verdict, check: str) -> Reason:
    (found,) = [reason for reason in verdict.reasons if reason.check == check]
    return found


def test_a_clear_gain_is_better_and_says_by_how_much(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    report = make_report(*paired_right(1000, fixed=60, broken=20, neither=100))
    verdict = judge(report, policy=make_policy(), decided_at=now)
    assert verdict.outcome == "better"
    statement = reason(verdict, "accuracy, superiority").statement
    assert statement == (
        "Accuracy 0.8800 against 0.8400 on 1,000 photos: 60 fixed, 20 broken, "
        "exact one-sided McNemar p < 0.0001, at or under 0.05."
    )
    assert (verdict.report_sha256, verdict.policy_sha256) == (report.sha256, make_policy().sha256)


def test_the_same_report_and_policy_give_the_same_bytes(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    report = make_report(*paired_right(400, fixed=30, broken=12))
    again = Report.from_json(report.to_json())
    verdicts = [judge(r, policy=make_policy(), decided_at=now).to_json() for r in (report, again)]
    assert verdicts[0] == verdicts[1]
    assert Verdict.from_json(verdicts[0]).to_json() == verdicts[0]


def test_a_loss_that_is_shown_is_not_better(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    verdict = judge(make_report(*paired_right(1000, fixed=20, broken=60)), policy=make_policy(), decided_at=now)
    assert verdict.outcome == "not better"
    assert "it is shown to be worse" in reason(verdict, "accuracy, superiority").statement


def test_a_candidate_that_surely_gains_next_to_nothing_is_not_better(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    verdict = judge(make_report(*paired_right(2000, fixed=5, broken=5)), policy=make_policy(), decided_at=now)
    assert verdict.outcome == "not better"
    assert "less than the 0.01 worth a promotion" in reason(verdict, "accuracy, superiority").statement


def test_the_champion_itself_is_not_better_than_itself(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    verdict = judge(make_report(*paired_right(1000, fixed=0, broken=0)), policy=make_policy(), decided_at=now)
    assert verdict.outcome == "not better"


def test_too_little_evidence_asks_for_a_number_of_labels_that_then_decides(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    verdict = judge(make_report(*paired_right(300, fixed=12, broken=6)), policy=make_policy(), decided_at=now)
    found = reason(verdict, "accuracy, superiority")
    assert (verdict.outcome, found.outcome) == ("cannot tell", "cannot tell")
    assert found.more_labels is not None
    assert f"about {found.more_labels:,} more labels would decide with 80% power" in found.statement
    # With as many more photos at the same rates the gate decides.
    grown = (300 + found.more_labels) / 300
    report = make_report(*paired_right(round(300 * grown), fixed=round(12 * grown), broken=round(6 * grown)))
    assert judge(report, policy=make_policy(), decided_at=now).outcome == "better"


def test_a_gain_too_small_to_want_still_asks_for_labels_until_it_is_sure(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    verdict = judge(make_report(*paired_right(500, fixed=26, broken=25)), policy=make_policy(), decided_at=now)
    found = reason(verdict, "accuracy, superiority")
    assert found.outcome == "cannot tell"
    assert found.more_labels is not None
    grown = (500 + found.more_labels) / 500
    report = make_report(*paired_right(round(500 * grown), fixed=round(26 * grown), broken=round(25 * grown)))
    assert judge(report, policy=make_policy(), decided_at=now).outcome == "not better"


def test_equal_candidates_are_let_through_at_most_as_often_as_the_policy_says(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    random = np.random.default_rng(42)
    policy, histories, outcomes = make_policy(), 200, []
    for _ in range(histories):
        kind = random.choice(4, p=[0.82, 0.05, 0.05, 0.08], size=400)
        report = make_report((kind == 0) | (kind == 1), (kind == 0) | (kind == 2))
        outcomes.append(judge(report, policy=policy, decided_at=now).outcome)
    # 16 of 200 is the 96th percentile of a rate of exactly alpha.
    assert outcomes.count("better") <= 16
    assert outcomes.count("cannot tell") > 100


def test_a_small_holdout_decides_nothing(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    policy = make_policy(minimum_photos=500)
    verdict = judge(make_report(*paired_right(200, fixed=60, broken=2)), policy=policy, decided_at=now)
    assert verdict.outcome == "cannot tell"
    assert reason(verdict, "holdout size").more_labels == 300
    assert reason(verdict, "accuracy, superiority").outcome == "better"


def test_non_inferiority_lets_an_equal_model_through_and_stops_a_worse_one(
    make_report: MakeReport, make_policy: MakePolicy, paired_right: Paired, now: datetime
) -> None:
    policy = make_policy(test="non-inferiority", margin=0.02)
    outcomes = [
        judge(make_report(*paired_right(n, fixed=fixed, broken=broken)), policy=policy, decided_at=now)
        for n, fixed, broken in ((2000, 40, 40), (2000, 10, 90), (200, 8, 9))
    ]
    assert [verdict.outcome for verdict in outcomes] == ["better", "not better", "cannot tell"]
    assert reason(outcomes[2], "accuracy, non-inferiority").more_labels is not None


def test_a_first_model_needs_a_floor_to_stand_on(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    report = make_report(np.arange(300) % 10 != 0, None)
    with pytest.raises(RefusedError, match="the policy sets no floor"):
        judge(report, policy=make_policy(), decided_at=now)
    outcomes = [judge(report, policy=make_policy(floor=floor), decided_at=now).outcome for floor in (0.8, 0.89, 0.95)]
    assert outcomes == ["better", "cannot tell", "not better"]


def per_class(**rule: Any) -> dict[str, Any]:
    return {"minimum_photos": 20, **rule}


def test_one_class_below_its_floor_is_enough_to_refuse(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    right = np.ones(600, dtype=bool)
    right[1::3][:100] = False
    report = make_report(right, None, labels=("cat", "dog", "fox"))
    verdict = judge(report, policy=make_policy(per_class=per_class(recall_floor=0.8)), decided_at=now)
    assert verdict.outcome == "not better"
    broken = [found for found in verdict.reasons if found.outcome == "not better"]
    assert [found.label for found in broken] == ["dog"]
    assert "recall 0.500 (100 of 200), floor 0.8: broken" in broken[0].statement
    lower = make_policy(per_class=per_class(recall_floor=0.8, recall_floors={"dog": 0.4}))
    assert judge(report, policy=lower, decided_at=now).outcome == "better"


def test_a_floor_for_a_class_that_does_not_exist_is_refused_and_not_forgotten(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    report = make_report(np.ones(100, dtype=bool), None)
    policy = make_policy(per_class=per_class(recall_floors={"cat": 0.5, "dgo": 0.5}))
    with pytest.raises(RefusedError, match="sets recall floors for dgo, and the labels are cat, dog"):
        judge(report, policy=policy, decided_at=now)


def test_a_class_with_too_few_photos_is_named_with_what_it_lacks(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    truth = np.array([0] * 100 + [1] * 12)
    report = make_report(np.ones(112, dtype=bool), None, truth=truth)
    verdict = judge(report, policy=make_policy(per_class=per_class(recall_floor=0.5)), decided_at=now)
    found = [r for r in verdict.reasons if r.label == "dog"]
    assert verdict.outcome == "cannot tell"
    assert [(r.outcome, r.more_labels) for r in found] == [("cannot tell", 8)]


def test_a_gain_over_all_does_not_excuse_a_class_that_loses_too_much(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    truth = np.arange(1000) % 2
    champion, candidate = np.ones(1000, dtype=bool), np.ones(1000, dtype=bool)
    champion[truth == 0] = np.arange(500) % 2 == 0
    candidate[truth == 1] = np.arange(500) % 5 != 0
    report = make_report(candidate, champion, truth=truth)
    verdict = judge(report, policy=make_policy(per_class=per_class(margin=0.1)), decided_at=now)
    assert reason(verdict, "accuracy, superiority").outcome == "better"
    assert verdict.outcome == "not better"
    (broken,) = [found for found in verdict.reasons if found.outcome == "not better"]
    assert (broken.check, broken.label) == ("class loss", "dog")


def test_a_class_that_may_or_may_not_lose_too_much_asks_for_labels_of_that_class(
    make_report: MakeReport, make_policy: MakePolicy, now: datetime
) -> None:
    truth = np.array([0] * 500 + [1] * 40)
    champion, candidate = np.ones(540, dtype=bool), np.ones(540, dtype=bool)
    champion[:60] = False
    candidate[500:502] = False
    report = make_report(candidate, champion, truth=truth)
    verdict = judge(report, policy=make_policy(per_class=per_class(margin=0.1)), decided_at=now)
    assert verdict.outcome == "cannot tell"
    (open_,) = [found for found in verdict.reasons if found.outcome == "cannot tell"]
    assert open_.label == "dog"
    assert open_.more_labels is not None
    assert f"{open_.more_labels:,} more labels of dog" in open_.statement


@pytest.mark.parametrize(
    ("limits", "changes", "check"),
    [
        ({"size_bytes": 999}, {}, "size"),
        ({"load_seconds": 0.4}, {}, "load time"),
        ({"latency_p95_ms": 1.9}, {}, "latency"),
        ({"latency_p95_ratio": 2.0}, {"latency_ms": LatencyMs(p50=1, p95=4.1, p99=5)}, "latency against the champion"),
        ({}, {"non_finite_photos": 1}, "finite scores"),
        ({}, {"is_constant": True}, "looks at the photo"),
        ({}, {"golden_difference": 0.02, "golden_tolerance": 0.001}, "golden examples"),
    ],
)
def test_a_better_model_that_hosts_cannot_bear_or_that_is_unsound_is_refused(
    make_report: MakeReport,
    make_policy: MakePolicy,
    paired_right: Paired,
    now: datetime,
    limits: dict[str, Any],
    changes: dict[str, Any],
    check: str,
) -> None:
    report = make_report(*paired_right(1000, fixed=60, broken=20), **changes)
    verdict = judge(report, policy=make_policy(limits=limits), decided_at=now)
    assert verdict.outcome == "not better"
    assert [found.check for found in verdict.reasons if found.outcome == "not better"] == [check]


def test_the_worst_check_is_the_outcome() -> None:
    def said(*outcomes: Any) -> tuple[Reason, ...]:
        return tuple(Reason(check="x", outcome=outcome, statement="y") for outcome in outcomes)

    assert combine(said("better", "better")) == "better"
    assert combine(said("better", "cannot tell")) == "cannot tell"
    assert combine(said("cannot tell", "not better", "better")) == "not better"
