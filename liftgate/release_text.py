"""A release in words, the same in every verb that shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from artifact_sync.records import ReleaseRecord


def served_text(release: ReleaseRecord) -> str:
    """Return what a release wants served: "stable is version 1, canary version 2 for 5 %"."""
    parts = [f"stable is version {release.stable}"]
    for name, share in (("canary", release.canary), ("shadow", release.shadow)):
        if share is not None:
            parts.append(f"{name} version {share.version} for {share.percent:g} %")
    return ", ".join(parts)
