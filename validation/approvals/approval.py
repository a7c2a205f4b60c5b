"""Approving: a person's signed decision that a candidate may be served.

Its place in the flow: between validate and promote. The first approver writes down the proposal
(which version number, made when, to be believed until when). Each approver makes the next list of
versions anew from it and from the trusted state, so that nothing is signed that is only read from a
file, and signs those bytes and a statement with the reason. The entry in the record of decisions
(decisions.py) is the last step and the one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from artifact_sync.canonical import sha256_hex
from artifact_sync.durable import create_durably
from artifact_sync.errors import AlreadyExistsError, RefusedError
from artifact_sync.manifest import verify_manifest
from artifact_sync.run_folder import RunFolder
from artifact_sync.trust import TrustedReader, TrustedView
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.proposal import ProposedTargets, is_taken, propose_version
from artifact_sync.trust.roles import Expiries
from validation.approvals.approval_records import Approval, Proposal, SignedApproval
from validation.approvals.approvers import check_is_approver, check_is_not_trainer, checked_reason
from validation.approvals.candidacy import Candidacy, check_champion, read_candidacy
from validation.approvals.decisions import DecisionBook, append_in_turn
from validation.approvals.standing import CLOCK_SKEW, Standing, rebuilt_targets, rebuilt_version, standing_of
from validation.budgets.spent_budget import check_spent

APPROVAL_DAYS = 30
"""For how long an approval counts unless the settings say otherwise."""


@dataclass(frozen=True)
class ApprovalTerms:
    """What holds for every approval on a site.

    Attributes:
        days: for how long it counts when nothing is published.
        may_approve_own: whether the person who trained a run may approve it.
        expiries: how long a list of versions is to be believed.
    """

    days: int = APPROVAL_DAYS
    may_approve_own: bool = False
    expiries: Expiries = field(default_factory=Expiries)


def approve(
    run: RunFolder,
    *,
    trust: TrustedReader,
    signer: Signer,
    reason: str,
    now: datetime,
    terms: ApprovalTerms | None = None,
) -> SignedApproval:
    """Sign that the run's candidate may be served; doing it again returns what was signed before.

    Args:
        run: a judged run.
        trust: the bucket as this machine is to believe it.
        signer: the approver's key.
        reason: why, in the approver's words.
        now: the time that is written down.
        terms: what holds for every approval here.

    Raises:
        RefusedError: no verdict, not "better", stale, no reason, not a trusted approver, the trainer, or
            one who has rejected it; or its promotion has begun or is half-published.
        IntegrityError: a file of the run is not the one that was judged.
        TrustError: the bucket's state is not to be believed.
    """
    terms = terms or ApprovalTerms()
    view = trust.refresh()
    candidacy = read_candidacy(run, model=view.model, act="Approval")
    check_is_approver(signer, view, run_id=run.run_id, act="Approval")
    if not terms.may_approve_own:
        check_is_not_trainer(signer, candidacy)
    because = checked_reason(reason, run_id=run.run_id, act="Approval", verb="approve")
    check_spent(candidacy, trust.registry, act="Approval")
    verify_manifest(run.export, candidacy.manifest)

    def act() -> SignedApproval:
        return _approve(candidacy, trust=trust, signer=signer, reason=because, now=now, terms=terms)

    return append_in_turn(act, what=f"Approval of run {run.run_id}")


def approvals(run: RunFolder, *, trust: TrustedReader, now: datetime) -> Standing:
    """Return what stands of a run's approvals at `now`, for people to look at.

    Raises:
        RefusedError: the run has no verdict that could be approved.
        IntegrityError: a file of the run is not the one that was judged or proposed.
        TrustError: the bucket's state is not to be believed.
    """
    view = trust.refresh()
    candidacy = read_candidacy(run, model=view.model, act="Approval")
    return standing_of(candidacy, view, registry=trust.registry, now=now)


def _approve(
    candidacy: Candidacy,
    *,
    trust: TrustedReader,
    signer: Signer,
    reason: str,
    now: datetime,
    terms: ApprovalTerms,
) -> SignedApproval:
    """Look at what stands now, and append to it; AlreadyExistsError when somebody was quicker."""
    view = trust.refresh()
    standing = standing_of(candidacy, view, registry=trust.registry, now=now)
    book = DecisionBook(trust.registry, candidacy.run, candidacy.verdict.sha256)
    book.keep(standing.log.entries)
    before = _own(standing.approvals, signer)
    if before is not None and not standing.is_overtaken:
        return before
    _check_may_be_approved(candidacy, view, standing, signer)
    check_champion(candidacy, view, act="Approval")
    if is_taken(trust.registry, view.targets.version + 1):
        raise RefusedError(
            f"Approval of run {candidacy.run.run_id} refused for the moment: a promotion or a change of keys is "
            "half-published in the bucket. Run `liftgate keys refresh` on the promoting machine, which finishes it; "
            "then approve."
        )
    period = terms.expiries.targets
    proposal = _proposal(candidacy, view, standing, now=now, expires=now + period)
    _check_times(proposal, now=now, period=period)
    signed = None if standing.is_overtaken else _own(standing.unrecorded, signer)
    if signed is None:
        proposed = rebuilt_targets(proposal, rebuilt_version(candidacy, proposal), view)
        after = standing.log.head_sha256
        signed = _sign(
            candidacy, proposal, proposed, signer=signer, reason=reason, now=now, days=terms.days, after=after
        )
    book.append(
        standing.log,
        kind="approval",
        signer=signer,
        reason=signed.approval.reason,
        now=now,
        about_sha256=signed.sha256,
    )
    return signed


def _own(given: tuple[SignedApproval, ...], signer: Signer) -> SignedApproval | None:
    return next((signed for signed in given if signed.approval.key_id == signer.public.key_id), None)


def _check_may_be_approved(candidacy: Candidacy, view: TrustedView, standing: Standing, signer: Signer) -> None:
    run_id = candidacy.run.run_id
    refused = f"Approval of run {run_id} refused"
    if standing.is_published:
        raise RefusedError(f"{refused}: it is published already. Promote it.")
    if standing.begun is not None:
        begun = standing.begun.decision
        raise RefusedError(
            f"{refused}: its promotion began at {begun.decided_at:%Y-%m-%d %H:%M:%S} UTC, with the approvals that "
            f"were there. Run `liftgate promote {run_id}`, which finishes it."
        )
    word = standing.log.word_of(signer.public.key_id)
    if word is not None and word.decision.kind == "rejection":
        raise RefusedError(
            f"{refused}: {signer.public.name} rejected it on {word.decision.decided_at:%Y-%m-%d %H:%M} UTC "
            f"({word.decision.reason!r}). Take that back first: `liftgate revoke {run_id} --because …`."
        )


def _proposal(
    candidacy: Candidacy, view: TrustedView, standing: Standing, *, now: datetime, expires: datetime
) -> Proposal:
    if standing.proposal is not None and not standing.is_overtaken:
        return standing.proposal
    record = candidacy.version_record(view.next_version, created_at=now)
    proposed = propose_version(view, record, expires=expires)
    proposal = Proposal(
        model=view.model,
        run_id=candidacy.run.run_id,
        verdict_sha256=candidacy.verdict.sha256,
        targets_number=proposed.number,
        version=record.version,
        version_sha256=record.sha256,
        targets_sha256=sha256_hex(proposed.payload),
        created_at=now,
        expires_at=expires,
    )
    path = proposal.path(candidacy.run)
    try:
        create_durably(path, proposal.to_json())
    except AlreadyExistsError:
        # Another approver was first a moment ago; both sign the same bytes, so take theirs.
        return Proposal.from_json(path.read_bytes())
    return proposal


def _check_times(proposal: Proposal, *, now: datetime, period: timedelta) -> None:
    starts, ends = proposal.created_at, proposal.expires_at
    if starts > now + CLOCK_SKEW or ends <= now or ends - starts > period:
        raise RefusedError(
            f"Approval of run {proposal.run_id} refused: the proposal was made at {starts:%Y-%m-%d %H:%M} to be "
            f"believed until {ends:%Y-%m-%d}, which this machine would not do (now {now:%Y-%m-%d %H:%M}, for "
            f"{period.days} days). Compare clocks and settings, or remove the proposal from approvals/."
        )


def _sign(
    candidacy: Candidacy,
    proposal: Proposal,
    proposed: ProposedTargets,
    *,
    signer: Signer,
    reason: str,
    now: datetime,
    days: int,
    after: str | None,
) -> SignedApproval:
    approval = Approval.model_validate(
        {
            **candidacy.bound_fields(),
            **proposal.bound_fields(),
            "after_sha256": after,
            "approver": signer.public.name,
            "key_id": signer.public.key_id,
            "reason": reason,
            "approved_at": now,
            "expires_at": now + timedelta(days=days),
        }
    )
    signed = SignedApproval(
        approval=approval,
        statement_signature=signer.sign(approval.to_json()),
        targets_signature=signer.sign(proposed.payload),
    )
    create_durably(proposal.free_path(candidacy.run, signer.public.name), signed.to_json())
    return signed
