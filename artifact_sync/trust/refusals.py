"""What the client's errors mean to a person: which attack it looks like, what was found, what to do.

Its place in the flow: reader.py translates with it, once, so that nobody above sees the library.
"""

from __future__ import annotations

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.serialization import DeserializationError

from artifact_sync.errors import ExpiredError, TrustError

_WRITER = "Find out who can write to the bucket."
_SENTENCES = {
    BadVersionNumberError: "is older than what this machine has seen, or not the number that it must have ({found}). "
    "This looks like a rollback: somebody put an old state back.",
    LengthOrHashMismatchError: "is not the file that the signed list names ({found}). This looks like files of "
    "different moments mixed together, or a changed file.",
    DownloadLengthMismatchError: "is longer than it may be ({found}). This looks like an attempt to fill this machine "
    "with endless data.",
    DownloadHTTPError: "is not in the bucket. Either trust was never set up for this model (`liftgate keys init`), the "
    "model's name is wrong, or somebody removed it.",
    DeserializationError: "is malformed ({found}).",
}


def refusal(error: RepositoryError | DownloadError, *, file_name: str) -> TrustError:
    """Return the error to raise for what went wrong while `file_name` was read."""
    found = str(error).rstrip(".")
    if isinstance(error, ExpiredMetadataError):
        return ExpiredError(_expired(found))
    if isinstance(error, UnsignedMetadataError):
        return TrustError(_unsigned(file_name, found))
    for kind, sentence in _SENTENCES.items():
        if isinstance(error, kind):
            return TrustError(f"Metadata refused: {file_name} {sentence.format(found=found)} {_WRITER}")
    return TrustError(f"Metadata refused: {file_name}: {found}. {_WRITER}")


def _unsigned(file_name: str, found: str) -> str:
    who = {
        "root": "the root keys, old and new",
        "targets": "enough of the approvers",
        "releases": "the releaser",
        "snapshot": "the releaser",
        "timestamp": "the releaser",
        "break-glass": "the holder of the break-glass key",
    }
    role = file_name.removesuffix(".json").rpartition(".")[2]
    if role.startswith("break-glass-"):
        role = "break-glass"
    return (
        f"Metadata refused: {file_name} is not signed by {who.get(role, 'the right keys')} ({found}). This looks like "
        f"a forgery: a wrong key, or a missing signature. {_WRITER}"
    )


def _expired(found: str) -> str:
    renewal = "run `liftgate keys refresh` on the promoting machine"
    if "root" in found or "targets" in found:
        renewal = "its holders must sign it again with `liftgate keys rotate`"
    elif "break-glass" in found:
        renewal = "name another break-glass key or none with `liftgate keys rotate`"
    return (
        f"Metadata refused: the bucket's state is too old to be believed ({found}). Either nobody renewed it, or "
        f"somebody holds newer releases back (a freeze). What is served stays; {renewal}. If it was renewed, "
        "find out who can write to the bucket, and check this machine's clock."
    )
