"""A whole training site in a directory: keys, a signed bucket, judged runs, without training anything."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from artifact_sync.canonical import sha256_hex
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import AlreadyExistsError
from artifact_sync.manifest import build_manifest
from artifact_sync.records import InputContract, RunRecord
from artifact_sync.registry import Registry
from artifact_sync.run_folder import RunFolder
from artifact_sync.store import ObjectStore
from artifact_sync.trust import SigningKey, TrustedReader, TrustedView
from artifact_sync.trust.ceremony import initialise_trust
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries, Roles
from validation.approvals.approval import ApprovalTerms, approvals, approve
from validation.approvals.approval_records import SignedApproval
from validation.approvals.rejection import Said, reject, revoke
from validation.approvals.standing import Standing
from validation.budgets.budget import History, Terms, level_of
from validation.budgets.ledger_records import (
    OUTCOME,
    TERMS,
    TRY,
    LedgerOutcome,
    LedgerTerms,
    LedgerTry,
    outcomes_digest,
)
from validation.checks.verdict import BudgetUse, ChampionReference, Outcome, Reason, Verdict
from validation.releases.promote import Beside, Promotion, Rollback, promote, roll_back
from validation.reports.report import LatencyMs, ModelMeasurements, Report

MODEL = "photos"


def holdout_of(run_id: str) -> bytes:
    """The bytes that stand for the holdout of a run: each has its own, so that no budget is ever spent."""
    return f"holdout of {run_id}".encode()


def make_key(name: str) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate(), name=name)


@dataclass
class SignedSite:
    """Keys of everybody and a bucket; `now` is the real time, since The Update Framework's client reads the clock."""

    path: Path
    threshold: int = 1
    approver_names: tuple[str, ...] = ("alice", "bob")
    model: str = MODEL
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    expiries: Expiries = field(default_factory=Expiries)
    root_bytes: bytes = b""

    def __post_init__(self) -> None:
        names = dict.fromkeys(("root-1", *self.approver_names, "alice", "bob", "carol", "releaser", "mallory"))
        self.keys = {name: make_key(name) for name in names}
        self.store: ObjectStore = DirectoryStore(self.path / "bucket")

    @property
    def registry(self) -> Registry:
        return Registry(self.store, model=self.model)

    @property
    def roles(self) -> Roles:
        approvers = tuple(self.keys[name].public for name in self.approver_names)
        return Roles((self.keys["root-1"].public,), 1, approvers, self.threshold, self.keys["releaser"].public)

    def initialise(self) -> SignedSite:
        signers = [self.keys[name] for name in ("root-1", *self.approver_names, "releaser")]
        self.root_bytes = initialise_trust(self.registry, self.roles, signers, now=self.now, expiries=self.expiries)
        return self

    def reader(self, machine: str = "training", *, store: ObjectStore | None = None) -> TrustedReader:
        registry = Registry(store or self.store, model=self.model)
        return TrustedReader(registry, metadata_dir=self.path / machine, root=self.root_bytes)

    def fresh_reader(self) -> TrustedReader:
        """A host that was set up just now."""
        machines = [path for path in self.path.iterdir() if path.name.startswith("fresh-")]
        return self.reader(f"fresh-{len(machines)}")

    def fresh_view(self) -> TrustedView:
        """What a host that was set up just now believes."""
        return self.fresh_reader().refresh()

    def publisher(self, *, store: ObjectStore | None = None) -> Publisher:
        return Publisher(self.reader(store=store), self.keys["releaser"], expiries=self.expiries)

    def run(
        self,
        run_id: str,
        *,
        outcome: Outcome = "better",
        champion: ChampionReference | None = None,
        trained_by: str = "tara",
    ) -> RunFolder:
        """Write a judged run, compared with the version that is served unless told otherwise."""
        run = RunFolder(self.path / "runs" / run_id)
        run.export.mkdir(parents=True)
        (run.export / "saved_model.pb").write_bytes(f"graph of {run_id}".encode())
        (run.export / "labels.json").write_bytes(b'["cat","dog"]')
        run.run_json.write_bytes(self._run_record(run_id, trained_by).to_json())
        run.manifest_json.write_bytes(build_manifest(run.export).to_json())
        run.report_json.write_bytes(self.report(run_id, run.read_manifest().sha256).to_json())
        run.report_html.write_text(f"<p>report.json {sha256_hex(run.report_json.read_bytes())}</p>")
        run.policy_json.write_bytes(b'{"margin":0.0}')
        self.judge(run, outcome=outcome, champion=champion or self.champion())
        return run

    def judge(self, run: RunFolder, *, outcome: Outcome = "better", champion: ChampionReference | None) -> Verdict:
        verdict = Verdict(
            run_id=run.run_id,
            model=self.model,
            outcome=outcome,
            reasons=(Reason(check="accuracy", outcome=outcome, statement="0.90 against 0.88, p = 0.01"),),
            candidate_manifest_sha256=run.read_manifest().sha256,
            champion=champion,
            holdout_sha256=sha256_hex(holdout_of(run.run_id)),
            policy_sha256=sha256_hex(run.policy_json.read_bytes()),
            report_sha256=sha256_hex(run.report_json.read_bytes()),
            decided_at=self.now,
        )
        if outcome == "better":
            verdict = verdict.model_copy(update={"budget": self.spend(verdict)})
        run.verdict_json.write_bytes(verdict.to_json())
        return verdict

    def spend(self, verdict: Verdict) -> BudgetUse:
        """Write a ledger in which the verdict's candidate was confirmed by the one try of its own holdout."""
        terms = LedgerTerms(
            model=self.model,
            holdout_sha256=verdict.holdout_sha256,
            terms=Terms(alpha=0.05, tries=1, promotions=1),
            sealed_sha256s=(sha256_hex(verdict.run_id.encode()),),
            open_sha256s=(),
            by="tara",
            at=self.now,
        )
        entry = LedgerTry(
            model=self.model,
            holdout_sha256=verdict.holdout_sha256,
            number=1,
            run_id=verdict.run_id,
            candidate_manifest_sha256=verdict.candidate_manifest_sha256,
            champion_manifest_sha256=verdict.champion.manifest_sha256 if verdict.champion else None,
            policy_sha256=verdict.policy_sha256,
            level=level_of(terms.terms, History(), is_first=verdict.champion is None),
            previous_sha256=terms.sha256,
            pending=(),
            outcomes_sha256=outcomes_digest((), pending=()),
            by="tara",
            at=self.now,
        )
        outcome = LedgerOutcome(
            number=1, try_sha256=entry.sha256, is_confirmed=True, sealed_photos=900, open_disagreement=0.1, at=self.now
        )
        for number, kind, record in ((0, TERMS, terms), (1, TRY, entry), (1, OUTCOME, outcome)):
            with suppress(AlreadyExistsError):
                self.registry.create_budget_entry(verdict.holdout_sha256, number, record.to_json(), kind=kind)
        return BudgetUse(
            number=1,
            entry_sha256=outcome.sha256,
            level=entry.level,
            sealed_photos=900,
            is_confirmed=True,
            tries_left=0,
            is_opened=True,
        )

    def report(self, run_id: str, manifest_sha256: str) -> Report:
        """A report of 10 photos, 9 of them answered rightly, without a champion to compare with."""
        candidate = ModelMeasurements(
            manifest_sha256=manifest_sha256,
            size_bytes=27,
            load_seconds=0.5,
            latency_ms=LatencyMs(p50=1.0, p95=2.0, p99=3.0),
            right=9,
            accuracy_interval=(0.55, 0.99),
            macro_f1=0.9,
            log_loss=0.3,
            calibration_error=0.1,
            confusion=((5, 0, 0), (1, 4, 0)),
            non_finite_photos=0,
            is_constant=False,
            golden_difference=None,
            golden_tolerance=None,
        )
        return Report(
            run_id=run_id,
            model=self.model,
            lineage=self._run_record(run_id, "tara").lineage(),
            labels=("cat", "dog"),
            photos=10,
            holdout_sha256=sha256_hex(holdout_of(run_id)),
            candidate=candidate,
            champion=None,
            champion_reference=None,
            paired=None,
            gain_interval=None,
            classes=(),
            fixed=(),
            broken=(),
            training_photos_checked=None,
            measured_at=self.now,
        )

    def champion(self) -> ChampionReference | None:
        """What is served now, as a verdict refers to it."""
        view = self.publisher().view()
        latest = view.latest_release()
        if latest is None:
            return None
        manifest_sha256 = view.version(latest.stable).manifest.sha256
        return ChampionReference(release=latest.number, version=latest.stable, manifest_sha256=manifest_sha256)

    def approve(
        self,
        run: RunFolder,
        by: str = "alice",
        *,
        reason: str = "fewer mistakes at night",
        now: datetime | None = None,
        store: ObjectStore | None = None,
        terms: ApprovalTerms | None = None,
    ) -> SignedApproval:
        reader, key = self.reader(by, store=store), self.keys[by]
        return approve(run, trust=reader, signer=key, reason=reason, now=now or self.now, terms=terms)

    def reject(
        self,
        run: RunFolder,
        by: str = "bob",
        *,
        reason: str = "it fails on my photos",
        store: ObjectStore | None = None,
    ) -> Said:
        return reject(run, trust=self.reader(by, store=store), signer=self.keys[by], reason=reason, now=self.now)

    def revoke(
        self, run: RunFolder, by: str = "bob", *, reason: str = "I was wrong", store: ObjectStore | None = None
    ) -> Said:
        return revoke(run, trust=self.reader(by, store=store), signer=self.keys[by], reason=reason, now=self.now)

    def standing(self, run: RunFolder, *, machine: str = "training", now: datetime | None = None) -> Standing:
        return approvals(run, trust=self.reader(machine), now=now or self.now)

    def promote(
        self,
        run: RunFolder,
        *,
        by: str = "rita",
        beside: Beside | None = None,
        store: ObjectStore | None = None,
        now: datetime | None = None,
        machine: str = "training",
    ) -> Promotion:
        return promote(
            run,
            trust=self.reader(machine, store=store),
            signer=self.keys["releaser"],
            by=by,
            now=now or self.now,
            beside=beside,
            expiries=self.expiries,
        )

    def approved_run(self, run_id: str, *, by: Iterable[str] = ("alice",)) -> RunFolder:
        run = self.run(run_id)
        for approver in by:
            self.approve(run, approver)
        return run

    def roll_back(
        self,
        *,
        to: int | None = None,
        by: str = "rita",
        reason: str = "users complain",
        store: ObjectStore | None = None,
    ) -> Rollback:
        return roll_back(
            trust=self.reader(store=store),
            signer=self.keys["releaser"],
            reason=reason,
            by=by,
            now=self.now,
            to=to,
            expiries=self.expiries,
        )

    def _run_record(self, run_id: str, trained_by: str) -> RunRecord:
        return RunRecord(
            run_id=run_id,
            model=self.model,
            trained_by=trained_by,
            started_at=self.now - timedelta(hours=1),
            finished_at=self.now,
            code_commit="0" * 40,
            code_dirty=False,
            data_manifest_sha256=sha256_hex(b"data"),
            config={"epochs": 1},
            config_sha256=sha256_hex(b"config"),
            seed=1,
            is_deterministic=True,
            environment={},
            hardware={},
            metrics={},
            labels=("cat", "dog"),
            input_contract=InputContract(height=8, width=8, channels=3),
        )
