"""Rolling back: a release that names an earlier version; no byte is copied.

Its place in the flow: the way out when what is served turns out to be worse. It needs the
releaser's key only, since every version that it can bring back was approved and served before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from artifact_sync.errors import LostRaceError, RefusedError
from artifact_sync.records import FIRST_EMERGENCY_VERSION, ReleaseRecord
from artifact_sync.trust import TrustedReader, TrustedView
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries
from validation.releases.release_race import lost_to


@dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
        release: the release that names the earlier version.
        replaced: the release before it.
        completed: what had been left half-published and is finished now, by path.
        was_there: whether an earlier attempt had created the release.
    """

    release: ReleaseRecord
    replaced: ReleaseRecord
    completed: tuple[str, ...]
    was_there: bool


def roll_back(
    *,
    trust: TrustedReader,
    signer: Signer,
    reason: str,
    by: str,
    now: datetime,
    to: int | None = None,
    expiries: Expiries | None = None,
) -> Rollback:
    """Release an earlier stable version.

    Args:
        trust: the bucket as this machine is to believe it.
        signer: the releaser's key.
        reason: why; the same reason by the same person again finishes the first attempt.
        by: who rolls back, for the record.
        now: the time that is written down.
        to: the version. By default a canary or shadow is taken away; without one, the version is
            taken that was stable before the present one was promoted.
        expiries: for how long the releaser's signatures are to be believed.

    Raises:
        RefusedError: no reason, nothing to go back to, a version that was never stable, or one that
            went past the gate, which takes the break-glass key again.
        LostRaceError: somebody else's release came first; the message says whose.
        TrustError: the bucket's state is not to be believed.
    """
    if not reason.strip():
        raise RefusedError("Rollback refused: it has no reason. Say why: `liftgate rollback --because …`.")
    publisher = Publisher(trust, signer, expiries=expiries)
    completed = publisher.complete(now=now)
    publisher.renew(now=now)
    view = publisher.view()
    latest = view.latest_release()
    if latest is None:
        raise RefusedError(f"Rollback refused: {view.model} has no release yet. Promote a run first.")
    is_same = (latest.kind, latest.by, latest.reason) == ("rollback", by, reason.strip()) and to in (
        None,
        latest.stable,
    )
    if is_same:
        return Rollback(latest, view.release(latest.number - 1), completed, was_there=True)
    target = _target(view, latest) if to is None else _checked_target(view, latest, to=to)
    record = ReleaseRecord(
        model=view.model,
        number=latest.number + 1,
        kind="rollback",
        stable=target,
        reason=reason.strip(),
        by=by,
        previous_sha256=view.release_sha256(latest.number),
        created_at=now,
    )
    try:
        publisher.publish_release(record, now=now)
    except LostRaceError:
        winner = lost_to(publisher, before=view, now=now)
        raise LostRaceError(
            f"Rollback to version {target} lost the race: {winner}. Look at `liftgate history`, then decide again."
        ) from None
    return Rollback(record, latest, completed, was_there=False)


def _target(view: TrustedView, latest: ReleaseRecord) -> int:
    if latest.versions != (latest.stable,):
        return latest.stable
    for number in reversed(view.release_numbers[1:]):
        release, before = view.release(number), view.release(number - 1)
        if release.kind != "rollback" and release.stable == latest.stable != before.stable:
            _check_approved(view, before.stable)
            return before.stable
    raise RefusedError(
        f"Rollback refused: version {latest.stable} is the first that was ever stable, so there is none before it. "
        "Promote a better run."
    )


def _checked_target(view: TrustedView, latest: ReleaseRecord, *, to: int) -> int:
    if latest.versions == (to,):
        raise RefusedError(
            f"Rollback refused: version {to} is what release {latest.number} serves already. Name another with --to."
        )
    stable = {view.release(number).stable for number in view.release_numbers}
    if to not in stable:
        served = ", ".join(str(version) for version in sorted(stable))
        raise RefusedError(
            f"Rollback refused: version {to} was never the stable version of a release (those were {served}). Name one "
            "of them, or promote the run."
        )
    if to != latest.stable:
        _check_approved(view, to)
    return to


def _check_approved(view: TrustedView, version: int) -> None:
    """Refuse to bring back what nobody approved: hosts would not take it from the releaser alone."""
    if version < FIRST_EMERGENCY_VERSION:
        return
    run_id = view.version(version).lineage.run_id
    stable = sorted({view.release(number).stable for number in view.release_numbers})
    approved = ", ".join(str(number) for number in stable if number < FIRST_EMERGENCY_VERSION) or "none"
    raise RefusedError(
        f"Rollback refused: version {version} went past the gate, so it takes the break-glass key to bring it back: "
        f"`liftgate break-glass {run_id} --because …`. Approved versions that were stable: {approved}. Name one of "
        "them with --to."
    )
