"""Approving: a person's signed decision that a candidate may be served.

Its place in the flow: between validate and promote. The first approver writes down the proposal
(which version number, made when, to be believed until when). Each approver makes the next list of
versions anew from it and from the trusted state, so that nothing is signed that is only read from a
file, and signs those bytes and a statement with the reason.
"""

from __future__ import annotations

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
from validation.approval_records import MAX_REASON_CHARACTERS, Approval, Proposal, SignedApproval
from validation.candidacy import Candidacy, check_champion, read_candidacy
from validation.standing import Standing, rebuilt_targets, rebuilt_version, standing_of

_CLOCK_SKEW = timedelta(minutes=10)


def approve(
    run: RunFolder,
    *,
    trust: TrustedReader,
    signer: Signer,
    reason: str,
    now: datetime,
    may_approve_own: bool = False,
    expiries: Expiries | None = None,
) -> SignedApproval:
    """Sign that the run's candidate may be served; doing it again returns what was signed before.

    Args:
        run: a judged run.
        trust: the bucket as this machine is to believe it.
        signer: the approver's key.
        reason: why, in the approver's words.
        now: the time that is written down.
        may_approve_own: whether the person who trained the run may approve it.
        expiries: how long a list of versions is to be believed.

    Raises:
        RefusedError: no verdict, not "better", stale, no reason, not a trusted approver, or the
            trainer; or a promotion is half-published.
        IntegrityError: a file of the run is not the one that was judged.
        TrustError: the bucket's state is not to be believed.
    """
    view = trust.refresh()
    candidacy = read_candidacy(run, model=view.model, act="Approval")
    _check_approver(candidacy, view, signer, may_approve_own=may_approve_own)
    because = _checked_reason(reason, run=run)
    standing = standing_of(candidacy, view)
    before = next((own for own in standing.approvals if own.approval.key_id == signer.public.key_id), None)
    if before is not None and not standing.is_overtaken:
        return before
    if standing.is_published:
        raise RefusedError(f"Approval of run {run.run_id} refused: it is published already. Promote it.")
    check_champion(candidacy, view, act="Approval")
    verify_manifest(run.export, candidacy.manifest)
    if is_taken(trust.registry, view.targets.version + 1):
        raise RefusedError(
            f"Approval of run {run.run_id} refused for the moment: a promotion or a change of keys is half-published "
            "in the bucket. Run `liftgate keys refresh` on the promoting machine, which finishes it; then approve."
        )
    period = (expiries or Expiries()).targets
    proposal = _proposal(candidacy, view, standing, now=now, expires=now + period)
    _check_times(proposal, now=now, period=period)
    proposed = rebuilt_targets(proposal, rebuilt_version(candidacy, proposal), view)
    return _sign(candidacy, proposal, proposed, signer=signer, reason=because, now=now)


def approvals(run: RunFolder, *, trust: TrustedReader) -> Standing:
    """Return what stands of a run's approvals, for people to look at.

    Raises:
        RefusedError: the run has no verdict that could be approved.
        IntegrityError: a file of the run is not the one that was judged or proposed.
        TrustError: the bucket's state is not to be believed.
    """
    view = trust.refresh()
    return standing_of(read_candidacy(run, model=view.model, act="Approval"), view)


def _check_approver(candidacy: Candidacy, view: TrustedView, signer: Signer, *, may_approve_own: bool) -> None:
    run_id, name = candidacy.run.run_id, signer.public.name
    if signer.public not in view.roles.approvers:
        trusted = ", ".join(key.name for key in view.roles.approvers)
        raise RefusedError(
            f"Approval of run {run_id} refused: the key of {name} is not a trusted approver's (those are {trusted}). "
            "Let one of them approve, or add the key with `liftgate keys rotate`."
        )
    trainer = candidacy.record.trained_by.strip().casefold()
    if not may_approve_own and name in {trainer, trainer.partition("@")[0]}:
        raise RefusedError(
            f"Approval of run {run_id} refused: {name} trained it, and nobody approves the own work. Let another "
            "approver look at it, or set may_approve_own = true if there is none."
        )


def _checked_reason(reason: str, *, run: RunFolder) -> str:
    because = reason.strip()
    if not because:
        raise RefusedError(
            f"Approval of run {run.run_id} refused: it has no reason. Say why in a sentence: "
            f"`liftgate approve {run.run_id} --because …`."
        )
    if len(because) > MAX_REASON_CHARACTERS:
        raise RefusedError(
            f"Approval of run {run.run_id} refused: the reason has {len(because)} characters, at most "
            f"{MAX_REASON_CHARACTERS} are kept. Shorten it, and put the rest where people can read it."
        )
    return because


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
    if starts > now + _CLOCK_SKEW or ends <= now or ends - starts > period:
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
) -> SignedApproval:
    verdict = candidacy.verdict
    approval = Approval(
        model=proposal.model,
        run_id=proposal.run_id,
        version=proposal.version,
        targets_number=proposal.targets_number,
        candidate_manifest_sha256=verdict.candidate_manifest_sha256,
        champion=verdict.champion,
        holdout_sha256=verdict.holdout_sha256,
        policy_sha256=verdict.policy_sha256,
        report_sha256=verdict.report_sha256,
        verdict_sha256=proposal.verdict_sha256,
        version_sha256=proposal.version_sha256,
        targets_sha256=proposal.targets_sha256,
        approver=signer.public.name,
        key_id=signer.public.key_id,
        reason=reason,
        approved_at=now,
    )
    signed = SignedApproval(
        approval=approval,
        statement_signature=signer.sign(approval.to_json()),
        targets_signature=signer.sign(proposed.payload),
    )
    path = proposal.path(candidacy.run, signer.public.name)
    try:
        create_durably(path, signed.to_json())
    except AlreadyExistsError:
        raise RefusedError(
            f"Approval of run {proposal.run_id} refused: {path.name} is there already and does not count as "
            f"{signer.public.name}'s. Look at it with `liftgate approvals {proposal.run_id}` and remove it."
        ) from None
    return signed
