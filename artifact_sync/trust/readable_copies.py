"""versions/000042.json and releases/000057.json: copies for people and their tools.

Its place in the flow: the last step of publishing. Nothing reads them back: what counts are the
blobs that signed metadata names.
"""

from __future__ import annotations

from tuf.api.metadata import TargetFile

from artifact_sync.canonical import MAX_RECORD_BYTES, sha256_hex
from artifact_sync.errors import AlreadyExistsError, TrustError
from artifact_sync.records import FIRST_EMERGENCY_VERSION
from artifact_sync.registry import Registry
from artifact_sync.trust.state import SignedState

_FIRST_EMERGENCY = f"versions/{FIRST_EMERGENCY_VERSION:06d}.json"


def write_missing_copies(registry: Registry, state: SignedState) -> None:
    """Create the copy of the newest version and of the newest release, unless they are there.

    Raises:
        TrustError: a record's blob is not what was signed.
    """
    lists = [state.targets.targets, state.releases.targets]
    if state.emergencies is not None:
        lists.append(state.emergencies.document.targets)
    for listed in lists:
        # What the approvers took in from a former break-glass key has its copies since then.
        paths = [path for path in listed if listed is not state.targets.targets or path < _FIRST_EMERGENCY]
        if not paths:
            continue
        path = max(paths)
        key = f"{registry.model}/{path}"
        if any(info.key == key for info in registry.store.list(key)):
            continue
        data = _read(registry, listed[path])
        try:
            registry.store.create(key, data)
        except AlreadyExistsError:
            continue


def _read(registry: Registry, listed: TargetFile) -> bytes:
    with registry.open_blob(listed.hashes["sha256"]) as stream:
        data = stream.read(min(listed.length, MAX_RECORD_BYTES) + 1)
    if sha256_hex(data) != listed.hashes["sha256"]:
        raise TrustError(f"{listed.path} refused: the bucket's bytes are not the signed ones. Restore the blob.")
    return data
