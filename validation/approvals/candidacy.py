"""What a run offers for promotion: its export, verdict and evidence, bound to each other by digests.

Its place in the flow: approve and promote both start here, so that nobody signs or publishes
anything but what the gate has judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import IntegrityError, RefusedError
from artifact_sync.records import Evidence, Manifest, RunRecord, VersionRecord
from artifact_sync.run_folder import RunFolder
from artifact_sync.trust import TrustedView
from validation.checks.verdict import Verdict
from validation.releases.release_race import described


@dataclass(frozen=True)
class Candidacy:
    """A judged run whose files are the ones that the verdict names.

    Attributes:
        page_sha256: the digest of report.html, which people look at and approvals name.
    """

    run: RunFolder
    record: RunRecord
    manifest: Manifest
    verdict: Verdict
    page_sha256: str

    def bound_fields(self) -> dict[str, object]:
        """Return what an approval says of the evidence, by field: it counts for this evidence only."""
        verdict, budget = self.verdict, self.verdict.budget
        return {
            "candidate_manifest_sha256": verdict.candidate_manifest_sha256,
            "champion": verdict.champion,
            "holdout_sha256": verdict.holdout_sha256,
            "policy_sha256": verdict.policy_sha256,
            "report_sha256": verdict.report_sha256,
            "page_sha256": self.page_sha256,
            "ledger_number": None if budget is None else budget.number,
            "ledger_sha256": None if budget is None else budget.entry_sha256,
            "verdict_sha256": verdict.sha256,
        }

    def version_record(self, version: int, *, created_at: datetime) -> VersionRecord:
        """Return the record that this run becomes under a version number."""
        champion, budget = self.verdict.champion, self.verdict.budget
        return VersionRecord(
            model=self.verdict.model,
            version=version,
            manifest=self.manifest,
            lineage=self.record.lineage(),
            input_contract=self.record.input_contract,
            labels=self.record.labels,
            evidence=Evidence(
                report_sha256=self.verdict.report_sha256,
                verdict_sha256=self.verdict.sha256,
                policy_sha256=self.verdict.policy_sha256,
                holdout_sha256=self.verdict.holdout_sha256,
                champion_version=None if champion is None else champion.version,
                ledger_number=None if budget is None else budget.number,
                ledger_sha256=None if budget is None else budget.entry_sha256,
            ),
            created_at=created_at,
        )


def read_candidacy(run: RunFolder, *, model: str, act: str) -> Candidacy:
    """Return what the run offers; the export's files are not hashed here.

    Args:
        run: a run that was judged.
        model: the model that it must be a run of.
        act: "Approval" or "Promotion", for messages.

    Raises:
        RefusedError: there is no verdict, it is not "better", or it is about something else.
        IntegrityError: a file is not the one that the verdict names.
    """
    record, verdict = read_judgement(run, model=model, act=act)
    manifest = run.read_manifest()
    if verdict.outcome != "better":
        first = next((reason for reason in verdict.reasons if reason.outcome != "better"), verdict.reasons[0])
        raise RefusedError(
            f"{act} refused: the verdict on run {run.run_id} is {verdict.outcome!r} ({first.check}: "
            f"{first.statement}). Only a candidate that is shown to be better goes on; read {run.report_html}."
        )
    _check_digest("manifest.json", manifest.sha256, expected=verdict.candidate_manifest_sha256, run=run)
    _check_file(run.report_json, expected=verdict.report_sha256, run=run)
    _check_file(run.policy_json, expected=verdict.policy_sha256, run=run)
    return Candidacy(run, record, manifest, verdict, _checked_page(run, verdict))


def read_judgement(run: RunFolder, *, model: str, act: str) -> tuple[RunRecord, Verdict]:
    """Return what was executed and what the gate said of it, whatever it said.

    Raises:
        RefusedError: there is no verdict, or it is about something else.
    """
    record, verdict = run.read_run(), _read_verdict(run, act=act)
    if (record.run_id, record.model, verdict.run_id, verdict.model) != (run.run_id, model, run.run_id, model):
        raise RefusedError(
            f"{act} refused: folder {run.run_id} holds run {record.run_id} of model {record.model!r} with a verdict on "
            f"run {verdict.run_id} of {verdict.model!r}, expected run {run.run_id} of {model!r}. Name the right run."
        )
    return record, verdict


def check_champion(candidacy: Candidacy, view: TrustedView, *, act: str) -> None:
    """Refuse a verdict whose champion is not the stable version of the newest release any more.

    Raises:
        RefusedError: it is stale.
    """
    latest, judged = view.latest_release(), candidacy.verdict.champion
    served = None if latest is None else (latest.stable, view.version(latest.stable).manifest.sha256)
    compared = None if judged is None else (judged.version, judged.manifest_sha256)
    if served == compared:
        return
    now_served = "nothing is released"
    if latest is not None:
        now_served = f"version {latest.stable} is served now: {described(latest, view)}"
    against = "no champion" if judged is None else f"version {judged.version}"
    raise RefusedError(
        f"{act} refused: the verdict on run {candidacy.run.run_id} is stale. It compared the candidate with {against}, "
        f"but {now_served}. Run `liftgate validate {candidacy.run.run_id}` and let it be approved again."
    )


def _read_verdict(run: RunFolder, *, act: str) -> Verdict:
    try:
        return Verdict.from_json(run.verdict_json.read_bytes())
    except FileNotFoundError:
        raise RefusedError(
            f"{act} refused: run {run.run_id} has no verdict. Run `liftgate validate {run.run_id}` first."
        ) from None


def _check_file(path: Path, *, expected: str, run: RunFolder) -> None:
    found = sha256_hex(path.read_bytes()) if path.is_file() else "nothing: the file is missing"
    _check_digest(path.name, found, expected=expected, run=run)


def _checked_page(run: RunFolder, verdict: Verdict) -> str:
    """Return the digest of report.html, which names the report that it shows."""
    page = run.report_html.read_bytes() if run.report_html.is_file() else b""
    if verdict.report_sha256.encode() not in page:
        found = f"shows another report than {verdict.report_sha256}" if page else "is missing"
        raise IntegrityError(
            f"Run {run.run_id} refused: report.html {found}, so that nobody could look at the evidence. Run "
            f"`liftgate validate {run.run_id}`, which writes it, and read it."
        )
    return sha256_hex(page)


def _check_digest(name: str, found: str, *, expected: str, run: RunFolder) -> None:
    if found != expected:
        raise IntegrityError(
            f"Run {run.run_id} refused: {name} is not what the verdict was made of (expected {expected}, found "
            f"{found}). It was changed after validation; run `liftgate validate {run.run_id}` again."
        )
