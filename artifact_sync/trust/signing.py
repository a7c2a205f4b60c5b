"""Signing a metadata document, and its canonical bytes.

Its place in the flow: between roles.py and lists.py, which know what a document says, and everything
that writes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import CanonicalJSONSerializer

from artifact_sync.errors import TrustError
from artifact_sync.trust.keys import Signer

SignedT = TypeVar("SignedT", Root, Targets, Snapshot, Timestamp)


def payload_of(document: Signed) -> bytes:
    """Return the canonical bytes that signatures are over."""
    payload: bytes = CanonicalJSONSerializer().serialize(document)
    return payload


def from_payload(payload: bytes, *, kind: type[SignedT]) -> SignedT:
    """Return the document that `payload` is the canonical form of.

    Raises:
        TrustError: it is not such a document.
    """
    try:
        document = kind.from_dict(json.loads(payload))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrustError(f"Not {kind.__name__} metadata: {error}.") from None
    if not isinstance(document, kind) or payload_of(document) != payload:
        raise TrustError(f"Not {kind.__name__} metadata in its canonical form.")
    return document


def sign(document: Signed, signers: Iterable[Signer]) -> bytes:
    """Return the metadata file: the document with a signature of each signer."""
    payload = payload_of(document)
    return with_signatures(document, {signer.public.key_id: signer.sign(payload) for signer in signers})


def with_signatures(document: Signed, signatures: Mapping[str, str]) -> bytes:
    """Return the metadata file: the document with the signatures (hex) by key id, in order of key id."""
    attached = {key_id: Signature(key_id, signatures[key_id]) for key_id in sorted(signatures)}
    metadata: Metadata[Any] = Metadata(document, attached)
    data: bytes = metadata.to_bytes()
    return data
