"""The next list of versions before it is signed: what each approver puts the name under.

Its place in the flow: approval.py signs its bytes, promotion publishes them with the signatures.
The bytes follow from the view, the record and the expiry alone, so that everybody makes them anew
instead of believing a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature
from tuf.api.metadata import Targets

from artifact_sync.errors import RefusedError
from artifact_sync.records import VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.trust.keys import PublicKey
from artifact_sync.trust.lists import target_file
from artifact_sync.trust.roles import to_tuf_key
from artifact_sync.trust.signing import from_payload, payload_of
from artifact_sync.trust.state import read_if_there
from artifact_sync.trust.view import TrustedView


@dataclass(frozen=True)
class ProposedTargets:
    """The number of the next targets metadata, and the canonical bytes that signatures are over."""

    number: int
    payload: bytes

    def document(self) -> Targets:
        """Return the document that the bytes are."""
        return from_payload(self.payload, kind=Targets)


def propose_version(view: TrustedView, record: VersionRecord, *, expires: datetime) -> ProposedTargets:
    """Return the targets metadata that follows the view's, with `record` added."""
    path = f"versions/{record.version:06d}.json"
    if path in view.targets.targets:
        raise RefusedError(f"Version {record.version} of {view.model} is approved already; a number is never reused.")
    versions = {**view.targets.targets, path: target_file(path, record.to_json())}
    number = view.targets.version + 1
    return ProposedTargets(number, payload_of(view.roles.targets_document(versions, number=number, expires=expires)))


def is_signed_by(key: PublicKey, payload: bytes, signature: str) -> bool:
    """Return whether `signature` (hex) is the key's over `payload`."""
    try:
        to_tuf_key(key).verify_signature(Signature(key.key_id, signature), payload)
    except (UnverifiedSignatureError, ValueError):
        return False
    return True


def is_taken(registry: Registry, number: int) -> bool:
    """Return whether somebody has created that number of the targets metadata, published or not."""
    return read_if_there(registry, f"{number}.targets.json") is not None
