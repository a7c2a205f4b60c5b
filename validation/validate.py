"""The use case behind `liftgate validate`: measure a candidate against its champion and decide.

Its place in the flow: after training, before approval. It reads a complete run, the champion that is
served, the frozen holdout and the policy, spends from the holdout's error budget when it must ask the
sealed photos (docs/gate.md), and leaves in the run folder

    policy.json   report.json   report.html   verdict.json (last: its presence means judged)

A second call with the same inputs returns what the first one decided and measures nothing; one that was
cut off resumes the try that the first one began.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from artifact_sync.clock import Clock
from artifact_sync.durable import fsync_directory, write_durably
from artifact_sync.errors import BudgetSpentError, RecordError
from validation.budgets.budget import History, Terms, level_of
from validation.budgets.ledger import Admission, BudgetLedger
from validation.budgets.ledger_refusals import Attempt
from validation.case import Case
from validation.checks.gate import Preliminary, confirms, decide, preliminary
from validation.checks.verdict import BudgetUse, Verdict
from validation.evaluate import Progress
from validation.measure import Measured, measure
from validation.photos import near_duplicates
from validation.photos.holdout import PhotoDecoder
from validation.programs.isolation import find_isolation
from validation.programs.trial import trial
from validation.reports.comparison import compare
from validation.reports.report import NearDuplicate, Report, TrialRecord
from validation.reports.report_page import render_page
from validation.settings import ValidationSettings


@dataclass(frozen=True)
class Rehearsal:
    """What the open photos say of a candidate; nothing was decided, and nothing spent.

    Attributes:
        report: of the open photos (of all, once the holdout is opened).
        known: what the gate would know before it asks the sealed photos.
        admission: what the ledger would let the candidate do; None when the budget is spent.
    """

    report: Report
    known: Preliminary
    admission: Admission | None


@dataclass(frozen=True)
class Bench:
    """What judging works with: tools, not evidence.

    Attributes:
        decoder: an open DecodePool.
        clock: for latencies and the time of the decision.
        ledger: the budget of the case's holdout.
        settings: how the measuring is done.
        by: who validates, for the ledger.
        progress: told how many of how many photos are answered.
        tell: told in a sentence what a person should know beside the result.
    """

    decoder: PhotoDecoder
    clock: Clock
    ledger: BudgetLedger
    settings: ValidationSettings
    by: str
    progress: Progress | None = None
    tell: Callable[[str], None] | None = None


def validate_run(case: Case, *, bench: Bench) -> tuple[Report, Verdict]:
    """Judge a candidate, write report and verdict into its run's folder, and return both.

    Raises:
        BudgetSpentError: the holdout has no try left.
        RefusedError: the candidate does not stand its trial or does not load, or the ledger refuses.
        LostRaceError: another process judged the same candidate meanwhile, and the models differ from run to run.
        StoreError: the bucket, where the ledger lies, cannot be used.
    """
    known = _known_decision(case)
    if known is not None:
        return known
    admission = _admit(case, bench=bench)
    examined = _examine(case, bench=bench)
    report = examined.report(case, scope="open", bench=bench)
    found = _preliminary(case, examined, report)
    budget = None
    if admission.known is not None or not found.is_settled:
        budget = _ask(case, examined, report, bench=bench)
        if budget.is_opened:
            report = examined.report(case, scope="all", bench=bench)
    verdict = decide(report, policy=case.policy, preliminary=found, budget=budget, decided_at=bench.clock.now())
    _write(case, report, verdict, decoder=bench.decoder)
    return report, verdict


def rehearse(case: Case, *, bench: Bench) -> Rehearsal:
    """Look at a candidate on the open photos alone; no verdict is made and no try is spent.

    Raises:
        RefusedError: as `validate_run`, but for a spent budget.
    """
    # A holdout that is spent decides nothing, and may be looked at all the more.
    admission = None
    with suppress(BudgetSpentError):
        # Admitted although nothing is asked: other holdouts must know that these photos are shown.
        admission = _admit(case, bench=bench)
    examined = _examine(case, bench=bench)
    report = examined.report(case, scope="all" if admission is None else "open", bench=bench)
    return Rehearsal(report, _preliminary(case, examined, report), admission)


@dataclass(frozen=True)
class _Examined:
    """A candidate that stood its trial and was measured; `measured` without the near duplicates."""

    trial: TrialRecord
    measured: Measured
    near_duplicates: tuple[NearDuplicate, ...] | None

    def report(self, case: Case, *, scope: Literal["open", "all"], bench: Bench) -> Report:
        """Return the report of the photos that may be shown."""
        answers = self.measured.answers
        shown = answers if scope == "all" else answers.select(answers.is_open)
        champion = self.measured.champion
        rival = (
            None
            if champion is None or shown.champion is None
            else champion.measurements(shown.truth, shown.champion, holdout=case.holdout, policy=case.policy)
        )
        return Report.model_validate(
            {
                **_given(case),
                **compare(answers, policy=case.policy, scope=scope, columns=case.record.labels),
                "candidate": self.measured.candidate.measurements(
                    shown.truth, shown.candidate, holdout=case.holdout, policy=case.policy
                ),
                "champion": rival,
                **self._duplicates(case, scope=scope),
                "memory_bytes": self.measured.memory_bytes,
                "trial": self.trial,
                "measured_at": bench.clock.now(),
            }
        )

    def _duplicates(self, case: Case, *, scope: Literal["open", "all"]) -> dict[str, object]:
        if self.near_duplicates is None or scope == "all":
            return {"near_duplicates": self.near_duplicates}
        # A sealed photo that is left out today may decide tomorrow, when another dataset does not hold its twin.
        opened = {item.sha256 for item in case.holdout.record.items if item.is_open}
        named = tuple(one for one in self.near_duplicates if one.sha256 in opened)
        return {"near_duplicates": named, "sealed_near_duplicates": len(self.near_duplicates) - len(named)}


def _given(case: Case) -> dict[str, object]:
    """Return everything that the report says beside what is measured."""
    record = case.record
    return {
        "run_id": record.run_id,
        "model": record.model,
        "lineage": record.lineage(),
        "champion_reference": None if case.champion is None else case.champion.reference,
        "holdout_sha256": case.holdout.sha256,
        "training_photos_checked": None if case.training is None else len(case.training.sha256s),
    }


def _attempt(case: Case, *, by: str) -> Attempt:
    return Attempt(
        run_id=case.record.run_id,
        candidate_manifest_sha256=case.candidate.manifest.sha256,
        champion_manifest_sha256=None if case.champion is None else case.champion.version.manifest.sha256,
        policy=case.policy,
        by=by,
    )


def _admit(case: Case, *, bench: Bench) -> Admission:
    admission = bench.ledger.admit(_attempt(case, by=bench.by), now=bench.clock.now())
    if bench.tell is not None:
        for other in admission.ended:
            bench.tell(f"Holdout {other[:12]} decides nothing any more: this one's reports show photos that it seals.")
    return admission


def _examine(case: Case, *, bench: Bench) -> _Examined:
    isolation = find_isolation(may_go_without=bench.settings.may_load_without_isolation)
    candidate = case.candidate
    tried = trial(
        candidate.directory,
        contract=candidate.contract,
        classes=len(candidate.labels),
        golden=candidate.golden,
        isolation=isolation,
    )
    near = _near_duplicates(case, decoder=bench.decoder)
    measured = measure(
        case,
        decoder=bench.decoder,
        isolation=isolation,
        clock=bench.clock,
        settings=bench.settings,
        progress=bench.progress,
    )
    if near:
        # They show memory, not skill; which ones they are does not depend on any answer.
        remembered = {duplicate.sha256 for duplicate in near}
        kept = np.array([item.sha256 not in remembered for item in measured.answers.items], dtype=np.bool_)
        measured = replace(measured, answers=measured.answers.select(kept))
    return _Examined(tried, measured, near)


def _preliminary(case: Case, examined: _Examined, report: Report) -> Preliminary:
    fresh = level_of(Terms.of(case.policy), History(), is_first=case.champion is None)
    return preliminary(report, examined.measured.answers, policy=case.policy, fresh_level=fresh)


def _near_duplicates(case: Case, *, decoder: PhotoDecoder) -> tuple[NearDuplicate, ...] | None:
    training = None if case.training is None else case.training.pictures
    if training is None:
        return None
    hashes = near_duplicates.hashes_of(case.holdout, case.record.input_contract, decoder=decoder)
    allowed = case.policy.leakage.maximum_distance
    return near_duplicates.find(case.holdout.record.items, hashes, training, maximum_distance=allowed)


def _ask(case: Case, examined: _Examined, report: Report, *, bench: Bench) -> BudgetUse:
    """Ask the sealed photos the one question, and write down what it cost before anybody is told."""
    ledger, answers = bench.ledger, examined.measured.answers
    spending = ledger.begin(_attempt(case, by=bench.by), now=bench.clock.now())
    if spending.outcome is not None:
        return ledger.use_of(spending)
    return ledger.conclude(
        spending,
        is_confirmed=confirms(answers, policy=case.policy, level=spending.level),
        sealed_photos=int((~answers.is_open).sum()),
        open_disagreement=None if report.paired is None else report.paired.disagreement,
        now=bench.clock.now(),
    )


def _known_decision(case: Case) -> tuple[Report, Verdict] | None:
    """Return the decision that lies in the run folder if it rests on these very inputs."""
    run = case.run
    with suppress(FileNotFoundError, RecordError):
        verdict = Verdict.from_json(run.verdict_json.read_bytes())
        report = Report.from_json(run.report_json.read_bytes())
        inputs = (case.candidate.manifest.sha256, case.holdout.sha256, case.policy.sha256)
        judged = (verdict.candidate_manifest_sha256, verdict.holdout_sha256, verdict.policy_sha256)
        is_about_these = all(getattr(report, name) == value for name, value in _given(case).items())
        if inputs == judged and is_about_these and verdict.report_sha256 == report.sha256:
            return report, verdict
    return None


def _write(case: Case, report: Report, verdict: Verdict, *, decoder: PhotoDecoder) -> None:
    run = case.run
    page = render_page(report, verdict, policy=case.policy, holdout=case.holdout, decoder=decoder)
    # An older verdict must not stand beside a newer report, not even after a crash.
    run.verdict_json.unlink(missing_ok=True)
    fsync_directory(run.path)
    write_durably(run.policy_json, case.policy.to_json())
    write_durably(run.report_json, report.to_json())
    write_durably(run.report_html, page.encode("utf-8"))
    write_durably(run.verdict_json, verdict.to_json())
