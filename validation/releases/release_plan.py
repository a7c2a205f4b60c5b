"""What a promotion would make, and whether it may: looked at, and settled by one entry in the record of decisions.

Its place in the flow: promote.py asks it before it pushes anything, and again at the moment that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from artifact_sync.errors import RefusedError
from artifact_sync.records import ReleaseRecord, TrafficShare, VersionRecord
from artifact_sync.trust import TrustedView
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.publisher import Publisher
from validation.approvals.candidacy import Candidacy, check_champion
from validation.approvals.decisions import DecisionBook
from validation.approvals.standing import Standing, standing_of
from validation.budgets.spent_budget import check_spent


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


@dataclass(frozen=True)
class Begun:
    """A promotion that nobody can reject any more.

    Attributes:
        view: the signed state that it was decided on.
        standing: what stood of the approvals then.
        release: the release to publish.
        was_there: whether somebody has published it already.
    """

    view: TrustedView
    standing: Standing
    release: ReleaseRecord
    was_there: bool


@dataclass(frozen=True)
class Plan:
    """One call's wish, checked against what stands now as often as that changes."""

    candidacy: Candidacy
    publisher: Publisher
    signer: Signer
    by: str
    now: datetime
    reason: str | None
    beside: Beside | None

    def standing(self, view: TrustedView) -> Standing:
        """Return what stands of the approvals in the signed state."""
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

    def begin(self) -> Begun:
        """Settle what stands by one entry in the record; AlreadyExistsError when somebody decided in between."""
        view = self.publisher.view()
        standing = self.standing(view)
        # Whoever promotes the same run may have been quicker while this one pushed.
        done = done_before(standing, view, beside=self.beside)
        if done is not None:
            return Begun(view, standing, done, was_there=True)
        record, version = self.release(standing, view), version_of(standing)
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
        return Begun(view, standing, record, was_there=False)


def version_of(standing: Standing) -> VersionRecord:
    """Return the version that was approved; refuse when nobody has."""
    if standing.version is None:
        raise RefusedError("Promotion refused: nobody has approved the run.")
    return standing.version


def done_before(standing: Standing, view: TrustedView, *, beside: Beside | None) -> ReleaseRecord | None:
    """Return the newest release if it is what this promotion would make."""
    latest = view.latest_release()
    if not standing.is_published or latest is None or latest.kind != "promotion":
        return None
    version = version_of(standing).version
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
            f"Promotion refused: run {run_id} was approved as version {version_of(standing).version}, but "
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
    version = version_of(standing).version
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
    latest, version = view.latest_release(), version_of(standing).version
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
    version = version_of(standing).version
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
