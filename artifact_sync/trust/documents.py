"""Signing and checking one metadata document, with the library's errors translated.

Its place in the flow: between roles.py, which knows what a document says, and everything that
writes or believes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from securesystemslib.signer import Signature
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp
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


def parse(data: bytes, *, name: str, kind: type[SignedT]) -> Metadata[SignedT]:
    """Return the metadata file `name` with its signatures, which are not checked.

    Raises:
        TrustError: malformed, or of another kind.
    """
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise TrustError(f"Metadata refused: {name} is malformed ({error}). It was not written by Liftgate.") from None
    if not isinstance(metadata.signed, kind):
        raise TrustError(f"Metadata refused: {name} is {metadata.signed.type}, not {kind.__name__.lower()} metadata.")
    return metadata


def verify(delegator: Root | Targets, data: bytes, *, role: str, name: str, kind: type[SignedT]) -> SignedT:
    """Return the document of the file `name` after its signatures met the threshold of `role`.

    Raises:
        TrustError: malformed, of another kind, or not signed as `delegator` demands.
    """
    metadata = parse(data, name=name, kind=kind)
    signed, threshold = count_signatures(delegator, payload_of(metadata.signed), metadata.signatures, role=role)
    if signed < threshold:
        raise TrustError(
            f"Metadata refused: {name} has {signed} of the {threshold} signatures that {role} needs. It was not "
            "written by the holders of those keys; find out who can write to the bucket, and remove that object."
        )
    return metadata.signed


def is_signed(delegator: Root | Targets, data: bytes, *, role: str, kind: type[SignedT]) -> bool:
    """Return whether the file met the threshold of `role`."""
    try:
        verify(delegator, data, role=role, name=role, kind=kind)
    except TrustError:
        return False
    return True


def count_signatures(
    delegator: Root | Targets, payload: bytes, signatures: dict[str, Signature], *, role: str
) -> tuple[int, int]:
    """Return how many keys of `role` signed `payload`, and how many must."""
    try:
        result = delegator.get_verification_result(role, payload, signatures)
    except ValueError as error:
        raise TrustError(f"Metadata refused: {error}.") from None
    return len(result.signed), result.threshold


def check_listed(listed: MetaFile, data: bytes, *, name: str) -> None:
    """Check a file against the length and digest that the signed list above it has.

    Raises:
        TrustError: it is another file.
    """
    try:
        listed.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise TrustError(
            f"Metadata refused: {name} is not the file that the signed list names ({error}). This looks like files "
            "of different moments mixed together; find out who can write to the bucket."
        ) from None
