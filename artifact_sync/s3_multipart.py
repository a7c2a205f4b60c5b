"""One large file into S3 in parts, in parallel, visible only when all of it is there and right.

Its place in the flow: S3Store.create uses it above its threshold. The file is read once; the digest
is taken of the very bytes that are sent, and the upload is aborted when it is not the expected one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from artifact_sync.errors import InputError, IntegrityError, LiftgateError
from artifact_sync.s3_client import BucketClient
from artifact_sync.s3_errors import is_transient_failure, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

WRITER_MARK = "liftgate-writer"
_MAX_PARTS = 10_000


class MultipartUpload:
    """One create-only upload of a file.

    Args:
        client: the bucket.
        key: the full key.
        part_size_bytes: the size of each part but the last; raised where the file would need too many.
        workers: parts in flight at once; so much memory is used: (workers + 2) × part size.

    Attributes:
        mark: what the object's metadata will say if it is ours.
    """

    def __init__(self, client: BucketClient, *, key: str, part_size_bytes: int, workers: int) -> None:
        self.mark = secrets.token_hex(16)
        self._client = client
        self._key = key
        self._part_size_bytes = part_size_bytes
        self._workers = workers

    def run(self, path: Path, *, sha256: str | None) -> None:
        """Upload `path`.

        Raises:
            IntegrityError: the bytes that were read are not those of `sha256`; nothing is visible.
            RivalError: a rival created the key, or is about to; or the upload is gone.
        """
        upload_id = self._begin()
        try:
            parts, found = self._send_parts(path, upload_id=upload_id)
            if sha256 is not None and found != sha256:
                raise IntegrityError(
                    f"{self._key} was not stored: the SHA-256 of {path} is {found}, expected {sha256}. "
                    "The file changed since its manifest was made; make it anew."
                )
            self._complete(parts, upload_id=upload_id)
        except BaseException:
            # Parts of an upload that is not finished cost money until somebody removes them.
            self._abort(upload_id)
            raise

    def _begin(self) -> str:
        answer = self._client.call(
            lambda client: client.create_multipart_upload(
                Bucket=self._client.bucket,
                Key=self._key,
                ChecksumAlgorithm="SHA256",
                Metadata={WRITER_MARK: self.mark},
            ),
            act=f"begin the upload of {self._key}",
        )
        return answer["UploadId"]

    def _send_parts(self, path: Path, *, upload_id: str) -> tuple[list[CompletedPartTypeDef], str]:
        """Return the parts in order and the SHA-256 of all bytes."""
        digest = hashlib.sha256()
        waiting: list[Future[CompletedPartTypeDef]] = []
        done: list[CompletedPartTypeDef] = []
        with ThreadPoolExecutor(self._workers, thread_name_prefix="s3-part") as pool:
            try:
                for number, data in enumerate(_pieces(path, least_bytes=self._part_size_bytes), start=1):
                    digest.update(data)
                    waiting.append(pool.submit(self._send, data, number, upload_id))
                    if len(waiting) > self._workers:
                        done.append(waiting.pop(0).result())
                done.extend(future.result() for future in waiting)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return done, digest.hexdigest()

    def _send(self, data: bytes, number: int, upload_id: str) -> CompletedPartTypeDef:
        answer = self._client.call(
            lambda client: client.upload_part(
                Bucket=self._client.bucket,
                Key=self._key,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,
                ChecksumAlgorithm="SHA256",
            ),
            act=f"send part {number} of {self._key}",
        )
        part: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumSHA256" in answer:
            part["ChecksumSHA256"] = answer["ChecksumSHA256"]
        return part

    def _complete(self, parts: list[CompletedPartTypeDef], *, upload_id: str) -> None:
        def complete(client: S3Client) -> None:
            client.complete_multipart_upload(
                Bucket=self._client.bucket,
                Key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )

        # Not repeated at 409: S3 asks to begin the whole upload anew.
        self._client.call_conditionally(
            complete, act=f"finish the upload of {self._key}", may_pass=_may_pass_at_the_end
        )

    def _abort(self, upload_id: str) -> None:
        def abort(client: S3Client) -> None:
            client.abort_multipart_upload(Bucket=self._client.bucket, Key=self._key, UploadId=upload_id)

        try:
            self._client.call(abort, act=f"abort the upload of {self._key}")
        except LiftgateError:
            # The error that led here is the one to tell; the bucket's life-cycle rule removes the parts.
            return


def _may_pass_at_the_end(error: Exception) -> bool:
    return is_transient_failure(error) and status_of(error) != 409


def _pieces(path: Path, *, least_bytes: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            size_bytes = max(least_bytes, -(-path.stat().st_size // _MAX_PARTS))
            while data := stream.read(size_bytes):
                yield data
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from None
