"""Saying no, and taking the own word back: `liftgate reject` and `liftgate revoke`.

Its place in the flow: beside approval.py, until the candidate is promoted. One rejection that stands stops
the promotion of that verdict, however many approve. Both are enforced by the machine that promotes; the
serving hosts see only what the approvers signed for them. An approver who does not trust the releaser's
machine any more changes the keys, which makes every signature that was given before worthless.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from artifact_sync.errors import RefusedError
from artifact_sync.run_folder import RunFolder
from artifact_sync.trust import TrustedReader, TrustedView
from artifact_sync.trust.keys import Signer
from validation.approvals.approval_records import SignedDecision, read_copies
from validation.approvals.approvers import check_is_approver, checked_reason
from validation.approvals.candidacy import read_judgement
from validation.approvals.decisions import DecisionBook, DecisionLog, append_in_turn, revocable_sha256
from validation.releases.release_race import described


@dataclass(frozen=True)
class Said:
    """What a rejection or revocation did.

    Attributes:
        signed: the entry in the record of decisions.
        was_there: whether an earlier attempt had made it.
        takes_back: the word of the same person that holds no more; None when there was none.
    """

    signed: SignedDecision
    was_there: bool
    takes_back: SignedDecision | None


def reject(run: RunFolder, *, trust: TrustedReader, signer: Signer, reason: str, now: datetime) -> Said:
    """Sign that the run must not be promoted on its verdict; it holds until the same person takes it back.

    It replaces the own approval. The report need not be intact: that may be the reason.

    Args:
        run: a run that the gate calls better.
        trust: the bucket as this machine is to believe it.
        signer: the approver's key.
        reason: why, in the approver's words.
        now: the time that is written down.

    Raises:
        RefusedError: no verdict, not "better", no reason, not a trusted approver; its promotion has begun,
            or it is what is served.
        TrustError: the bucket's state is not to be believed.
    """
    book, because = _prepare(run, trust=trust, signer=signer, reason=reason, act="Rejection", verb="reject")

    def act() -> Said:
        view = trust.refresh()
        log = book.read(view)
        book.keep(log.entries)
        word = log.word_of(signer.public.key_id)
        if word is not None and word.decision.kind == "rejection":
            return Said(word, was_there=True, takes_back=None)
        _check_not_begun(log, view, run_id=run.run_id, act="Rejection")
        _check_not_served(view, book, act="Rejection")
        signed = book.append(log, kind="rejection", signer=signer, reason=because, now=now)
        return Said(signed, was_there=False, takes_back=word)

    return append_in_turn(act, what=f"Rejection of run {run.run_id}")


def revoke(run: RunFolder, *, trust: TrustedReader, signer: Signer, reason: str, now: datetime) -> Said:
    """Take back the own approval or rejection of the run; doing it again returns what was signed before.

    Args:
        run: a judged run.
        trust: the bucket as this machine is to believe it.
        signer: the approver's key.
        reason: why, in the approver's words.
        now: the time that is written down.

    Raises:
        RefusedError: there is nothing of this person to take back, no reason, not a trusted approver; its
            promotion has begun, or rests on the approval already.
        TrustError: the bucket's state is not to be believed.
    """
    book, because = _prepare(run, trust=trust, signer=signer, reason=reason, act="Revocation", verb="revoke")

    def act() -> Said:
        view = trust.refresh()
        log = book.read(view)
        book.keep(log.entries)
        word, last = log.word_of(signer.public.key_id), log.last_of(signer.public.key_id)
        if word is None and last is not None:
            return Said(last, was_there=True, takes_back=None)
        if word is None:
            raise RefusedError(
                f"Revocation of run {run.run_id} refused: {signer.public.name} has neither approved nor rejected its "
                f"verdict. Look at `liftgate approvals {run.run_id}`."
            )
        _check_not_begun(log, view, run_id=run.run_id, act="Revocation")
        if word.decision.kind == "approval":
            _check_not_published(view, book)
        signed = book.append(
            log, kind="revocation", signer=signer, reason=because, now=now, about_sha256=revocable_sha256(word)
        )
        return Said(signed, was_there=False, takes_back=word)

    return append_in_turn(act, what=f"Revocation of run {run.run_id}")


def earlier_rejections(run: RunFolder, *, verdict_sha256: str) -> tuple[SignedDecision, ...]:
    """Return the run's rejections on other verdicts that this folder has copies of, for people to look at.

    They bind nobody, and are not verified: the run was judged anew.
    """
    copies = (copy for _, copy in read_copies(run, verdict_sha256=None) if copy is not None)
    return tuple(
        copy for copy in copies if copy.decision.kind == "rejection" and copy.decision.verdict_sha256 != verdict_sha256
    )


def _prepare(
    run: RunFolder, *, trust: TrustedReader, signer: Signer, reason: str, act: str, verb: str
) -> tuple[DecisionBook, str]:
    view = trust.refresh()
    _, verdict = read_judgement(run, model=view.model, act=act)
    if verdict.outcome != "better":
        raise RefusedError(
            f"{act} of run {run.run_id} refused: its verdict is {verdict.outcome!r}, so that nobody can approve or "
            "promote it anyway."
        )
    check_is_approver(signer, view, run_id=run.run_id, act=act)
    because = checked_reason(reason, run_id=run.run_id, act=act, verb=verb)
    return DecisionBook(trust.registry, run, verdict.sha256), because


def _check_not_begun(log: DecisionLog, view: TrustedView, *, run_id: str, act: str) -> None:
    begun = log.promotion_begun(view)
    if begun is not None:
        raise RefusedError(
            f"{act} of run {run_id} refused: its promotion began at {begun.decision.decided_at:%Y-%m-%d %H:%M:%S} UTC "
            f"({begun.decision.reason!r}), so it comes too late. Let `liftgate promote {run_id}` finish it if it was "
            "cut off, and then run `liftgate rollback --because …`."
        )


def _check_not_served(view: TrustedView, book: DecisionBook, *, act: str) -> None:
    latest = view.latest_release()
    if latest is None:
        return
    evidence = view.version(latest.stable).evidence
    if evidence is not None and evidence.verdict_sha256 == book.verdict_sha256:
        raise RefusedError(
            f"{act} of run {book.run.run_id} refused: it is what is served: {described(latest, view)}. Run `liftgate "
            "rollback --because …` to take it back."
        )


def _check_not_published(view: TrustedView, book: DecisionBook) -> None:
    for number in view.version_numbers:
        evidence = view.version(number).evidence
        if evidence is not None and evidence.verdict_sha256 == book.verdict_sha256:
            raise RefusedError(
                f"Revocation of run {book.run.run_id} refused: it is published as version {number}, and the approval "
                f"is a part of its history. Run `liftgate rollback --because …` to take it away from the users, or "
                f"`liftgate reject {book.run.run_id} --because …` to keep a canary from becoming stable."
            )
