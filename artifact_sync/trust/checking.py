"""Checking one metadata document, with the library's errors translated.

Its place in the flow: under everything that believes a file for the sake of its signatures.
"""

from __future__ import annotations

from typing import Any

from securesystemslib.signer import Signature
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Targets

from artifact_sync.errors import TrustError
from artifact_sync.trust.signing import SignedT, payload_of


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
