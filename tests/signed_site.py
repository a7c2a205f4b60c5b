"""A whole training site in a directory: keys, a signed bucket, judged runs, without training anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from artifact_sync.canonical import sha256_hex
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.manifest import build_manifest
from artifact_sync.records import InputContract, RunRecord
from artifact_sync.registry import Registry
from artifact_sync.run_folder import RunFolder
from artifact_sync.store import ObjectStore
from artifact_sync.trust import SigningKey, TrustedReader
from artifact_sync.trust.ceremony import initialise_trust
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries, Roles
from validation.approval import ApprovalTerms, approvals, approve
from validation.approval_records import SignedApproval
from validation.promote import Beside, Promotion, Rollback, promote, roll_back
from validation.rejection import Said, reject, revoke
from validation.standing import Standing
from validation.verdict import ChampionReference, Outcome, Reason, Verdict

MODEL = "photos"


def make_key(name: str) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate(), name=name)


@dataclass
class SignedSite:
    """Keys of everybody and a bucket; `now` is the real time, since The Update Framework's client reads the clock."""

    path: Path
    threshold: int = 1
    model: str = MODEL
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    expiries: Expiries = field(default_factory=Expiries)
    root_bytes: bytes = b""

    def __post_init__(self) -> None:
        self.keys = {name: make_key(name) for name in ("root-1", "alice", "bob", "carol", "releaser", "mallory")}
        self.store: ObjectStore = DirectoryStore(self.path / "bucket")

    @property
    def registry(self) -> Registry:
        return Registry(self.store, model=self.model)

    @property
    def roles(self) -> Roles:
        approvers = (self.keys["alice"].public, self.keys["bob"].public)
        return Roles((self.keys["root-1"].public,), 1, approvers, self.threshold, self.keys["releaser"].public)

    def initialise(self) -> SignedSite:
        signers = [self.keys[name] for name in ("root-1", "alice", "bob", "releaser")]
        self.root_bytes = initialise_trust(self.registry, self.roles, signers, now=self.now, expiries=self.expiries)
        return self

    def reader(self, machine: str = "training", *, store: ObjectStore | None = None) -> TrustedReader:
        registry = Registry(store or self.store, model=self.model)
        return TrustedReader(registry, metadata_dir=self.path / machine, root=self.root_bytes)

    def fresh_reader(self) -> TrustedReader:
        """A host that was set up just now."""
        machines = [path for path in self.path.iterdir() if path.name.startswith("fresh-")]
        return self.reader(f"fresh-{len(machines)}")

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
        run.report_json.write_bytes(b'{"accuracy":0.9}')
        run.report_html.write_text(f"<p>report.json {sha256_hex(run.report_json.read_bytes())}</p>")
        run.policy_json.write_bytes(b'{"margin":0.0}')
        self.judge(run, outcome=outcome, champion=champion or self.champion())
        return run

    def judge(self, run: RunFolder, *, outcome: Outcome = "better", champion: ChampionReference | None) -> None:
        verdict = Verdict(
            run_id=run.run_id,
            model=self.model,
            outcome=outcome,
            reasons=(Reason(check="accuracy", outcome=outcome, statement="0.90 against 0.88, p = 0.01"),),
            candidate_manifest_sha256=run.read_manifest().sha256,
            champion=champion,
            holdout_sha256=sha256_hex(b"holdout"),
            policy_sha256=sha256_hex(run.policy_json.read_bytes()),
            report_sha256=sha256_hex(run.report_json.read_bytes()),
            decided_at=self.now,
        )
        run.verdict_json.write_bytes(verdict.to_json())

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
