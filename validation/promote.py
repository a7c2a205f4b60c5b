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
from typing import Literal

from artifact_sync.errors import LostRaceError, RefusedError
from artifact_sync.push import PushReport, push_export
from artifact_sync.records import ReleaseRecord, TrafficShare, VersionRecord
from artifact_sync.run_folder import RunFolder
from artifact_sync.transfer import ProgressCallback
from artifact_sync.trust import TrustedReader, TrustedView
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries
from validation.approvers import check_readable
from validation.candidacy import Candidacy, check_champion, read_candidacy
from validation.decisions import DecisionBook, append_in_turn
from validation.evidence import store_evidence
from validation.release_race import lost_to
from validation.roll_back import Rollback, roll_back
from validation.spent_budget import check_spent
from validation.standing import Standing, standing_of

__all__ = ["Promotion", "Rollback", "promote", "roll_back"]


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


@dataclass(frozen=True)
class Beside:
    """A candidate beside the champion: a canary answers a part of the users, a shadow gets copies of requests.

    Raises:
        RefusedError: the percentage is none.
    """

    role: Literal["canary", "shadow"]
    percent: float

    def __post_init__(self) -> None:
        most = 100 if self.role == "shadow" else 99.999
        if not 0 < self.percent <= most:
            raise RefusedError(
                f"Promotion refused: a {self.role} of {self.percent} % is none. Name more than 0 and "
                f"{'at most' if self.role == 'shadow' else 'less than'} 100, or promote without it."
            )

    def shares(self, version: int) -> tuple[TrafficShare | None, TrafficShare | None]:
        """Return what a release says of its canary and of its shadow."""
        share = TrafficShare(version=version, percent=self.percent)
        return (share, None) if self.role == "canary" else (None, share)


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
    plan = _Plan(candidacy, publisher, signer, by=by, now=now, reason=reason, beside=beside)
    standing = plan.standing(view)
    done = _done_before(standing, view, beside=beside)
    if done is not None:
        return Promotion(done, view.version(_version(standing).version), None, completed)
    plan.release(standing, view)
    pushed = push_export(trust.registry, run.export, candidacy.manifest, progress=progress)
    view, standing, record = append_in_turn(plan.begin, what=f"Promotion of run {run.run_id}")
    store_evidence(trust.registry, candidacy, standing.approvals, documents=documents)
    _publish(publisher, standing, record, view=view, run_id=run.run_id, now=now)
    return Promotion(record, _version(standing), pushed, completed)


@dataclass(frozen=True)
class _Plan:
    """One call's wish, checked against what stands now as often as that changes."""

    candidacy: Candidacy
    publisher: Publisher
    signer: Signer
    by: str
    now: datetime
    reason: str | None
    beside: Beside | None

    def standing(self, view: TrustedView) -> Standing:
        return standing_of(self.candidacy, view, registry=self.publisher.reader.registry, now=self.now)

    def release(self, standing: Standing, view: TrustedView) -> ReleaseRecord:
        """Return the release to make, or refuse."""
        _check_not_rejected(self.candidacy, standing)
        check_spent(self.candidacy, self.publisher.reader.registry, act="Promotion")
        check_champion(self.candidacy, view, act="Promotion")
        _check_approved(self.candidacy, standing, view)
        record = _release(standing, view, by=self.by, now=self.now, reason=self.reason, beside=self.beside)
        _check_not_taken_back(self.candidacy, standing, view)
        return record

    def begin(self) -> tuple[TrustedView, Standing, ReleaseRecord]:
        """Settle what stands by one entry in the record; AlreadyExistsError when somebody decided in between."""
        view = self.publisher.view()
        standing = self.standing(view)
        record, version = self.release(standing, view), _version(standing)
        book = DecisionBook(self.publisher.reader.registry, self.candidacy.run, self.candidacy.verdict.sha256)
        book.keep(standing.log.entries)
        begun = None if standing.begun is None else standing.begun.decision
        if begun is None or (begun.about_sha256, begun.release) != (version.sha256, record.number):
            book.append(
                standing.log,
                kind="promotion",
                signer=self.signer,
                reason=f"{self.by} promotes it",
                now=self.now,
                about_sha256=version.sha256,
                targets_number=standing.proposal.targets_number if standing.proposal else None,
                release=record.number,
            )
        return view, standing, record


def _publish(
    publisher: Publisher, standing: Standing, record: ReleaseRecord, *, view: TrustedView, run_id: str, now: datetime
) -> None:
    try:
        if standing.proposed is not None:
            version = _version(standing).to_json()
            publisher.reader.registry.put_blob(version, sha256=_version(standing).sha256)
            signatures = {signed.approval.key_id: signed.targets_signature for signed in standing.approvals}
            publisher.publish_version(standing.proposed, signatures, now=now)
        publisher.publish_release(record, now=now)
    except LostRaceError:
        winner = lost_to(publisher, before=view, now=now)
        raise LostRaceError(
            f"Promotion of run {run_id} lost the race: {winner}. This attempt changed nothing. Look at "
            f"`liftgate history`; unless that was this very run, validate it anew and let it be approved again."
        ) from None


def _version(standing: Standing) -> VersionRecord:
    if standing.version is None:
        raise RefusedError("Promotion refused: nobody has approved the run.")
    return standing.version


def _done_before(standing: Standing, view: TrustedView, *, beside: Beside | None) -> ReleaseRecord | None:
    latest = view.latest_release()
    if not standing.is_published or latest is None or latest.kind != "promotion":
        return None
    version = _version(standing).version
    shares = (latest.canary, latest.shadow)
    if beside is None:
        return latest if latest.stable == version and shares == (None, None) else None
    return latest if shares == beside.shares(version) else None


def _check_not_rejected(candidacy: Candidacy, standing: Standing) -> None:
    run_id = candidacy.run.run_id
    if standing.rejections:
        said = "; ".join(
            f"{entry.decision.by} on {entry.decision.decided_at:%Y-%m-%d %H:%M} UTC: {entry.decision.reason!r}"
            for entry in standing.rejections
        )
        raise RefusedError(
            f"Promotion refused: run {run_id} is rejected ({said}). Only who rejected it can take that back, with "
            f"`liftgate revoke {run_id} --because …`; or train another candidate."
        )


def _check_approved(candidacy: Candidacy, standing: Standing, view: TrustedView) -> None:
    run_id = candidacy.run.run_id
    if standing.is_overtaken:
        raise RefusedError(
            f"Promotion refused: run {run_id} was approved as version {_version(standing).version}, but "
            f"{_overtaker(standing, view)}. Run `liftgate approve {run_id} --because …` again."
        )
    if standing.has_enough:
        return
    lacking = standing.threshold - len(standing.approvals)
    refused = "".join(f" {sentence}" for sentence in standing.refused)
    raise RefusedError(
        f"Promotion refused: run {run_id} has {len(standing.approvals)} of {standing.threshold} approvals (missing: "
        f"{lacking} of {', '.join(standing.missing)}).{refused} Run `liftgate approve {run_id} --because …`."
    )


def _overtaker(standing: Standing, view: TrustedView) -> str:
    version = _version(standing).version
    if version in view.version_numbers:
        return f"that number went to run {view.version(version).lineage.run_id}"
    return "the keys were changed since"


def _release(
    standing: Standing,
    view: TrustedView,
    *,
    by: str,
    now: datetime,
    reason: str | None,
    beside: Beside | None,
) -> ReleaseRecord:
    latest, version = view.latest_release(), _version(standing).version
    if beside is not None and latest is None:
        raise RefusedError(
            f"Promotion refused: a {beside.role} needs a champion beside it, and nothing is released yet. "
            "Promote without it."
        )
    canary, shadow = beside.shares(version) if beside is not None else (None, None)
    because = reason or "; ".join(
        f"{signed.approval.approver}: {signed.approval.reason}" for signed in standing.approvals
    )
    return ReleaseRecord(
        model=view.model,
        number=1 if latest is None else latest.number + 1,
        kind="promotion",
        stable=latest.stable if beside is not None and latest is not None else version,
        canary=canary,
        shadow=shadow,
        reason=because,
        by=by,
        approval_sha256s=tuple(signed.sha256 for signed in standing.approvals),
        previous_sha256=None if latest is None else view.release_sha256(latest.number),
        created_at=now,
    )


def _check_not_taken_back(candidacy: Candidacy, standing: Standing, view: TrustedView) -> None:
    """Refuse a version that was served and then rolled back: a retry of a script must not bring it back."""
    if not standing.is_published:
        return
    version = _version(standing).version
    for number in reversed(view.release_numbers):
        release = view.release(number)
        if version in release.versions:
            return
        if release.kind == "rollback" and number > 1 and version in view.release(number - 1).versions:
            raise RefusedError(
                f"Promotion refused: run {candidacy.run.run_id} (version {version}) was taken back by release {number} "
                f"({release.by}: {release.reason}). To serve it again, run `liftgate rollback --to {version} --because "
                "…` if it was stable, or validate and approve it again."
            )
