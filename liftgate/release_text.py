"""A release in words, the same in every verb that shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liftgate.plain_text import one_line

if TYPE_CHECKING:
    from artifact_sync.records import ReleaseRecord, VersionRecord


def served_text(release: ReleaseRecord) -> str:
    """Return what a release wants served: "stable is version 1, canary version 2 for 5 %"."""
    parts = [f"stable is version {release.stable}"]
    for name, share in (("canary", release.canary), ("shadow", release.shadow)):
        if share is not None:
            parts.append(f"{name} version {share.version} for {share.percent:g} %")
    return ", ".join(parts)


def kind_text(release: ReleaseRecord) -> str:
    """Return what kind of release it is; an emergency cannot be overlooked."""
    return release.kind.upper() if release.kind == "break-glass" else release.kind


def emergency_text(version: VersionRecord) -> str:
    """Return the warning about a version that went past the gate; nothing for an approved one."""
    emergency = version.emergency
    if emergency is None:
        return ""
    said = "IT WAS NEVER JUDGED" if emergency.verdict == "none" else f"ITS VERDICT WAS {emergency.verdict.upper()}"
    return (
        f"BREAK-GLASS: VERSION {version.version} (run {version.lineage.run_id}) WENT PAST THE GATE AND THE APPROVERS "
        f"with release {emergency.release}, by {one_line(emergency.by)}; {said}. Because: {one_line(emergency.reason)}"
    )


def emergency_document(version: VersionRecord) -> dict[str, object] | None:
    """Return the same for programs; None for an approved version."""
    if version.emergency is None:
        return None
    return {
        "version": version.version,
        "run_id": version.lineage.run_id,
        **version.emergency.model_dump(mode="json"),
    }
