"""Promotion: the act that makes an approved candidate the desired state of every host.

Its place in the flow: after approval, on the machine that holds the releaser's key. It first
finishes whatever anybody left half-published, then looks, decides, and publishes in an order in
which a crash at any point leaves the old state or the new one. Doing it again finishes the job.

Its entry in the record of decisions is the moment in which approvals, rejections and revocations are
settled: what came before it was seen, what comes after it is told that it is too late.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from artifact_sync.errors import LostRaceError
from artifact_sync.push import PushReport, push_export
from artifact_sync.records import ReleaseRecord, VersionRecord
from artifact_sync.run_folder import RunFolder
from artifact_sync.transfer import ProgressCallback
from artifact_sync.trust import TrustedReader, TrustedView
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries
from validation.approvals.approvers import check_readable
from validation.approvals.candidacy import read_candidacy
from validation.approvals.decisions import append_in_turn
from validation.approvals.evidence import store_evidence
from validation.approvals.standing import Standing
from validation.releases.release_plan import Beside, Plan, done_before, version_of
from validation.releases.release_race import lost_to
from validation.releases.roll_back import Rollback, roll_back

__all__ = ["Beside", "Promotion", "Rollback", "promote", "roll_back"]


@dataclass(frozen=True)
class Promotion:
    """What a promotion did.

    Attributes:
        release: the release that serves the candidate.
        version: the candidate's version.
        pushed: the files that crossed; None when the release was there already.
        completed: what had been left half-published and is finished now, by path.
    """

    release: ReleaseRecord
    version: VersionRecord
    pushed: PushReport | None
    completed: tuple[str, ...]

    @property
    def was_there(self) -> bool:
        """Whether an earlier attempt had created the release."""
        return self.pushed is None


def promote(
    run: RunFolder,
    *,
    trust: TrustedReader,
    signer: Signer,
    by: str,
    now: datetime,
    reason: str | None = None,
    beside: Beside | None = None,
    documents: Iterable[Path] = (),
    progress: ProgressCallback | None = None,
    expiries: Expiries | None = None,
) -> Promotion:
    """Publish an approved run as a version, and the release that serves it.

    Args:
        run: a judged and approved run.
        trust: the bucket as this machine is to believe it.
        signer: the releaser's key.
        by: who promotes, for the record.
        now: the time that is written down.
        reason: why; by default the approvers' reasons.
        beside: have it beside the champion, which stays stable; None makes it the champion.
        documents: further evidence that the verdict names, such as holdout.json.
        progress: told the bytes pushed and in all.
        expiries: for how long the releaser's signatures are to be believed.

    Raises:
        RefusedError: not better, stale, not approved by enough, rejected, taken back before, or nothing
            is there that it could be beside of.
        LostRaceError: somebody else's version or release came first; the message says whose.
        IntegrityError: a file is not the one that was judged.
        TrustError: the bucket's state is not to be believed.
    """
    for what, text in (("name", by), ("reason", reason or "")):
        check_readable(text, what=f"Promotion of run {run.run_id} refused: the {what}")
    publisher = Publisher(trust, signer, expiries=expiries)
    completed = publisher.complete(now=now)
    publisher.renew(now=now)
    view = publisher.view()
    candidacy = read_candidacy(run, model=view.model, act="Promotion")
    plan = Plan(candidacy, publisher, signer, by=by, now=now, reason=reason, beside=beside)
    standing = plan.standing(view)
    done = done_before(standing, view, beside=beside)
    if done is not None:
        return Promotion(done, view.version(version_of(standing).version), None, completed)
    plan.release(standing, view)
    pushed = push_export(trust.registry, run.export, candidacy.manifest, progress=progress)
    begun = append_in_turn(plan.begin, what=f"Promotion of run {run.run_id}")
    standing, record = begun.standing, begun.release
    if begun.was_there:
        return Promotion(record, version_of(standing), None, completed)
    store_evidence(trust.registry, candidacy, standing.approvals, documents=documents)
    _publish(publisher, standing, record, view=begun.view, run_id=run.run_id, now=now)
    return Promotion(record, version_of(standing), pushed, completed)


def _publish(
    publisher: Publisher, standing: Standing, record: ReleaseRecord, *, view: TrustedView, run_id: str, now: datetime
) -> None:
    try:
        if standing.proposed is not None:
            version = version_of(standing).to_json()
            publisher.reader.registry.put_blob(version, sha256=version_of(standing).sha256)
            signatures = {signed.approval.key_id: signed.targets_signature for signed in standing.approvals}
            publisher.publish_version(standing.proposed, signatures, now=now)
        publisher.publish_release(record, now=now)
    except LostRaceError:
        winner = lost_to(publisher, before=view, now=now)
        raise LostRaceError(
            f"Promotion of run {run_id} lost the race: {winner}. This attempt changed nothing. Look at "
            f"`liftgate history`; unless that was this very run, validate it anew and let it be approved again."
        ) from None
