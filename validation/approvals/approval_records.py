"""What people sign about a verdict, and where it lies.

Its place in the flow: approval.py and rejection.py write these, standing.py reads them back and counts
only what it can verify, promotion stores the approvals as evidence.

    run folder   approvals/proposal.<targets>.<verdict>.json          what is to be signed
                 approvals/<approver>.<targets>.<verdict>.json        who signed it (then .2.json and so on)
                 approvals/decision.<number>.<verdict>.<digest>.json  a copy of each decision that was seen here
    bucket       decisions/<verdict>/<number>.decision.json           every decision, in one order
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, StringConstraints

from artifact_sync.canonical import Record, Sha256, Timestamp
from artifact_sync.errors import RecordError
from artifact_sync.records import ModelName, Number, RunId
from artifact_sync.run_folder import RunFolder
from artifact_sync.trust.keys import KeyName
from validation.checks.verdict import ChampionReference

MAX_REASON_CHARACTERS = 10_000

Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARACTERS)]
RecordT = TypeVar("RecordT", bound=Record)
SignatureHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


def _is_none(value: object) -> bool:
    return value is None


class Proposal(Record):
    """The parameters from which every approver makes the same bytes; the digests are for comparing."""

    schema_name: ClassVar[str] = "liftgate.proposal/1"
    model: ModelName
    run_id: RunId
    verdict_sha256: Sha256
    targets_number: Annotated[int, Field(ge=2)]
    version: Number
    version_sha256: Sha256
    targets_sha256: Sha256
    created_at: Timestamp
    expires_at: Timestamp

    def path(self, run: RunFolder, name: str = "proposal") -> Path:
        """Return where the proposal, or the approval of it by `name`, lies."""
        return run.approvals / f"{name}.{self.targets_number}.{self.verdict_sha256[:12]}.json"

    def free_path(self, run: RunFolder, name: str) -> Path:
        """Return where the next approval by `name` goes: beside those that count no more."""
        first = self.path(run, name)
        later = (first.with_name(f"{first.stem}.{turn}.json") for turn in count(2))
        return next(path for path in chain((first,), later) if not path.exists())

    def bound_fields(self) -> dict[str, object]:
        """Return what an approval says of the proposal, by field."""
        names = ("model", "run_id", "version", "targets_number", "version_sha256", "targets_sha256")
        return {name: getattr(self, name) for name in names}


class Approval(Record):
    """A person's statement: this candidate, on this evidence, may follow this champion, for this reason.

    Attributes:
        page_sha256: the digest of report.html, the page that people look at.
        ledger_number: the try that the verdict spent of its holdout's budget, with `ledger_sha256`.
        after_sha256: the newest decision on this verdict that was there before; it makes an approval that
            is given again after being taken back another one.
        expires_at: when it stops to count, unless the version is published by then.

    What may be None is left out then, so that approvals of earlier releases of Liftgate can be read: they
    are history, and count no more.
    """

    schema_name: ClassVar[str] = "liftgate.approval/1"
    model: ModelName
    run_id: RunId
    version: Number
    targets_number: Annotated[int, Field(ge=2)]
    candidate_manifest_sha256: Sha256
    champion: ChampionReference | None
    holdout_sha256: Sha256
    policy_sha256: Sha256
    report_sha256: Sha256
    page_sha256: Annotated[Sha256 | None, Field(exclude_if=_is_none)] = None
    ledger_number: Annotated[Number | None, Field(exclude_if=_is_none)] = None
    ledger_sha256: Annotated[Sha256 | None, Field(exclude_if=_is_none)] = None
    verdict_sha256: Sha256
    version_sha256: Sha256
    targets_sha256: Sha256
    after_sha256: Annotated[Sha256 | None, Field(exclude_if=_is_none)] = None
    approver: KeyName
    key_id: Sha256
    reason: Reason
    approved_at: Timestamp
    expires_at: Annotated[Timestamp | None, Field(exclude_if=_is_none)] = None


class SignedApproval(Record):
    """An approval with its approver's two Ed25519 signatures, in hex.

    `statement_signature` is over the canonical bytes of `approval`, `targets_signature` over the
    proposed targets metadata; the second is what serving hosts check.
    """

    schema_name: ClassVar[str] = "liftgate.signed-approval/1"
    approval: Approval
    statement_signature: SignatureHex
    targets_signature: SignatureHex


DecisionKind = Literal["approval", "rejection", "revocation", "promotion"]


class Decision(Record):
    """One entry of the record of decisions on a verdict: who decided what, after which entry.

    The entry is what counts: an approval that has none does not count yet, and a promotion that has one
    has begun, so that nobody can reject or take back what is being published.

    Attributes:
        number: its place in the record, from 1; forged entries take numbers too.
        previous_sha256: the digest of the entry before, of those that count.
        about_sha256: the signed approval that is given, what is taken back (a signed approval or the entry
            of a rejection), or the version record that is promoted; None for a rejection.
        targets_number: of a promotion: the list of versions in which it is published.
        release: of a promotion: the number of the release that it makes.
        by: the name of the key that signed.
    """

    schema_name: ClassVar[str] = "liftgate.decision/1"
    model: ModelName
    run_id: RunId
    verdict_sha256: Sha256
    number: Number
    previous_sha256: Sha256 | None
    kind: DecisionKind
    about_sha256: Sha256 | None = None
    targets_number: Annotated[int, Field(ge=2)] | None = None
    release: Number | None = None
    by: KeyName
    key_id: Sha256
    reason: Reason
    decided_at: Timestamp


class SignedDecision(Record):
    """A decision with its maker's Ed25519 signature over its canonical bytes, in hex."""

    schema_name: ClassVar[str] = "liftgate.signed-decision/1"
    decision: Decision
    signature: SignatureHex

    def copy_path(self, run: RunFolder) -> Path:
        """Return where a run folder keeps its copy."""
        decision = self.decision
        name = f"decision.{decision.number:06d}.{decision.verdict_sha256[:12]}.{self.sha256[:12]}.json"
        return run.approvals / name


def read_proposals(run: RunFolder, *, verdict_sha256: str) -> tuple[Proposal, ...]:
    """Return the proposals that were made on a verdict, newest first; files that are none are left out."""
    found = (_parsed(path, kind=Proposal) for path in _files(run, "proposal.*.json"))
    proposals = [proposal for proposal in found if proposal and proposal.verdict_sha256 == verdict_sha256]
    return tuple(sorted(proposals, key=lambda proposal: proposal.targets_number, reverse=True))


def read_approvals(run: RunFolder, proposal: Proposal) -> Iterator[tuple[Path, SignedApproval | None]]:
    """Yield each file that claims to approve a proposal, and None for one that cannot be read."""
    own = proposal.path(run)
    stem = own.name.removeprefix("proposal").removesuffix(".json")
    paths = {*_files(run, f"*{stem}.json"), *_files(run, f"*{stem}.*.json")}
    for path in sorted(paths):
        if path != own and not path.name.startswith(("proposal.", "decision.")):
            yield path, _parsed(path, kind=SignedApproval)


def read_copies(run: RunFolder, *, verdict_sha256: str | None) -> Iterator[tuple[Path, SignedDecision | None]]:
    """Yield each copy of a decision on a verdict (None: on any) in the run folder, and None for one that is none."""
    part = "*" if verdict_sha256 is None else verdict_sha256[:12]
    for path in _files(run, f"decision.*.{part}.*.json"):
        yield path, _parsed(path, kind=SignedDecision)


def _files(run: RunFolder, pattern: str) -> list[Path]:
    return sorted(path for path in run.approvals.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _parsed(path: Path, *, kind: type[RecordT]) -> RecordT | None:
    try:
        return kind.from_json(path.read_bytes())
    except (RecordError, OSError):
        return None
