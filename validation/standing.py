"""What stands of a run's approvals: which count, which do not and why, and who is missing.

Its place in the flow: `liftgate approvals` shows it; promotion goes on only when the threshold is
met. Only signatures that verify against the approvers in the trusted state are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import IntegrityError, NotFoundError
from artifact_sync.records import VersionRecord
from artifact_sync.trust import TrustedView
from artifact_sync.trust.proposal import ProposedTargets, is_signed_by, propose_version
from validation.approval_records import Proposal, SignedApproval, read_approvals, read_proposals
from validation.candidacy import Candidacy


@dataclass(frozen=True)
class Standing:
    """The approvals of one run, as the trusted state sees them.

    Attributes:
        proposal: what was proposed last on the run's verdict; None when nobody has approved.
        version: the version record that it makes.
        proposed: the bytes to sign or publish; None when they are published, or can be no more.
        is_published: whether the version is in the signed list already.
        approvals: those that count.
        refused: one sentence for each that does not.
        threshold: how many must count.
        missing: the approvers who have not approved.
    """

    proposal: Proposal | None
    version: VersionRecord | None
    proposed: ProposedTargets | None
    is_published: bool
    approvals: tuple[SignedApproval, ...]
    refused: tuple[str, ...]
    threshold: int
    missing: tuple[str, ...]

    @property
    def is_met(self) -> bool:
        """Whether the version may be published, or is."""
        return self.is_published or (self.proposed is not None and len(self.approvals) >= self.threshold)

    @property
    def is_overtaken(self) -> bool:
        """Whether somebody else's list of versions took the number that was signed."""
        return self.proposal is not None and self.proposed is None and not self.is_published


def standing_of(candidacy: Candidacy, view: TrustedView) -> Standing:
    """Return what stands of a run's approvals.

    Raises:
        IntegrityError: a proposal is not what the run and the trusted state make.
    """
    roles, proposal = view.roles, _current_proposal(candidacy, view)
    if proposal is None:
        missing = tuple(key.name for key in roles.approvers)
        return Standing(None, None, None, False, (), (), roles.approval_threshold, missing)
    version = rebuilt_version(candidacy, proposal)
    is_published = _is_published(proposal, view)
    is_next = proposal.targets_number == view.targets.version + 1
    proposed = rebuilt_targets(proposal, version, view) if is_next and not is_published else None
    approvals, refused = _counted(candidacy, proposal, view, proposed=proposed)
    approved = {signed.approval.approver for signed in approvals}
    return Standing(
        proposal=proposal,
        version=version,
        proposed=proposed,
        is_published=is_published,
        approvals=approvals,
        refused=refused,
        threshold=roles.approval_threshold,
        missing=tuple(key.name for key in roles.approvers if key.name not in approved),
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


def _counted(
    candidacy: Candidacy, proposal: Proposal, view: TrustedView, *, proposed: ProposedTargets | None
) -> tuple[tuple[SignedApproval, ...], tuple[str, ...]]:
    counted: dict[str, SignedApproval] = {}
    refused = []
    for path, signed in read_approvals(candidacy.run, proposal):
        problem = "it is no signed approval" if signed is None else _problem(signed, proposal, view, proposed=proposed)
        if signed is None or problem:
            refused.append(f"{path.name} does not count: {problem}.")
        else:
            counted[signed.approval.key_id] = signed
    return tuple(counted.values()), tuple(refused)


def _problem(
    signed: SignedApproval, proposal: Proposal, view: TrustedView, *, proposed: ProposedTargets | None
) -> str | None:
    approval = signed.approval
    key = next((key for key in view.roles.approvers if key.key_id == approval.key_id), None)
    if key is None or key.name != approval.approver:
        return f"the key that claims to be {approval.approver}'s is not a trusted approver's"
    if not is_signed_by(key, approval.to_json(), signed.statement_signature):
        return f"the statement is not signed by {key.name}'s key; it is forged or was changed"
    if proposed is not None and not is_signed_by(key, proposed.payload, signed.targets_signature):
        return f"the version is not signed by {key.name}'s key; it is forged or was changed"
    bound = (approval.version_sha256, approval.targets_sha256, approval.verdict_sha256)
    if bound != (proposal.version_sha256, proposal.targets_sha256, proposal.verdict_sha256):
        return "it is about another candidate or verdict"
    return None


def _check_same(what: str, found: str, *, expected: str, run_id: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"The proposal in run {run_id} is refused: its {what} should be {expected}, but the run and the trusted "
            f"state make {found}. The proposal or the run was changed; remove the files of that proposal from "
            "approvals/ and approve again."
        )
