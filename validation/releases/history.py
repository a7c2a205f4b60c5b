"""What was served when, who decided it, why, and on what evidence; and where a thing came from.

Its place in the flow: `liftgate history` and `liftgate trace` print what this returns. It reads the
bucket only, and verifies as it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import NotFoundError, TrustError
from artifact_sync.records import ReleaseRecord, VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.trust import TrustedView
from artifact_sync.trust.keys import PublicKey
from artifact_sync.trust.proposal import is_signed_by
from validation.approvals.approval_records import SignedApproval
from validation.approvals.decisions import DecisionLog, read_bucket, verified_log

MAX_APPROVAL_BYTES = 1024 * 1024

_SHORTEST_DIGEST = 8


@dataclass(frozen=True)
class ApprovalEvidence:
    """An approval as the bucket has it.

    Attributes:
        signed: the approval.
        is_by_present_approver: whether the signature verifies with a key that is trusted now; it
            does not any more for an approver whose key was rotated out.
    """

    signed: SignedApproval
    is_by_present_approver: bool


@dataclass(frozen=True)
class HistoryEntry:
    """One release, and what it put before the users.

    Attributes:
        release: who, why, when, what.
        version: the version that the release was made for: its canary or shadow, else its stable version.
        approvals: the approvals that a promotion rested on; a rollback needs none.
        decisions: what people said of the version's verdict, as the bucket has it now.
        warnings: what should not be: a promotion against a rejection, or on an approval that was taken back.
    """

    release: ReleaseRecord
    version: VersionRecord
    approvals: tuple[ApprovalEvidence, ...]
    decisions: DecisionLog
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class VersionTrace:
    """Where one version came from, and which releases served it.

    Attributes:
        version: the record with manifest, lineage and evidence digests.
        sha256: the record's own digest, which the approvers signed.
        releases: every release that names it, oldest first.
        approvals: the approvals of its promotions.
        documents: for each evidence document its digest, and whether the bucket has it.
        decisions: what people said of its verdict, as the bucket has it now.
        is_spending_there: whether the bucket has the entry of the budget's ledger that its verdict names;
            None when it names none.
    """

    version: VersionRecord
    sha256: str
    releases: tuple[ReleaseRecord, ...]
    approvals: tuple[ApprovalEvidence, ...]
    documents: tuple[tuple[str, str, bool], ...]
    decisions: DecisionLog
    is_spending_there: bool | None


def history(view: TrustedView, registry: Registry, *, newest: int | None = None) -> Iterator[HistoryEntry]:
    """Yield the releases, newest first; `newest` limits how many.

    Raises:
        TrustError: a record or an approval is not what was signed.
    """
    for number in tuple(reversed(view.release_numbers))[:newest]:
        release = view.release(number)
        version, given = view.version(release.about), _approvals(view, registry, release)
        log = _decisions(view, registry, version)
        yield HistoryEntry(release, version, given, log, _warnings(release, version, given, log))


def trace(view: TrustedView, registry: Registry, identifier: str) -> tuple[VersionTrace, ...]:
    """Return the versions that an identifier means.

    Args:
        view: the trusted state.
        registry: where the approvals lie.
        identifier: "version 42", "release 57", a number (of a version), a run's id, or the first 8 or
            more digits of the digest of a manifest, of a version record or of any of its evidence.

    Raises:
        NotFoundError: it means nothing that was ever approved.
        TrustError: a record or an approval is not what was signed.
    """
    wanted = _versions_of(view, identifier.strip())
    if not wanted:
        raise NotFoundError(
            f'{identifier!r} means nothing that {view.model} ever had. Name a version ("version 3"), a release '
            '("release 7"), a run, or at least 8 digits of a digest; `liftgate history` lists what there is.'
        )
    releases = [view.release(number) for number in view.release_numbers]
    return tuple(_trace(view, registry, version, releases) for version in wanted)


def _versions_of(view: TrustedView, identifier: str) -> tuple[int, ...]:
    word, _, rest = identifier.replace(":", " ").partition(" ")
    if word == "release" and rest.isdecimal():
        return view.release(int(rest)).versions
    number = rest if word == "version" else identifier
    if number.isdecimal() and int(number) in view.version_numbers:
        return (int(number),)
    if word == "version":
        return ()
    return tuple(version for version in view.version_numbers if _is_meant(view, version, identifier))


def _is_meant(view: TrustedView, version: int, identifier: str) -> bool:
    record = view.version(version)
    digests = (
        record.manifest.sha256,
        view.version_sha256(version),
        record.lineage.data_manifest_sha256,
        *(sha256 for _, sha256 in _documents(record)),
    )
    is_digest = len(identifier) >= _SHORTEST_DIGEST and any(digest.startswith(identifier) for digest in digests)
    return is_digest or record.lineage.run_id == identifier


def _trace(view: TrustedView, registry: Registry, version: int, releases: list[ReleaseRecord]) -> VersionTrace:
    record = view.version(version)
    naming = tuple(release for release in releases if version in release.versions)
    approvals = {
        approval.signed.sha256: approval
        for release in naming
        for approval in _approvals(view, registry, release)
        if approval.signed.approval.version == version
    }
    documents = tuple((name, sha256, _has_blob(registry, sha256)) for name, sha256 in _documents(record))
    return VersionTrace(
        version=record,
        sha256=view.version_sha256(version),
        releases=naming,
        approvals=tuple(approvals.values()),
        documents=documents,
        decisions=_decisions(view, registry, record),
        is_spending_there=_is_spending_there(registry, record),
    )


def _documents(record: VersionRecord) -> tuple[tuple[str, str], ...]:
    evidence = record.evidence
    if evidence is None:
        return ()
    return (
        ("report", evidence.report_sha256),
        ("verdict", evidence.verdict_sha256),
        ("policy", evidence.policy_sha256),
        ("holdout", evidence.holdout_sha256),
    )


def _decisions(view: TrustedView, registry: Registry, version: VersionRecord) -> DecisionLog:
    if version.evidence is None:
        return DecisionLog()
    sha256 = version.evidence.verdict_sha256
    return verified_log(read_bucket(registry, sha256), view=view, verdict_sha256=sha256)


def _warnings(
    release: ReleaseRecord, version: VersionRecord, approvals: tuple[ApprovalEvidence, ...], log: DecisionLog
) -> tuple[str, ...]:
    """Return what a promotion did in spite of what people had said before it began."""
    if release.kind != "promotion" or version.evidence is None:
        return ()
    begun = [
        entry
        for entry in log.entries
        if entry.decision.kind == "promotion"
        and (entry.decision.release, entry.decision.about_sha256) == (release.number, version.sha256)
    ]
    if not begun:
        return (
            "the record of decisions has no entry of the present releaser for this promotion: the keys were changed "
            "since, the entry was removed, or it was made around Liftgate",
        )
    before = log.until(begun[0])
    present = [given.signed for given in approvals if given.is_by_present_approver]
    rejected = [f"PROMOTED AGAINST THE REJECTION by {entry.decision.by}" for entry in before.rejections]
    fallen = [
        f"THE APPROVAL by {signed.approval.approver} DID NOT STAND when the promotion began"
        for signed in present
        if not before.approves(signed.approval.key_id, signed.sha256)
    ]
    return (*rejected, *fallen)


def _is_spending_there(registry: Registry, version: VersionRecord) -> bool | None:
    evidence = version.evidence
    if evidence is None or evidence.ledger_sha256 is None:
        return None
    entries = registry.budget_entries(evidence.holdout_sha256)
    return any(
        (number, sha256_hex(data)) == (evidence.ledger_number, evidence.ledger_sha256) for number, _, data in entries
    )


def _has_blob(registry: Registry, sha256: str) -> bool:
    key = registry.blob_key(sha256)
    return any(info.key == key for info in registry.store.list(key))


def _approvals(view: TrustedView, registry: Registry, release: ReleaseRecord) -> tuple[ApprovalEvidence, ...]:
    present = {key.key_id: key for key in view.roles.approvers}
    found = (_read_approval(registry, sha256, release=release) for sha256 in release.approval_sha256s)
    return tuple(ApprovalEvidence(signed, _is_by(present.get(signed.approval.key_id), signed)) for signed in found)


def _read_approval(registry: Registry, sha256: str, *, release: ReleaseRecord) -> SignedApproval:
    try:
        with registry.open_blob(sha256) as stream:
            data = stream.read(MAX_APPROVAL_BYTES + 1)
    except NotFoundError:
        data = b""
    if sha256_hex(data) != sha256:
        raise TrustError(
            f"Release {release.number}'s approval {sha256} refused: the bucket's bytes are not those. The blob was "
            "removed or changed; restore it from a backup."
        )
    return SignedApproval.from_json(data)


def _is_by(key: PublicKey | None, signed: SignedApproval) -> bool:
    return key is not None and is_signed_by(key, signed.approval.to_json(), signed.statement_signature)
