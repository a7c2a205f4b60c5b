"""An S3 bucket as an object store: AWS, Ceph RGW, SeaweedFS and others that know If-None-Match.

Its place in the flow: the wire between the two sites. `create` is a PUT with If-None-Match "*" and a
SHA-256 checksum that the server compares; large files go in parts, and the same condition stands on
the last step. Each create carries a random writer mark in the object's metadata: when a connection
dropped and nobody knows whether the first attempt arrived, the mark tells our own object from a
rival's, even one of equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from artifact_sync.errors import AlreadyExistsError, InputError, IntegrityError, NotFoundError, StoreError
from artifact_sync.s3_client import BucketClient, RivalError
from artifact_sync.s3_errors import is_transient_failure
from artifact_sync.s3_multipart import WRITER_MARK, MultipartUpload
from artifact_sync.s3_stream import ResumingStream
from artifact_sync.store import ObjectInfo, check_key, check_prefix

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ListObjectsV2RequestTypeDef

MULTIPART_THRESHOLD_BYTES = 16 * 1024 * 1024
_READ_BUFFER_BYTES = 256 * 1024
_UPLOAD_ATTEMPTS = 3


class S3Store:
    """An ObjectStore over a bucket, or over a prefix of one; safe to use from several threads.

    Args:
        bucket: the bucket's name.
        prefix: put before each key, without a slash at its end.
        endpoint_url: a server other than AWS.
        region: by default the AWS chain's.
        multipart_threshold_bytes: larger files go in parts of this size (S3 takes no parts under 5 MiB).
        workers: parts in flight at once.
        retry_seconds: how long a failing call is repeated before it becomes a StoreError.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        *,
        multipart_threshold_bytes: int = MULTIPART_THRESHOLD_BYTES,
        workers: int = 4,
        retry_seconds: float = 30.0,
    ) -> None:
        self._client = BucketClient(bucket, endpoint_url=endpoint_url, region=region, retry_seconds=retry_seconds)
        self._prefix = f"{prefix}/" if prefix else ""
        self._threshold_bytes = multipart_threshold_bytes
        self._workers = workers

    def __repr__(self) -> str:
        return f"S3Store('s3://{self._client.bucket}/{self._prefix}')"

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        """See ObjectStore.create."""
        full_key = self._key(key)
        if isinstance(body, Path) and _size(body) > self._threshold_bytes:
            return self._create_in_parts(full_key, body, sha256=sha256)
        data = body if isinstance(body, bytes) else _read(body)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise IntegrityError(
                f"{key} was not stored: the body's SHA-256 is {found}, expected {sha256}. "
                "The file changed since its manifest was made; make it anew."
            )
        return self._create_whole(full_key, data)

    def replace(self, key: str, body: bytes) -> None:
        """See ObjectStore.replace."""
        full_key = self._key(key)

        def put(client: S3Client) -> None:
            client.put_object(Bucket=self._client.bucket, Key=full_key, Body=body, ChecksumAlgorithm="SHA256")

        self._client.call(put, act=f"replace {full_key}")

    def open(self, key: str) -> BinaryIO:
        """See ObjectStore.open. The stream survives dropped connections."""
        full_key = self._key(key)
        first = self._client.call(
            lambda client: client.get_object(Bucket=self._client.bucket, Key=full_key), act=f"open {full_key}"
        )
        raw = ResumingStream(self._client, key=full_key, first=first)
        return cast(BinaryIO, io.BufferedReader(raw, _READ_BUFFER_BYTES))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list."""
        # Not every server lists in the order of code points ("a-b" before "a/b"), so we sort.
        return iter(sorted(self._scan(check_prefix(prefix)), key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See ObjectStore.delete."""
        full_key = self._key(key)

        def remove(client: S3Client) -> None:
            client.delete_object(Bucket=self._client.bucket, Key=full_key)

        self._client.call(remove, act=f"delete {full_key}")

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _scan(self, prefix: str) -> Iterator[ObjectInfo]:
        token = ""
        while True:
            page = self._page(prefix, token=token)
            if "IsTruncated" not in page:
                raise StoreError(f"Cannot list {self!r}: the answer is not a listing. Check endpoint_url.")
            for entry in page.get("Contents", []):
                yield ObjectInfo(key=entry["Key"].removeprefix(self._prefix), size_bytes=entry["Size"])
            token = page.get("NextContinuationToken", "")
            if not page["IsTruncated"]:
                return

    def _page(self, prefix: str, *, token: str) -> ListObjectsV2OutputTypeDef:
        request: ListObjectsV2RequestTypeDef = {"Bucket": self._client.bucket, "Prefix": self._prefix + prefix}
        if token:
            request["ContinuationToken"] = token
        return self._client.call(
            lambda client: client.list_objects_v2(**request), act=f"list {self._prefix}{prefix or '*'}"
        )

    def _create_whole(self, full_key: str, data: bytes) -> None:
        mark = secrets.token_hex(16)

        def put(client: S3Client) -> None:
            client.put_object(
                Bucket=self._client.bucket,
                Key=full_key,
                Body=data,
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
                Metadata={WRITER_MARK: mark},
            )

        try:
            self._client.call_conditionally(put, act=f"create {full_key}", may_pass=is_transient_failure)
        except RivalError as rival:
            if rival.was_repeated and self._mark_of(full_key) == mark:
                return
            raise self._lost(full_key, rival) from None

    def _create_in_parts(self, full_key: str, path: Path, *, sha256: str | None) -> None:
        for _ in range(_UPLOAD_ATTEMPTS):
            if self._mark_of(full_key) is not None:
                raise AlreadyExistsError(_taken(full_key))
            upload = MultipartUpload(
                self._client, key=full_key, part_size_bytes=self._threshold_bytes, workers=self._workers
            )
            try:
                return upload.run(path, sha256=sha256)
            except RivalError as rival:
                lost = rival
            if self._mark_of(full_key) == upload.mark:
                return None
            if lost.status == 412:
                break
        raise self._lost(full_key, lost)

    def _mark_of(self, full_key: str) -> str | None:
        """Return the writer mark of an object, "" if it has none, None if there is no object."""
        try:
            head = self._client.call(
                lambda client: client.head_object(Bucket=self._client.bucket, Key=full_key), act=f"look at {full_key}"
            )
        except NotFoundError:
            return None
        return head["Metadata"].get(WRITER_MARK, "")

    def _lost(self, full_key: str, rival: RivalError) -> AlreadyExistsError | StoreError:
        if rival.status == 412:
            return AlreadyExistsError(_taken(full_key))
        return StoreError(f"Cannot create {full_key}: rivals kept writing it ({rival.status}). Try again.")


def _taken(full_key: str) -> str:
    return f"Object {full_key} exists already and is never overwritten. Look at what it holds before deciding anew."


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from None
