"""What stands of a run's approvals: which count, which do not and why, who is missing, who says no.

Its place in the flow: `liftgate approvals` shows it; promotion goes on only when the threshold is met
and nobody's rejection stands. Only signatures that verify against the approvers in the trusted state
are counted, and only approvals that the record of decisions (decisions.py) has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import IntegrityError, NotFoundError
from artifact_sync.records import VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.trust import TrustedView
from artifact_sync.trust.proposal import ProposedTargets, is_signed_by, propose_version
from validation.approvals.approval_records import (
    Proposal,
    SignedApproval,
    SignedDecision,
    read_approvals,
    read_proposals,
)
from validation.approvals.candidacy import Candidacy
from validation.approvals.decisions import DecisionBook, DecisionLog

CLOCK_SKEW = timedelta(minutes=10)
"""How far the clocks of two machines may be apart."""


@dataclass(frozen=True)
class Standing:
    """The approvals of one run, as the trusted state and the record of decisions see them.

    Attributes:
        log: the record of decisions.
        begun: the promotion that has begun and is neither finished nor overtaken.
        threshold: how many must count.
        missing: the approvers who have not approved.
        refused: one sentence for each approval or decision that does not count.
        proposal: what was proposed last on the run's verdict; None when nobody has approved.
        version: the version record that it makes.
        proposed: the bytes to sign or publish; None when they are published, or can be no more.
        is_published: whether the version is in the signed list already.
        approvals: those that count.
        unrecorded: approvals that are right but not in the record of decisions: their approver was cut
            off, and finishes by approving again.
    """

    log: DecisionLog
    begun: SignedDecision | None
    threshold: int
    missing: tuple[str, ...]
    refused: tuple[str, ...]
    proposal: Proposal | None = None
    version: VersionRecord | None = None
    proposed: ProposedTargets | None = None
    is_published: bool = False
    approvals: tuple[SignedApproval, ...] = ()
    unrecorded: tuple[SignedApproval, ...] = ()

    @property
    def rejections(self) -> tuple[SignedDecision, ...]:
        """The rejections that stand; one is enough to stop a promotion."""
        return self.log.rejections

    @property
    def has_enough(self) -> bool:
        """Whether the version is published, or enough approvals count for it."""
        return self.is_published or (self.proposed is not None and len(self.approvals) >= self.threshold)

    @property
    def is_met(self) -> bool:
        """Whether the run may be promoted."""
        return self.has_enough and not self.rejections

    @property
    def is_overtaken(self) -> bool:
        """Whether somebody else's list of versions took the number that was signed."""
        return self.proposal is not None and self.proposed is None and not self.is_published


def standing_of(candidacy: Candidacy, view: TrustedView, *, registry: Registry, now: datetime) -> Standing:
    """Return what stands of a run's approvals at `now`.

    Raises:
        IntegrityError: a proposal is not what the run and the trusted state make.
        TrustError: a decision that others rest on was removed.
    """
    roles, proposal = view.roles, _current_proposal(candidacy, view)
    log = DecisionBook(registry, candidacy.run, candidacy.verdict.sha256).read(view)
    begun = log.promotion_begun(view)
    if proposal is None:
        missing = tuple(key.name for key in roles.approvers)
        return Standing(log, begun, roles.approval_threshold, missing, log.refused)
    version = rebuilt_version(candidacy, proposal)
    is_published = _is_published(proposal, view)
    is_next = proposal.targets_number == view.targets.version + 1
    proposed = rebuilt_targets(proposal, version, view) if is_next and not is_published else None
    # What a promotion began with goes on to count until it is finished.
    moment = begun.decision.decided_at if begun is not None else now
    count = _Count(candidacy, proposal, view, log, proposed=proposed, now=None if is_published else moment)
    approvals, unrecorded, refused = count.result()
    approved = {signed.approval.approver for signed in approvals}
    return Standing(
        log=log,
        begun=begun,
        threshold=roles.approval_threshold,
        missing=tuple(key.name for key in roles.approvers if key.name not in approved),
        refused=(*refused, *log.refused),
        proposal=proposal,
        version=version,
        proposed=proposed,
        is_published=is_published,
        approvals=approvals,
        unrecorded=unrecorded,
    )


def rebuilt_version(candidacy: Candidacy, proposal: Proposal) -> VersionRecord:
    """Return the version record that the run makes under a proposal.

    Raises:
        IntegrityError: it is not the one that was proposed.
    """
    record = candidacy.version_record(proposal.version, created_at=proposal.created_at)
    _check_same("version record", record.sha256, expected=proposal.version_sha256, run_id=proposal.run_id)
    return record


def rebuilt_targets(proposal: Proposal, version: VersionRecord, view: TrustedView) -> ProposedTargets:
    """Return the next targets metadata that the trusted state makes with a proposal.

    Raises:
        IntegrityError: it is not the one that was proposed.
    """
    proposed = propose_version(view, version, expires=proposal.expires_at)
    digest = sha256_hex(proposed.payload)
    _check_same("list of versions", digest, expected=proposal.targets_sha256, run_id=proposal.run_id)
    return proposed


def _current_proposal(candidacy: Candidacy, view: TrustedView) -> Proposal | None:
    proposals = read_proposals(candidacy.run, verdict_sha256=candidacy.verdict.sha256)
    published = [proposal for proposal in proposals if _is_published(proposal, view)]
    return next(iter([*published, *proposals]), None)


def _is_published(proposal: Proposal, view: TrustedView) -> bool:
    try:
        return view.version_sha256(proposal.version) == proposal.version_sha256
    except NotFoundError:
        return False


@dataclass(frozen=True)
class _Count:
    """Counting one run's approvals; `now` is None for a published version, whose approvals expire no more."""

    candidacy: Candidacy
    proposal: Proposal
    view: TrustedView
    log: DecisionLog
    proposed: ProposedTargets | None
    now: datetime | None

    def result(self) -> tuple[tuple[SignedApproval, ...], tuple[SignedApproval, ...], tuple[str, ...]]:
        """Return what counts, what only lacks its entry in the record, and a sentence for each other file."""
        counted: dict[str, SignedApproval] = {}
        unrecorded: dict[str, SignedApproval] = {}
        refused: dict[str, str] = {}
        for path, signed in read_approvals(self.candidacy.run, self.proposal):
            problem = "it is no signed approval" if signed is None else self._problem(signed)
            if signed is None or problem:
                refused[path.name] = f"{path.name} does not count: {problem}."
            elif self.log.approves(signed.approval.key_id, signed.sha256):
                counted[signed.approval.key_id] = signed
            elif self.log.knows(signed.sha256):
                refused[path.name] = f"{path.name} does not count: {signed.approval.approver} took it back."
            else:
                unrecorded[signed.approval.key_id] = signed
                refused[path.name] = (
                    f"{path.name} does not count yet: the record of decisions does not have it. Let "
                    f"{signed.approval.approver} run `liftgate approve {self.proposal.run_id} --because …` again."
                )
        return tuple(counted.values()), tuple(unrecorded.values()), tuple(refused.values())

    def _problem(self, signed: SignedApproval) -> str | None:
        approval = signed.approval
        key = next((key for key in self.view.roles.approvers if key.key_id == approval.key_id), None)
        if key is None or key.name != approval.approver:
            return f"the key that claims to be {approval.approver}'s is not a trusted approver's"
        if not is_signed_by(key, approval.to_json(), signed.statement_signature):
            return f"the statement is not signed by {key.name}'s key; it is forged or was changed"
        if self.proposed is not None and not is_signed_by(key, self.proposed.payload, signed.targets_signature):
            return f"the version is not signed by {key.name}'s key; it is forged or was changed"
        bound = self.candidacy.bound_fields() | self.proposal.bound_fields()
        other = [name.removesuffix("_sha256") for name, value in bound.items() if getattr(approval, name) != value]
        if other:
            return f"it was given to something else ({', '.join(other)} differ)"
        return None if self.now is None else _time_problem(signed, now=self.now)


def _time_problem(signed: SignedApproval, *, now: datetime) -> str | None:
    approval = signed.approval
    if approval.approved_at > now + CLOCK_SKEW:
        return f"it is dated {approval.approved_at:%Y-%m-%d %H:%M} UTC, which is yet to come; compare the clocks"
    if approval.expires_at is None:
        return f"it never expires, as an earlier Liftgate signed it; {approval.approver} may approve again"
    if approval.expires_at <= now:
        return f"it expired on {approval.expires_at:%Y-%m-%d %H:%M} UTC; {approval.approver} may approve again"
    return None


def _check_same(what: str, found: str, *, expected: str, run_id: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"The proposal in run {run_id} is refused: its {what} should be {expected}, but the run and the trusted "
            f"state make {found}. The proposal or the run was changed; remove the files of that proposal from "
            "approvals/ and approve again."
        )
