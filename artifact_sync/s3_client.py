"""Calls to one S3 bucket: credentials, retries, and every foreign error translated once.

Its place in the flow: s3_store.py says what to call; this module knows boto3's ways. boto3 itself
gives up on 503 SlowDown after 1.4 s and never retries 409 ConditionalRequestConflict, expired
credentials or a skewed clock, so its own retries are off and these take their place.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from artifact_sync.clock import Clock, SystemClock
from artifact_sync.s3_errors import FOREIGN_ERRORS, code_of, is_expired, is_transient_failure, status_of, translate

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_LONGEST_WAIT_SECONDS = 5.0


class RivalError(Exception):
    """A condition did not hold, so a rival may have been first; s3_store.py turns it into ours.

    Attributes:
        status: 412 when the key exists, 409 when a rival is writing it, 404 when an upload is gone.
        was_repeated: whether an earlier attempt of ours failed without saying if it arrived.
    """

    def __init__(self, *, status: int, was_repeated: bool) -> None:
        super().__init__(status)
        self.status = status
        self.was_repeated = was_repeated


class BucketClient:
    """A lazy, thread-safe client of one bucket.

    Args:
        bucket: its name.
        endpoint_url: a server other than AWS; it is addressed path-style.
        region: by default the AWS chain's, else us-east-1.
        retry_seconds: how long a failing call is repeated before it becomes a StoreError.
        read_timeout_seconds: how long a connection may be silent before its call counts as failed.
        clock: what is waited by.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint_url: str | None,
        region: str | None,
        retry_seconds: float,
        read_timeout_seconds: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self.bucket = bucket
        self.endpoint_url = endpoint_url
        self.region = region
        self.retry_seconds = retry_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def call(self, operation: Callable[[S3Client], T], *, act: str) -> T:
        """Return what `operation` returns, repeating it with backoff and jitter while failures may pass.

        Args:
            operation: called with the boto3 client.
            act: what is attempted, for messages: "open a/b".

        Raises:
            NotFoundError: no such key.
            CapacityError: the store is full.
            StoreError: everything else.
        """
        with self._translated(act):
            return self._repeat(operation, act=act, may_pass=is_transient_failure)

    def call_conditionally(
        self, operation: Callable[[S3Client], T], *, act: str, may_pass: Callable[[Exception], bool]
    ) -> T:
        """Like `call`, for an operation that a rival may win.

        Raises:
            RivalError: the condition did not hold.
        """
        failures: list[Exception] = []
        with self._translated(act):
            try:
                return self._repeat(operation, act=act, may_pass=may_pass, on_retry=failures.append)
            except ClientError as error:
                if status_of(error) in {409, 412} or code_of(error) == "NoSuchUpload":
                    raise RivalError(status=status_of(error), was_repeated=bool(failures)) from None
                raise

    def _repeat(
        self,
        operation: Callable[[S3Client], T],
        *,
        act: str,
        may_pass: Callable[[Exception], bool],
        on_retry: Callable[[Exception], None] | None = None,
    ) -> T:
        self._get_client()
        deadline = self._clock.monotonic() + self.retry_seconds
        for attempt in itertools.count():
            client = self._get_client()
            try:
                return operation(client)
            except FOREIGN_ERRORS as error:
                if is_expired(error):
                    self._forget(client)
                # Jitter keeps clients that were refused together from coming back together.
                wait_seconds = min(_LONGEST_WAIT_SECONDS, 0.1 * 2**attempt) * random.uniform(0.5, 1.5)  # noqa: S311
                if not may_pass(error) or self._clock.monotonic() + wait_seconds > deadline:
                    raise
                if on_retry is not None:
                    on_retry(error)
                _LOGGER.info("%s failed (%s), trying again in %.1f s", act, error, wait_seconds)
            self._clock.sleep(wait_seconds)
        raise AssertionError("unreachable: the loop ends by return or raise")

    def _get_client(self) -> S3Client:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _forget(self, client: S3Client) -> None:
        """Drop a client whose credentials expired; the next call asks the whole AWS chain again."""
        with self._lock:
            if self._client is client:
                self._client = None

    def _make_client(self) -> S3Client:
        session = boto3.session.Session()
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=10,
            read_timeout=self._read_timeout_seconds,
            max_pool_connections=32,
            request_checksum_calculation="when_required",
            # Readers check against signed digests; a second checksum would only cost time.
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if self.endpoint_url else "auto"},
        )
        region = self.region or session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=self.endpoint_url, region_name=region, config=config)

    @contextmanager
    def _translated(self, act: str) -> Iterator[None]:
        try:
            yield
        # boto3 follows a server that redirects for ever, such as one that sends http to https.
        except (*FOREIGN_ERRORS, RecursionError) as error:
            raise translate(error, act=act, bucket=self.bucket, endpoint_url=self.endpoint_url) from None
