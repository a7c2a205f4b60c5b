"""What is signed and where it lies in the run folder.

Its place in the flow: approval.py writes these files, standing.py reads them back and counts only
what it can verify, promotion stores the approvals as evidence.

    approvals/proposal.<targets>.<verdict>.json     what is to be signed
    approvals/<approver>.<targets>.<verdict>.json   who signed it, and why
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field, StringConstraints

from artifact_sync.canonical import Record, Sha256, Timestamp
from artifact_sync.errors import RecordError
from artifact_sync.records import ModelName, Number, RunId
from artifact_sync.run_folder import RunFolder
from artifact_sync.trust.keys import KeyName
from validation.verdict import ChampionReference

MAX_REASON_CHARACTERS = 10_000

Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARACTERS)]
RecordT = TypeVar("RecordT", bound=Record)
SignatureHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


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


class Approval(Record):
    """A person's statement: this candidate, on this evidence, may follow this champion, for this reason."""

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
    verdict_sha256: Sha256
    version_sha256: Sha256
    targets_sha256: Sha256
    approver: KeyName
    key_id: Sha256
    reason: Reason
    approved_at: Timestamp


class SignedApproval(Record):
    """An approval with its approver's two Ed25519 signatures, in hex.

    `statement_signature` is over the canonical bytes of `approval`, `targets_signature` over the
    proposed targets metadata; the second is what serving hosts check.
    """

    schema_name: ClassVar[str] = "liftgate.signed-approval/1"
    approval: Approval
    statement_signature: SignatureHex
    targets_signature: SignatureHex


def read_proposals(run: RunFolder, *, verdict_sha256: str) -> tuple[Proposal, ...]:
    """Return the proposals that were made on a verdict, newest first; files that are none are left out."""
    found = (_parsed(path, kind=Proposal) for path in _files(run, "proposal.*.json"))
    proposals = [proposal for proposal in found if proposal and proposal.verdict_sha256 == verdict_sha256]
    return tuple(sorted(proposals, key=lambda proposal: proposal.targets_number, reverse=True))


def read_approvals(run: RunFolder, proposal: Proposal) -> Iterator[tuple[Path, SignedApproval | None]]:
    """Yield each file that claims to approve a proposal, and None for one that cannot be read."""
    own = proposal.path(run)
    for path in _files(run, own.name.replace("proposal.", "*.", 1)):
        if path != own:
            yield path, _parsed(path, kind=SignedApproval)


def _files(run: RunFolder, pattern: str) -> list[Path]:
    return sorted(path for path in run.approvals.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _parsed(path: Path, *, kind: type[RecordT]) -> RecordT | None:
    try:
        return kind.from_json(path.read_bytes())
    except RecordError:
        return None
