"""Who won, for those who lost.

Its place in the flow: promotion and rollback ask it after a create-only step failed.
"""

from __future__ import annotations

from datetime import datetime

from artifact_sync.records import ReleaseRecord
from artifact_sync.trust import TrustedView
from artifact_sync.trust.publisher import Publisher


def lost_to(publisher: Publisher, *, before: TrustedView, now: datetime) -> str:
    """Finish the winner's publishing and say who it was.

    Args:
        publisher: the loser's; any releaser may finish anybody's publishing.
        before: what the loser had looked at.
        now: the time of completing.
    """
    publisher.complete(now=now)
    after = publisher.view()
    number = max(before.release_numbers, default=0) + 1
    if number in after.release_numbers:
        return described(after.release(number), after)
    new = [version for version in after.version_numbers if version not in before.version_numbers]
    if new:
        run_id = after.version(new[0]).lineage.run_id
        return f"version {new[0]} (run {run_id}) came first, and its release {number} is being published"
    return "the keys were changed in between"


def described(release: ReleaseRecord, view: TrustedView) -> str:
    """Return one sentence about a release: who, what, which run."""
    if release.kind == "rollback":
        return f"{release.by} rolled back to version {release.stable} with release {release.number}"
    run_id = view.version(release.about).lineage.run_id
    if release.kind == "break-glass":
        return f"{release.by} BROKE THE GLASS for run {run_id} (version {release.stable}) with release {release.number}"
    return f"{release.by} promoted version {release.about} (run {run_id}) with release {release.number}"
