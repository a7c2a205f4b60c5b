"""Parts of a bucket's objects, read by many threads at once.

Its place in the flow: a training streams its dataset through this, block by block. Each read is one
ranged GET with its body, repeated as a whole while the store may come back; a connection that goes silent
or only trickles is given up for another.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from botocore.exceptions import ReadTimeoutError
from pydantic import ValidationError

from artifact_sync.clock import SystemClock
from artifact_sync.errors import SettingsError, StoreError
from artifact_sync.s3_client import BucketClient
from artifact_sync.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_READ_TIMEOUT_SECONDS = 15.0
_PATIENCE_SECONDS = 15.0
_LEAST_BYTES_PER_SECOND = 200_000
_PART_BYTES = 256 * 1024


class S3Ranges:
    """The objects under one prefix of a bucket; safe to use from several threads.

    Args:
        bucket: the bucket's name.
        prefix: put before each name, without a slash at its end.
        endpoint_url: a server other than AWS.
        region: by default the AWS chain's.
        retry_seconds: how long a failing read is repeated before it becomes a StoreError.
        connections: reads that may go on at once.

    Attributes:
        is_near: no: what comes over a network is looked at each time.
    """

    is_near = False

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        retry_seconds: float = 300.0,
        connections: int = 16,
    ) -> None:
        self.connections = connections
        self._clock = _ClosableClock()
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = BucketClient(
            bucket,
            endpoint_url=endpoint_url,
            region=region,
            retry_seconds=retry_seconds,
            read_timeout_seconds=_READ_TIMEOUT_SECONDS,
            clock=self._clock,
        )

    def read_whole(self, name: str) -> bytes:
        """Return an object's bytes.

        Raises:
            NotFoundError: there is no such object.
            StoreError: it could not be read, however often it was tried.
        """
        return self._get(name, byte_range=None)

    def read(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        """Return so many bytes of an object, or fewer where it ends before.

        Raises:
            NotFoundError: there is no such object.
            StoreError: they could not be read, however often it was tried.
        """
        return self._get(name, byte_range=f"bytes={offset}-{offset + size_bytes - 1}")

    def close(self) -> None:
        """End the waiting of reads that are being repeated; they fail."""
        self._clock.is_closed.set()

    def _get(self, name: str, *, byte_range: str | None) -> bytes:
        key = self._prefix + name

        def get(client: S3Client) -> bytes:
            if byte_range is None:
                answer = client.get_object(Bucket=self._client.bucket, Key=key)
            else:
                answer = client.get_object(Bucket=self._client.bucket, Key=key, Range=byte_range)
            return self._body(answer)

        return self._client.call(get, act=f"read {byte_range or 'all'} of {key}")

    def _body(self, answer: GetObjectOutputTypeDef) -> bytes:
        """Return the body; one that only trickles is given up, since another connection may be quick."""
        ends_at = self._clock.monotonic() + _PATIENCE_SECONDS + answer["ContentLength"] / _LEAST_BYTES_PER_SECOND
        parts = []
        while part := answer["Body"].read(_PART_BYTES):
            parts.append(part)
            if self._clock.monotonic() > ends_at:
                answer["Body"].close()
                raise ReadTimeoutError(endpoint_url=self._client.endpoint_url or "AWS")
        return b"".join(parts)


def open_ranges(url: str, *, retry_seconds: float = 300.0) -> S3Ranges:
    """Return the objects under s3://bucket/prefix; nothing is contacted yet.

    Raises:
        SettingsError: the address is malformed.
    """
    settings = bucket_settings(url)
    bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
    return S3Ranges(bucket, prefix.rstrip("/"), endpoint_url=settings.endpoint_url, retry_seconds=retry_seconds)


def bucket_settings(url: str, *, endpoint_url: str | None = None, region: str | None = None) -> StoreSettings:
    """Return the settings of a bucket that is named by its address alone.

    A server other than AWS is named by AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, as for other tools.

    Raises:
        SettingsError: the address is malformed.
    """
    found = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    try:
        return StoreSettings(url=url, endpoint_url=found, region=region)
    except ValidationError as error:
        reasons = "; ".join(str(detail["msg"]).removeprefix("Value error, ") for detail in error.errors())
        raise SettingsError(f"The address {url} is refused: {reasons}") from None


class _ClosableClock(SystemClock):
    """A clock whose waiting ends when the reader is closed, so that a process need not wait for its threads."""

    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def sleep(self, seconds: float) -> None:
        if self.is_closed.wait(seconds):
            raise StoreError("Reading ended: the dataset was closed.")
