from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from validation.answers import Answers
from validation.checks.claims import Question
from validation.checks.gate import (
    SEALED_CHECK,
    Preliminary,
    combine,
    confirms,
    decide,
    holds,
    preliminary,
    sampled_findings,
)
from validation.checks.policy import Policy
from validation.checks.verdict import BudgetUse, Reason, Verdict
from validation.reports.report import Report

Paired = Callable[..., tuple[NDArray[np.bool_], NDArray[np.bool_]]]
MakeAnswers = Callable[..., Answers]
MakeReport = Callable[..., Report]
MakePolicy = Callable[..., Policy]


def sampled_reasons(
    answers: Answers, *, policy: Policy, alpha: float | None = None, level: float | None = None
) -> tuple[Reason, ...]:
    alpha = policy.accuracy.alpha if alpha is None else alpha
    question = Question(alpha=alpha, level=alpha if level is None else level, power=policy.accuracy.power)
    return tuple(finding.reason for finding in sampled_findings(answers, policy, question))


def only(reasons: tuple[Reason, ...], check: str) -> Reason:
    (found,) = [reason for reason in reasons if reason.check == check]
    return found


def accuracy(answers: Answers, policy: Policy, **changes: Any) -> Reason:
    return only(sampled_reasons(answers, policy=policy, **changes), f"accuracy, {policy.accuracy.test}")


class TestAccuracy:
    def test_a_clear_gain_is_shown_and_says_by_how_much(
        self, make_answers: MakeAnswers, make_policy: MakePolicy, paired_right: Paired
    ) -> None:
        found = accuracy(make_answers(*paired_right(1000, fixed=60, broken=20, neither=100)), make_policy())
        assert found.outcome == "better"
        assert found.statement == (
            "Accuracy 0.8800 against 0.8400 on 1,000 photos: 60 fixed, 20 broken, "
            "exact one-sided McNemar p < 0.0001, at or under 0.05."
        )

    @pytest.mark.parametrize(
        ("n", "fixed", "broken", "said"),
        [
            (1000, 20, 60, "it is shown to be worse"),
            (2000, 5, 5, "less than the 0.01 worth a promotion"),
            (1000, 0, 0, "less than the 0.01 worth a promotion"),
        ],
    )
    def test_what_is_worse_or_surely_gains_next_to_nothing_is_not_better(
        self,
        make_answers: MakeAnswers,
        make_policy: MakePolicy,
        paired_right: Paired,
        n: int,
        fixed: int,
        broken: int,
        said: str,
    ) -> None:
        found = accuracy(make_answers(*paired_right(n, fixed=fixed, broken=broken)), make_policy())
        assert found.outcome == "not better"
        assert said in found.statement

    @pytest.mark.parametrize(("n", "fixed", "broken", "then"), [(300, 12, 6, "better"), (500, 26, 25, "not better")])
    def test_too_little_evidence_asks_for_a_number_of_labels_that_then_decides(
        self,
        make_answers: MakeAnswers,
        make_policy: MakePolicy,
        paired_right: Paired,
        n: int,
        fixed: int,
        broken: int,
        then: str,
    ) -> None:
        found = accuracy(make_answers(*paired_right(n, fixed=fixed, broken=broken)), make_policy())
        assert found.outcome == "cannot tell"
        assert found.more_labels is not None
        assert f"about {found.more_labels:,} more labels would decide with 80% power" in found.statement
        # With as many more photos at the same rates the gate decides.
        grown = (n + found.more_labels) / n
        right = paired_right(round(n * grown), fixed=round(fixed * grown), broken=round(broken * grown))
        assert accuracy(make_answers(*right), make_policy()).outcome == then

    def test_a_sterner_level_asks_for_more_labels(
        self, make_answers: MakeAnswers, make_policy: MakePolicy, paired_right: Paired
    ) -> None:
        answers = make_answers(*paired_right(300, fixed=12, broken=6))
        usual, stern = (accuracy(answers, make_policy(), level=level).more_labels for level in (0.05, 0.001))
        assert usual is not None
        assert stern is not None
        assert stern > 2 * usual

    def test_non_inferiority_lets_an_equal_model_through_and_stops_a_worse_one(
        self, make_answers: MakeAnswers, make_policy: MakePolicy, paired_right: Paired
    ) -> None:
        policy = make_policy(test="non-inferiority", margin=0.02)
        found = [
            accuracy(make_answers(*paired_right(n, fixed=fixed, broken=broken)), policy)
            for n, fixed, broken in ((2000, 40, 40), (2000, 10, 90), (200, 8, 9))
        ]
        assert [reason.outcome for reason in found] == ["better", "not better", "cannot tell"]
        assert found[2].more_labels is not None

    def test_a_floor_is_reached_missed_or_too_close(self, make_answers: MakeAnswers, make_policy: MakePolicy) -> None:
        answers = make_answers(np.arange(300) % 10 != 0, None)
        found = [sampled_reasons(answers, policy=make_policy(floor=floor)) for floor in (0.8, 0.89, 0.95)]
        assert [combine(reasons) for reasons in found] == ["better", "cannot tell", "not better"]


def per_class(**rule: Any) -> dict[str, Any]:
    return {"minimum_photos": 20, **rule}


class TestGroups:
    def test_one_class_below_its_floor_is_enough_to_refuse(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        right = np.ones(600, dtype=bool)
        right[1::3][:100] = False
        answers = make_answers(right, None, labels=("cat", "dog", "fox"))
        reasons = sampled_reasons(answers, policy=make_policy(per_class=per_class(recall_floor=0.8)))
        (broken,) = [found for found in reasons if found.outcome == "not better"]
        assert broken.label == "dog"
        assert "recall 0.500 (100 of 200), floor 0.8: broken" in broken.statement
        lower = make_policy(per_class=per_class(recall_floor=0.8, recall_floors={"dog": 0.4}))
        assert combine(sampled_reasons(answers, policy=lower)) == "better"

    def test_a_gain_over_all_does_not_excuse_a_class_that_loses_too_much(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        truth = np.arange(1000) % 2
        champion, candidate = np.ones(1000, dtype=bool), np.ones(1000, dtype=bool)
        champion[truth == 0] = np.arange(500) % 2 == 0
        candidate[truth == 1] = np.arange(500) % 5 != 0
        answers = make_answers(candidate, champion, truth=truth)
        policy = make_policy(per_class=per_class(margin=0.1))
        assert accuracy(answers, policy).outcome == "better"
        (broken,) = [found for found in sampled_reasons(answers, policy=policy) if found.outcome == "not better"]
        assert (broken.check, broken.label) == ("class loss", "dog")
        assert not holds(answers, policy=policy, level=0.05)

    def test_a_class_that_may_or_may_not_lose_too_much_asks_for_labels_of_that_class(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        truth = np.array([0] * 500 + [1] * 40)
        champion, candidate = np.ones(540, dtype=bool), np.ones(540, dtype=bool)
        champion[:60] = False
        candidate[500:502] = False
        answers = make_answers(candidate, champion, truth=truth)
        reasons = sampled_reasons(answers, policy=make_policy(per_class=per_class(margin=0.1)))
        (open_,) = [found for found in reasons if found.outcome == "cannot tell"]
        assert open_.label == "dog"
        assert open_.more_labels is not None
        assert f"{open_.more_labels:,} more labels of dog" in open_.statement

    def test_a_slice_that_loses_is_named_by_its_column(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        champion, candidate = np.ones(900, dtype=bool), np.ones(900, dtype=bool)
        champion[:150] = False
        candidate[800:840] = False
        slices = [{"device": "phone" if place >= 800 else "camera", "site": "a"} for place in range(900)]
        answers = make_answers(candidate, champion, slices=slices)
        document = {"per_slice": {"minimum_photos": 20, "margin": 0.05, "accuracy_floor": 0.5, "columns": ["device"]}}
        policy = make_policy(document=document)
        reasons = sampled_reasons(answers, policy=policy)
        broken = [found for found in reasons if found.outcome == "not better"]
        assert [(found.check, found.slice, found.label) for found in broken] == [("slice loss", "device = phone", None)]
        assert "closest is device = phone: accuracy 0.600" in only(reasons, "slice floor").statement
        assert not any("site" in found.statement for found in reasons)
        assert not holds(answers, policy=policy, level=0.05)

    def test_harm_in_one_of_many_slices_is_corrected_for_their_number(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        champion, candidate = np.ones(2000, dtype=bool), np.ones(2000, dtype=bool)
        # Nine lost of forty: shown to be more than a tenth where nothing else is asked, nothing among fifty slices.
        candidate[:9] = False
        slices = [{"site": str(place // 40)} for place in range(2000)]
        document = {"per_slice": {"minimum_photos": 20, "margin": 0.1}}
        policy = make_policy(test="non-inferiority", margin=0.05, document=document)
        many = sampled_reasons(make_answers(candidate, champion, slices=slices), policy=policy)
        alone = sampled_reasons(make_answers(candidate[:40], champion[:40], slices=slices[:40]), policy=policy)
        assert [found.outcome for found in alone if found.slice == "site = 0"] == ["not better"]
        assert [found.outcome for found in many if found.slice == "site = 0"] == ["cannot tell"]

    def test_very_many_undecided_classes_share_a_sentence(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        labels = tuple(f"class-{index:03}" for index in range(200))
        answers = make_answers(np.arange(1000) % 2 == 0, None, labels=labels)
        reasons = sampled_reasons(answers, policy=make_policy(per_class=per_class(recall_floor=0.5)))
        undecided = [found for found in reasons if found.outcome == "cannot tell"]
        assert len(undecided) == 51
        assert undecided[-1].statement.startswith("The same holds for 50 more classes: class-101, class-103")


class TestHolds:
    def test_equal_candidates_pass_at_most_as_often_as_the_level_says(
        self, make_answers: MakeAnswers, make_policy: MakePolicy
    ) -> None:
        random = np.random.default_rng(42)
        template = make_answers(np.ones(400, dtype=bool), np.ones(400, dtype=bool))
        wrong, policy, passed = template.candidate[:, ::-1], make_policy(), 0
        for _ in range(1000):
            kind = random.choice(4, p=[0.82, 0.05, 0.05, 0.08], size=400)[:, np.newaxis]
            answers = replace(
                template,
                candidate=np.where(kind <= 1, template.candidate, wrong),
                champion=np.where((kind == 0) | (kind == 2), template.candidate, wrong),
            )
            passed += holds(answers, policy=policy, level=0.05)
        # 65 of 1000 is the 98.5th percentile of a rate of exactly alpha.
        assert 10 < passed <= 65

    def test_every_check_counts_and_a_policy_that_wants_nothing_shows_nothing(
        self, make_answers: MakeAnswers, make_policy: MakePolicy, paired_right: Paired
    ) -> None:
        answers = make_answers(*paired_right(1000, fixed=60, broken=20, neither=100))
        assert holds(answers, policy=make_policy(), level=0.001)
        assert not holds(answers, policy=make_policy(), level=1e-9)
        assert not holds(answers, policy=make_policy(floor=0.87), level=0.001)
        assert holds(answers, policy=make_policy(floor=0.8), level=0.001)
        bad = {"metrics": [{"name": "macro_f1", "test": "non-inferiority", "margin": 0.01, "floor": 0.95}]}
        assert not holds(answers, policy=make_policy(document=bad), level=0.001)
        first = make_answers(np.ones(100, dtype=bool), None)
        assert not holds(first, policy=make_policy(), level=0.05), "no champion, no floor: nothing is shown"
        assert not holds(answers.select(np.zeros(1000, dtype=bool)), policy=make_policy(), level=0.05)

    def test_more_nan_than_allowed_is_not_let_through(
        self, make_answers: MakeAnswers, make_policy: MakePolicy, paired_right: Paired
    ) -> None:
        answers = make_answers(*paired_right(1000, fixed=60, broken=10))
        scores = answers.candidate.copy()
        scores[:5] = np.nan
        broken = replace(answers, candidate=scores)
        assert not holds(broken, policy=make_policy(), level=0.05)
        assert holds(broken, policy=make_policy(limits={"maximum_nan_share": 0.005}), level=0.05)


def use(*, is_confirmed: bool, **changes: Any) -> BudgetUse:
    fields = {"number": 1, "entry_sha256": "f" * 64, "level": 0.0222, "sealed_photos": 900, "tries_left": 9}
    return BudgetUse.model_validate({**fields, "is_confirmed": is_confirmed, "is_opened": False, **changes})


@pytest.fixture
def parted(make_answers: MakeAnswers) -> Callable[..., Answers]:
    """Build answers of which the first `opened` photos are open; fixed and broken photos are given for either part."""

    def build(opened: tuple[int, int, int], sealed: tuple[int, int, int], **changes: Any) -> Answers:
        candidate, champion = [], []
        for n, fixed, broken in (opened, sealed):
            candidate += [True] * fixed + [False] * broken + [True] * (n - fixed - broken)
            champion += [False] * fixed + [True] * broken + [True] * (n - fixed - broken)
        is_open = np.arange(opened[0] + sealed[0]) < opened[0]
        return make_answers(np.array(candidate), np.array(champion), is_open=is_open, **changes)

    return build


@pytest.fixture
def known(make_report: MakeReport, paired_right: Paired) -> Callable[..., tuple[Report, Preliminary]]:
    def build(answers: Answers, policy: Policy, **changes: Any) -> tuple[Report, Preliminary]:
        report = make_report(*paired_right(100, fixed=6, broken=3), **changes)
        return report, preliminary(report, answers, policy=policy, fresh_level=0.0222)

    return build


Parted = Callable[..., Answers]
Known = Callable[..., tuple[Report, Preliminary]]


class TestDecide:
    def test_what_the_sealed_photos_confirm_is_better_and_each_check_says_so(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy(per_class=per_class(margin=0.1))
        answers = parted((100, 6, 3), (900, 60, 20))
        report, before = known(answers, policy)
        assert not before.is_settled
        assert confirms(answers, policy=policy, level=0.0222)
        verdict = decide(report, policy=policy, preliminary=before, budget=use(is_confirmed=True), decided_at=now)
        assert (verdict.outcome, verdict.budget) == ("better", use(is_confirmed=True))
        assert verdict.reasons[0].statement == (
            "900 sealed photos show that every check holds, each tested at level 0.0222 "
            "(try 1 of this holdout, 9 left)."
        )
        shown = only(verdict.reasons, "accuracy, superiority")
        assert shown.statement.endswith("p = 0.2539, above 0.05; the sealed photos show that it holds.")
        assert "on 100 open photos" in shown.statement
        assert {reason.outcome for reason in verdict.reasons} == {"better"}
        assert Verdict.from_json(verdict.to_json()) == verdict

    def test_what_they_do_not_confirm_says_how_many_sealed_labels_would(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy()
        answers = parted((100, 4, 3), (900, 30, 30))
        report, before = known(answers, policy)
        assert not confirms(answers, policy=policy, level=0.0222)
        verdict = decide(report, policy=policy, preliminary=before, budget=use(is_confirmed=False), decided_at=now)
        assert verdict.outcome == "cannot tell"
        reason = only(verdict.reasons, SEALED_CHECK)
        assert reason.more_labels is not None
        assert (
            f"a new holdout with about {reason.more_labels:,} sealed photos would decide with 80%" in reason.statement
        )
        assert only(verdict.reasons, "accuracy, superiority").more_labels == reason.more_labels

    def test_the_verdict_says_the_same_whatever_the_sealed_photos_are(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy(per_class=per_class(margin=0.05), document={"suspect_labels": {"confidence": 0.7}})
        said = set()
        for sealed in ((900, 30, 30), (900, 0, 200), (900, 34, 30)):
            answers = parted((100, 4, 3), sealed)
            assert not confirms(answers, policy=policy, level=0.0222)
            report, before = known(answers, policy)
            budget = use(is_confirmed=False)
            said.add(decide(report, policy=policy, preliminary=before, budget=budget, decided_at=now).to_json())
        assert len(said) == 1

    def test_harm_on_the_open_photos_settles_it_without_a_try(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy()
        report, before = known(parted((100, 2, 20), (900, 60, 20)), policy)
        assert before.is_settled
        verdict = decide(report, policy=policy, preliminary=before, budget=None, decided_at=now)
        assert (verdict.outcome, verdict.budget) == ("not better", None)
        assert SEALED_CHECK not in [reason.check for reason in verdict.reasons]

    def test_too_few_sealed_photos_are_told_before_a_try_is_spent(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy(minimum_photos=1000)
        answers = parted((100, 6, 3), (900, 90, 2))
        report, before = known(answers, policy)
        assert before.is_settled
        assert not confirms(answers, policy=policy, level=0.0222)
        verdict = decide(report, policy=policy, preliminary=before, budget=None, decided_at=now)
        assert verdict.outcome == "cannot tell"
        assert only(verdict.reasons, "holdout size").more_labels == 100
        assert "were not asked because of holdout size" in verdict.reasons[0].statement

    def test_a_limit_that_is_broken_outweighs_the_sealed_photos(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy(limits={"size_bytes": 999})
        report, before = known(parted((100, 6, 3), (900, 60, 20)), policy)
        assert before.is_settled
        verdict = decide(report, policy=policy, preliminary=before, budget=use(is_confirmed=True), decided_at=now)
        assert verdict.outcome == "not better"

    def test_without_an_answer_of_the_sealed_photos_nothing_is_better(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy()
        report, before = known(parted((1000, 60, 20), (900, 60, 20)), policy)
        assert combine(before.sampled) == "better"
        verdict = decide(report, policy=policy, preliminary=before, budget=None, decided_at=now)
        assert verdict.outcome == "cannot tell"


class TestSuspects:
    def confident(self, answers: Answers, wrong: slice) -> Answers:
        """Both models are sure of the same other answer for these photos."""
        scores = [answers.candidate.copy(), np.array(answers.champion)]
        for table in scores:
            table[wrong] = np.where(np.arange(2) == answers.truth[wrong, np.newaxis], 0.01, 0.99)
        return replace(answers, candidate=scores[0], champion=scores[1])

    def test_harm_that_rests_on_disputed_labels_goes_to_a_person(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy(floor=0.9)
        answers = self.confident(parted((200, 6, 3), (900, 60, 20)), slice(100, 130))
        report, before = known(answers, policy)
        assert before.is_settled
        verdict = decide(report, policy=policy, preliminary=before, budget=None, decided_at=now)
        assert verdict.outcome == "cannot tell"
        assert only(verdict.reasons, "accuracy floor").statement.endswith("not so without the suspect labels.")
        said = only(verdict.reasons, "suspect labels").statement
        assert "(accuracy floor) depends on 30 photos whose labels are disputed" in said
        assert verdict.without_suspects == "cannot tell"

    def test_disputed_labels_that_change_nothing_stop_nothing(
        self, parted: Parted, known: Known, make_policy: MakePolicy, now: datetime
    ) -> None:
        policy = make_policy(floor=0.5)
        answers = self.confident(parted((200, 6, 3), (900, 60, 20)), slice(100, 103))
        report, before = known(answers, policy)
        assert not before.is_settled
        assert confirms(answers, policy=policy, level=0.0222)
        verdict = decide(report, policy=policy, preliminary=before, budget=use(is_confirmed=True), decided_at=now)
        assert (verdict.outcome, verdict.without_suspects) == ("better", "better")

    def test_the_sealed_photos_must_confirm_both_readings(self, parted: Parted, make_policy: MakePolicy) -> None:
        answers = parted((200, 6, 3), (900, 60, 20))
        doubtful = self.confident(answers, slice(900, 940))
        sealed = doubtful.select(~doubtful.is_open)
        is_sure = sealed.candidate.max(axis=1) < 0.95
        policy = make_policy(floor=0.945)
        assert holds(sealed.select(is_sure), policy=policy, level=0.0222)
        assert not holds(sealed, policy=policy, level=0.0222)
        assert not confirms(doubtful, policy=policy, level=0.0222)
        assert confirms(answers, policy=policy, level=0.0222)


def test_the_worst_check_is_the_outcome() -> None:
    def said(*outcomes: Any) -> tuple[Reason, ...]:
        return tuple(Reason(check="x", outcome=outcome, statement="y") for outcome in outcomes)

    assert combine(said("better", "better")) == "better"
    assert combine(said("better", "cannot tell")) == "cannot tell"
    assert combine(said("cannot tell", "not better", "better")) == "not better"
