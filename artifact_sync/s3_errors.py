"""What the S3 error codes mean: may it pass, whose fault is it, and what is to be done.

Its place in the flow: s3_client.py turns every error of boto3 into ours here, once.
"""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from artifact_sync.errors import CapacityError, LiftgateError, NotFoundError, StoreError

FOREIGN_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""Everything that boto3 raises when a call fails."""

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_TRANSIENT_CODES = _EXPIRED | {
    "BadDigest",
    "InternalError",
    "RequestLimitExceeded",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentChecksumMismatch",
}
_TRANSIENT_STATUSES = frozenset({409, 429, 500, 502, 503, 504})
_BAD_CREDENTIALS = _EXPIRED | {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "InsufficientCapacity"})
_WRONG_REGION = "the bucket is in another region ({code}). Set `region` in [store]."
_REASONS = {
    "AccessDenied": (
        "access denied ({code}). The credentials lack a permission on this bucket or prefix "
        "(a key that does not exist looks the same to those who may not list)."
    ),
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "IllegalLocationConstraintException": _WRONG_REGION,
    "NoSuchBucket": "{where} has no bucket of that name. Create it or correct the store's url.",
    "NotImplemented": "{where} does not know a header that is needed here (conditional writes or checksums).",
    "PermanentRedirect": _WRONG_REGION,
    "RequestTimeTooSkewed": ("this machine's clock differs too much from the store's. Set it (NTP) and try again."),
}
_CREDENTIALS_WAY_OUT = (
    "Credentials come from the standard AWS chain: environment variables, the profile in ~/.aws, or the role of this "
    "machine. `aws sts get-caller-identity` shows what it finds."
)


def translate(error: Exception, *, act: str, bucket: str, endpoint_url: str | None) -> LiftgateError:
    """Return our error for one of `FOREIGN_ERRORS`.

    Args:
        error: what boto3 raised.
        act: what was attempted: "open a/b".
        bucket: the bucket's name.
        endpoint_url: the server, or None for AWS.
    """
    code = code_of(error)
    cannot = f"Cannot {act} in bucket {bucket}"
    if code in {"NoSuchKey", "404", "NotFound"}:
        return NotFoundError(f"{cannot}: no such object.")
    if code in _FULL:
        return CapacityError(f"{cannot}: the store is full ({code}). Make room there or raise the quota.")
    return StoreError(f"{cannot}: {_reason(error, code, where=endpoint_url or 'AWS')}")


def _reason(error: Exception, code: str, *, where: str) -> str:  # noqa: PLR0911 - one line a reason
    if isinstance(error, NoCredentialsError | PartialCredentialsError) or code in _BAD_CREDENTIALS:
        found = code or "no credentials were found"
        return f"{where} was not convinced who we are ({found}). {_CREDENTIALS_WAY_OUT}"
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return f"{where} cannot be reached. Check the network and endpoint_url, then try again."
    if is_endless_redirect(error):
        return f"{where} redirects without end. Check endpoint_url (http or https?)."
    if isinstance(error, SSLError):
        return f"the certificate of {where} is not trusted ({error}). Set AWS_CA_BUNDLE if it is your own."
    if code in _REASONS or status_of(error) == 403:
        return _REASONS.get(code, _REASONS["AccessDenied"]).format(where=where, code=code)
    if isinstance(error, ResponseParserError) or code.isdigit():
        found = f" (HTTP {code})" if code else ""
        return f"{where} does not answer as an S3 server does{found}. Check endpoint_url and any proxy on the way."
    return f"{code or type(error).__name__}: {error}. It was repeated as long as that made sense; try again later."


def is_expired(error: Exception) -> bool:
    """Return whether the credentials were good once and are too old now."""
    return code_of(error) in _EXPIRED


def is_transient_failure(error: Exception) -> bool:
    """Return whether repeating the same call may succeed."""
    if isinstance(error, SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    if isinstance(error, HTTPClientError | IncompleteReadError):
        return not is_endless_redirect(error)
    return code_of(error) in _TRANSIENT_CODES or status_of(error) in _TRANSIENT_STATUSES


def is_endless_redirect(error: BaseException) -> bool:
    """Return whether boto3 followed redirects until Python's stack was full, wherever that surfaced."""
    if isinstance(error, HTTPClientError):
        error = error.kwargs.get("error", error)
    return isinstance(error, RecursionError)


def code_of(error: BaseException) -> str:
    """Return the S3 error code, such as "SlowDown", or an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of the answer, or 0 when there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
