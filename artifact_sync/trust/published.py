"""Whether the newest state is what hosts see: the timestamp as a writer looks at it.

Its place in the flow: publisher.py asks it before it writes a timestamp, and again after.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tuf.api.metadata import Timestamp

from artifact_sync.errors import TrustError
from artifact_sync.registry import Registry
from artifact_sync.trust.checking import check_listed, verify
from artifact_sync.trust.state import SignedState, read_if_there


def is_published(registry: Registry, state: SignedState) -> bool:
    """Return whether timestamp.json is signed and names the state's snapshot or a newer one that is there.

    Raises:
        TrustError: it names a newer snapshot, which somebody has removed, or another one of that number.
    """
    timestamp = _timestamp(registry, state)
    if timestamp is None or timestamp.version < state.snapshot.version:
        return False
    if timestamp.version > state.snapshot.version:
        if read_if_there(registry, f"{timestamp.version}.snapshot.json") is not None:
            # Another releaser went on while this one was looking.
            return True
        raise TrustError(
            f"Metadata refused: timestamp.json is number {timestamp.version}, but the newest signed snapshot in "
            f"the bucket is {state.snapshot.version}. Somebody removed the newer one; restore it from a backup."
        )
    check_listed(timestamp.snapshot_meta, state.snapshot_file, name=f"{state.snapshot.version}.snapshot.json")
    return True


def published_until(registry: Registry, state: SignedState) -> datetime:
    """Return when hosts stop believing what they see; the beginning of time when they see nothing."""
    timestamp = _timestamp(registry, state)
    return datetime.min.replace(tzinfo=UTC) if timestamp is None else timestamp.expires


def _timestamp(registry: Registry, state: SignedState) -> Timestamp | None:
    data = read_if_there(registry, "timestamp.json")
    try:
        return verify(state.root, data or b"", role="timestamp", name="timestamp.json", kind=Timestamp)
    except TrustError:
        # Removed or overwritten by somebody without the key: writing it again is the repair.
        return None
