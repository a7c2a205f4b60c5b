"""Breaking the glass: a run is served in an emergency, past the gate, the approvers and the budget.

Its place in the flow: beside approve and promote, where a site has a break-glass key. It takes that key
for the version and the releaser's for the release, says in both what it is, and skips only what an
emergency has no time for: the model must still be what it says, and no more than a classifier.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from artifact_sync.errors import ExpiredError, LostRaceError, RecordError, RefusedError
from artifact_sync.push import PushReport, push_export
from artifact_sync.records import (
    FIRST_EMERGENCY_VERSION,
    Emergency,
    Manifest,
    ReleaseRecord,
    RunRecord,
    VersionRecord,
)
from artifact_sync.run_folder import RunFolder
from artifact_sync.transfer import ProgressCallback
from artifact_sync.trust import TrustedReader, TrustedView
from artifact_sync.trust.emergencies import check_break_glass_key, list_emergency
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.roles import Expiries
from validation.approvals.approvers import check_readable, checked_reason
from validation.checks.verdict import Verdict
from validation.programs.model_scan import scan_export
from validation.releases.release_race import lost_to


@dataclass(frozen=True)
class BrokenGlass:
    """What breaking the glass did.

    Attributes:
        release: the release that serves the run to everybody.
        version: the run's version, with a number that says that it went past the gate.
        replaced: the release before it; None when it is the first.
        pushed: the files that crossed; None when the release was there already.
        completed: what had been left half-published and is finished now, by path.
    """

    release: ReleaseRecord
    version: VersionRecord
    replaced: ReleaseRecord | None
    pushed: PushReport | None
    completed: tuple[str, ...]


def break_glass(
    run: RunFolder,
    *,
    trust: TrustedReader,
    signer: Signer,
    break_glass_signer: Signer,
    reason: str,
    by: str,
    now: datetime,
    progress: ProgressCallback | None = None,
    expiries: Expiries | None = None,
    scan: Callable[..., object] = scan_export,
) -> BrokenGlass:
    """Publish a run as a version past the gate, and the release that serves it; again finishes the first attempt.

    Args:
        run: a complete run; whether it has a verdict is written down and decides nothing.
        trust: the bucket as this machine is to believe it.
        signer: the releaser's key.
        break_glass_signer: the break-glass key.
        reason: why; the same reason by the same person again finishes the first attempt.
        by: who does it, for the record.
        now: the time that is written down.
        progress: told the bytes pushed and in all.
        expiries: for how long the signatures are to be believed.
        scan: what refuses an export that is more than a classifier.

    Raises:
        RefusedError: no reason, no break-glass key, another key, a model that is no plain classifier
            or has other labels than the served one, or nothing would change.
        LostRaceError: somebody else's release came first; the message says whose.
        IntegrityError: a file is not the one that the manifest names.
        ExpiredError: hosts would not believe the lists that the release rests on.
        TrustError: the bucket's state is not to be believed.
    """
    because = checked_reason(reason, run_id=run.run_id, act="Break-glass", verb="break-glass")
    check_readable(by, what=f"Break-glass of run {run.run_id} refused: the name")
    publisher = Publisher(trust, signer, expiries=expiries)
    completed = publisher.complete(now=now)
    view = publisher.view()
    check_break_glass_key(view.roles, break_glass_signer)
    _check_fresh(view, now=now)
    publisher.renew(now=now)
    view = publisher.view()
    latest = view.latest_release()
    done = _done_before(run, view, by=by, reason=because)
    if done is not None and latest is not None:
        return BrokenGlass(latest, done, _before(view, latest), None, completed)
    record, manifest = _checked_run(run, view, scan=scan)
    pushed = push_export(trust.registry, run.export, manifest, progress=progress)
    emergency = Emergency(
        release=1 if latest is None else latest.number + 1, by=by, reason=because, verdict=_verdict(run, manifest)
    )
    version = _listed_before(view, record, manifest, emergency)
    try:
        if version is None:
            version = _version(view, record, manifest, emergency, now=now)
            list_emergency(
                trust.registry,
                publisher.state(),
                version,
                break_glass_signer,
                now=now,
                period=(expiries or Expiries()).break_glass,
            )
        release = _release(version.version, emergency, view, latest, now=now)
        publisher.publish_release(release, now=now)
    except LostRaceError:
        winner = lost_to(publisher, before=view, now=now)
        raise LostRaceError(
            f"Breaking the glass for run {run.run_id} lost the race: {winner}. This attempt serves nothing. Look at "
            "`liftgate history`, then decide again."
        ) from None
    return BrokenGlass(release, version, latest, pushed, completed)


def _check_fresh(view: TrustedView, *, now: datetime) -> None:
    """Refuse what hosts would not believe, before anything is written: those lists are not the releaser's to renew."""
    for name in ("root", "targets"):
        if view.expires[name] <= now:
            raise ExpiredError(
                f"Breaking the glass refused: the signed list {name} has expired on {view.expires[name]:%Y-%m-%d}, so "
                "hosts believe nothing that rests on it. Its holders must sign it again with `liftgate keys rotate`."
            )


def _done_before(run: RunFolder, view: TrustedView, *, by: str, reason: str) -> VersionRecord | None:
    latest = view.latest_release()
    if latest is None or (latest.kind, latest.by, latest.reason) != ("break-glass", by, reason):
        return None
    version = view.version(latest.stable)
    return version if version.lineage.run_id == run.run_id else None


def _before(view: TrustedView, release: ReleaseRecord) -> ReleaseRecord | None:
    return view.release(release.number - 1) if release.number > 1 else None


def _checked_run(run: RunFolder, view: TrustedView, *, scan: Callable[..., object]) -> tuple[RunRecord, Manifest]:
    record, manifest = run.read_run(), run.read_manifest()
    if (record.run_id, record.model) != (run.run_id, view.model):
        raise RefusedError(
            f"Breaking the glass refused: folder {run.run_id} holds run {record.run_id} of model {record.model!r}, "
            f"expected run {run.run_id} of {view.model!r}. Name the right run."
        )
    _check_labels_file(run, record)
    latest = view.latest_release()
    if latest is not None:
        _check_against_served(record, manifest, view.version(latest.stable), latest)
    scan(run.export, contract=record.input_contract, classes=len(record.labels))
    return record, manifest


def _check_against_served(record: RunRecord, manifest: Manifest, served: VersionRecord, latest: ReleaseRecord) -> None:
    if sorted(record.labels) != sorted(served.labels):
        foreign = sorted(set(record.labels) ^ set(served.labels))
        raise RefusedError(
            f"Breaking the glass refused: run {record.run_id} answers with other labels than version {served.version}, "
            f"which is served (different: {', '.join(map(repr, foreign[:5]))}). Name a run with the same labels, or "
            "let it go through validate, approve and promote."
        )
    if manifest.sha256 == served.manifest.sha256 and latest.versions == (latest.stable,):
        raise RefusedError(
            f"Breaking the glass refused: run {record.run_id} is what release {latest.number} serves already, as "
            f"version {served.version}. Nothing would change."
        )


def _check_labels_file(run: RunFolder, record: RunRecord) -> None:
    path = run.export / "assets.extra" / "labels.json"
    if not path.is_file():
        return
    try:
        written = json.loads(path.read_bytes())
    except ValueError:
        written = "no JSON"
    if written != list(record.labels):
        raise RefusedError(
            f"Breaking the glass refused: {path} does not have the labels of run.json in their order, so the scores "
            "would be read under the wrong names. Export the run again."
        )


def _verdict(run: RunFolder, manifest: Manifest) -> Literal["better", "not better", "cannot tell", "none"]:
    """Return what the gate had said of these very files, for the record."""
    try:
        verdict = Verdict.from_json(run.verdict_json.read_bytes())
    except (FileNotFoundError, RecordError):
        return "none"
    is_of_run = (verdict.run_id, verdict.candidate_manifest_sha256) == (run.run_id, manifest.sha256)
    return verdict.outcome if is_of_run else "none"


def _listed_before(
    view: TrustedView, record: RunRecord, manifest: Manifest, emergency: Emergency
) -> VersionRecord | None:
    """Return what an attempt that was cut off had listed for this very release."""
    for number in reversed(view.version_numbers):
        if number < FIRST_EMERGENCY_VERSION:
            return None
        version = view.version(number)
        if (version.emergency, version.manifest, version.lineage) == (emergency, manifest, record.lineage()):
            return version
    return None


def _version(
    view: TrustedView, record: RunRecord, manifest: Manifest, emergency: Emergency, *, now: datetime
) -> VersionRecord:
    return VersionRecord(
        model=view.model,
        version=view.next_emergency_version,
        manifest=manifest,
        lineage=record.lineage(),
        input_contract=record.input_contract,
        labels=record.labels,
        emergency=emergency,
        created_at=now,
    )


def _release(
    version: int, emergency: Emergency, view: TrustedView, latest: ReleaseRecord | None, *, now: datetime
) -> ReleaseRecord:
    return ReleaseRecord(
        model=view.model,
        number=emergency.release,
        kind="break-glass",
        stable=version,
        reason=emergency.reason,
        by=emergency.by,
        previous_sha256=None if latest is None else view.release_sha256(latest.number),
        created_at=now,
    )
