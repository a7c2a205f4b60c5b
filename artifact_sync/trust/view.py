"""One consistent state of the bucket, as the signed metadata tells it.

Its place in the flow: reader.py makes it. Records are fetched when asked for, from the blob that
the signed metadata names by digest and length, and cross-checked with each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from tuf.api.metadata import Root, TargetFile, Targets, Timestamp

from artifact_sync.canonical import MAX_RECORD_BYTES, sha256_hex
from artifact_sync.errors import NotFoundError, RecordError, TrustError
from artifact_sync.records import FIRST_EMERGENCY_VERSION, ReleaseRecord, VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.trust.roles import RELEASES, Roles

_PATH = re.compile(r"^(?P<kind>versions|releases)/(?P<number>[0-9]{6})\.json$")

RecordT = TypeVar("RecordT", VersionRecord, ReleaseRecord)


class TrustedView:
    """What is signed, at one moment; immutable, and as true later as it was then.

    Args:
        registry: where the records' bytes lie.
        root: the verified root metadata.
        targets: the verified list of versions.
        releases: the verified list of releases.
        emergencies: the verified list of versions that the break-glass key signed; None where there is none.
        timestamp: the verified timestamp, the first to expire; None for signers, who renew it.

    Raises:
        TrustError: a key listed what is not its to list, or releases are missing.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        root: Root,
        targets: Targets,
        releases: Targets,
        emergencies: Targets | None = None,
        timestamp: Timestamp | None = None,
    ) -> None:
        self.model = registry.model
        self.roles = Roles.of(root, targets)
        self.root = root
        self.targets = targets
        self.expires: Mapping[str, datetime] = {
            "root": root.expires,
            "targets": targets.expires,
            RELEASES: releases.expires,
            **({"break-glass": emergencies.expires} if emergencies is not None else {}),
            **({"timestamp": timestamp.expires} if timestamp is not None else {}),
        }
        self._registry = registry
        self.emergencies: Mapping[str, TargetFile] = {} if emergencies is None else emergencies.targets
        # The approvers took in what former break-glass keys listed; theirs is the word that counts.
        listed = _checked_emergencies(emergencies) | _numbered(targets, kind="versions", signer="the approvers")
        self._versions = dict(sorted(listed.items()))
        self._releases = _numbered(releases, kind="releases", signer="the releaser")
        if self.release_numbers != tuple(range(1, len(self._releases) + 1)):
            raise TrustError(
                f"Releases refused: the signed list has {self.release_numbers}, with gaps. The releaser's key was "
                "used by something else than Liftgate; rotate it with `liftgate keys rotate`."
            )

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """Every version that may be named, ascending: the approved ones, then those of emergencies."""
        return tuple(self._versions)

    @property
    def next_version(self) -> int:
        """The number that the next approved version gets."""
        return max((number for number in self._versions if number < FIRST_EMERGENCY_VERSION), default=0) + 1

    @property
    def next_emergency_version(self) -> int:
        """The number that the next version past the gate gets."""
        return max((*self._versions, FIRST_EMERGENCY_VERSION - 1)) + 1

    @property
    def release_numbers(self) -> tuple[int, ...]:
        """Every release, ascending from 1."""
        return tuple(self._releases)

    def version_sha256(self, version: int) -> str:
        """Return the signed digest of a version record; NotFoundError when it is not approved."""
        return self._listed(self._versions, version, what="version").hashes["sha256"]

    def release_sha256(self, number: int) -> str:
        """Return the signed digest of a release record; NotFoundError when there is none."""
        return self._listed(self._releases, number, what="release").hashes["sha256"]

    def latest_release(self) -> ReleaseRecord | None:
        """Return the newest release, None before the first.

        Raises:
            TrustError: see `release`.
        """
        return self.release(self.release_numbers[-1]) if self._releases else None

    def version(self, version: int) -> VersionRecord:
        """Return the record of an approved version, or of one that was listed in an emergency.

        Raises:
            NotFoundError: nobody who may signed such a version.
            TrustError: the bytes are not the signed ones, or the record belongs elsewhere.
        """
        record = self._fetch(self._listed(self._versions, version, what="version"), kind=VersionRecord)
        self._check_place(f"version {version}", found=(record.model, record.version), number=version)
        return record

    def release(self, number: int) -> ReleaseRecord:
        """Return a release's record.

        Raises:
            NotFoundError: there is no such release.
            TrustError: the bytes are not the signed ones, the record belongs elsewhere, it names a
                version that the approvers did not sign (nor, for this very release, the holder of the
                break-glass key), or it does not follow from the one before.
        """
        record = self._release_record(number)
        unapproved = [str(version) for version in record.versions if version not in self._versions]
        if unapproved:
            raise TrustError(
                f"Release {number} refused: it names version {', '.join(unapproved)}, which the approvers did not "
                "sign. Whoever holds the releaser's key tried to go around them; rotate it with `liftgate keys rotate`."
            )
        before = self.release_sha256(number - 1) if number > 1 else None
        if record.previous_sha256 != before:
            raise TrustError(
                f"Release {number} refused: it does not follow from release {number - 1} (it names "
                f"{record.previous_sha256}, signed is {before}). Its history was rewritten; find out by whom."
            )
        if record.is_emergency:
            self._check_emergency(record)
        return record

    def _release_record(self, number: int) -> ReleaseRecord:
        record = self._fetch(self._listed(self._releases, number, what="release"), kind=ReleaseRecord)
        self._check_place(f"release {number}", found=(record.model, record.number), number=number)
        return record

    def _check_emergency(self, record: ReleaseRecord) -> None:
        """Refuse a version past the gate where its own release did not bring it, or where it was away in between."""
        emergency = self.version(record.stable).emergency
        start = None if emergency is None else emergency.release
        if emergency is None or start is None or start > record.number:
            raise self._not_its_release(record, start)
        first = record if start == record.number else self._release_record(start)
        signed = ("break-glass", record.stable, emergency.by, emergency.reason)
        if (first.kind, first.stable, first.by, first.reason) != signed:
            raise self._not_its_release(record, start)
        if start < record.number and record.kind == "break-glass":
            raise self._not_its_release(record, start)
        if any(self._release_record(number).stable != record.stable for number in range(start + 1, record.number)):
            raise self._not_its_release(record, start)

    def _not_its_release(self, record: ReleaseRecord, start: int | None) -> TrustError:
        return TrustError(
            f"Release {record.number} refused: version {record.stable} went past the gate for release {start} only, as "
            "the holder of the break-glass key signed, and may stay from there on, but not come back. Whoever holds "
            "the releaser's key tried to go around the approvers; rotate it with `liftgate keys rotate`."
        )

    def _listed(self, records: Mapping[int, TargetFile], number: int, *, what: str) -> TargetFile:
        try:
            return records[number]
        except KeyError:
            known = f"{min(records)} to {max(records)}" if records else "none yet"
            raise NotFoundError(f"{self.model} has no signed {what} {number} (there is {known}).") from None

    def _fetch(self, listed: TargetFile, *, kind: type[RecordT]) -> RecordT:
        sha256 = listed.hashes["sha256"]
        try:
            with self._registry.open_blob(sha256) as stream:
                data = stream.read(min(listed.length, MAX_RECORD_BYTES) + 1)
        except NotFoundError:
            raise TrustError(
                f"{listed.path} refused: its bytes (blob {sha256}) are not in the bucket. Somebody removed them; "
                "restore the object from a backup."
            ) from None
        if len(data) != listed.length or sha256_hex(data) != sha256:
            raise TrustError(
                f"{listed.path} refused: the bucket's bytes are not the signed ones (expected {listed.length} bytes "
                f"with SHA-256 {sha256}). The blob was tampered with or is damaged; restore it from a backup."
            )
        try:
            return kind.from_json(data)
        except RecordError as error:
            raise TrustError(f"{listed.path} refused although it is signed: {error}") from None

    def _check_place(self, what: str, *, found: tuple[str, int], number: int) -> None:
        if found != (self.model, number):
            raise TrustError(
                f"{self.model}'s {what} refused: the signed record is number {found[1]} of model {found[0]!r}. "
                "Records were swapped, or the key was used for another model; find out by whom."
            )


def _checked_emergencies(document: Targets | None) -> dict[int, TargetFile]:
    if document is None:
        return {}
    numbered = _numbered(document, kind="versions", signer="the holder of the break-glass key")
    if any(number < FIRST_EMERGENCY_VERSION for number in numbered):
        raise TrustError(
            f"Metadata refused: the break-glass key signed version {min(numbered)}, but may sign those from "
            f"{FIRST_EMERGENCY_VERSION} on only. It was used by something else than Liftgate; remove it with "
            "`liftgate keys rotate --no-break-glass`."
        )
    return numbered


def _numbered(document: Targets, *, kind: str, signer: str) -> dict[int, TargetFile]:
    numbered: dict[int, TargetFile] = {}
    for path, listed in document.targets.items():
        match = _PATH.match(path)
        if match is None or match["kind"] != kind or "sha256" not in listed.hashes:
            raise TrustError(
                f"Metadata refused: {signer} signed {path!r}, but may sign {kind}/NNNNNN.json with a SHA-256 only. "
                "The key was used by something else than Liftgate; rotate it with `liftgate keys rotate`."
            )
        numbered[int(match["number"])] = listed
    return dict(sorted(numbered.items()))
