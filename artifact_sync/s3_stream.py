"""Reading one S3 object so that a dropped connection costs a ranged GET and not the download.

Its place in the flow: S3Store.open returns it; pull reads gigabytes through it. It is bound to the
ETag that it began with, so that two objects are never spliced together.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ResponseStreamingError
from urllib3.exceptions import HTTPError

from artifact_sync.errors import StoreError
from artifact_sync.s3_client import BucketClient

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_MAX_DROPS_WITHOUT_PROGRESS = 5
_DROPPED = (BotoCoreError, ResponseStreamingError, HTTPError, OSError)


class ResumingStream(io.RawIOBase):
    """The bytes of an object from start to end.

    Args:
        client: the bucket.
        key: the full key in the bucket.
        first: the answer to the GET that opened it.
    """

    def __init__(self, client: BucketClient, *, key: str, first: GetObjectOutputTypeDef) -> None:
        self._client = client
        self._key = key
        self._etag = first["ETag"]
        self._size_bytes = first["ContentLength"]
        self._body: Any = first["Body"]
        self._position = 0
        self._drops = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` with the next bytes; 0 means the end of the object.

        Raises:
            StoreError: the connection keeps dropping, or the object was replaced meanwhile.
        """
        view = memoryview(buffer).cast("B")
        while self._position < self._size_bytes:
            try:
                data = self._body.read(min(len(view), self._size_bytes - self._position))
            except _DROPPED as error:
                self._resume(str(error))
                continue
            if not data:
                self._resume("the connection ended early")
                continue
            view[: len(data)] = data
            self._position += len(data)
            self._drops = 0
            return len(data)
        return 0

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._body.close()
        super().close()

    def _resume(self, reason: str) -> None:
        self._drops += 1
        where = f"{self._key} at byte {self._position} of {self._size_bytes}"
        if self._drops > _MAX_DROPS_WITHOUT_PROGRESS:
            raise StoreError(f"Reading {where} failed {self._drops} times: {reason}. Check the network and try again.")
        self._body.close()
        answer = self._client.call(
            lambda client: client.get_object(
                Bucket=self._client.bucket, Key=self._key, Range=f"bytes={self._position}-"
            ),
            act=f"go on reading {where}",
        )
        # Compared here and not by If-Match: one server takes that header without quotes only.
        if answer["ETag"] != self._etag or answer["ContentLength"] != self._size_bytes - self._position:
            answer["Body"].close()
            raise StoreError(f"Reading {where} was given up: the object was replaced meanwhile. Try again.")
        self._body = answer["Body"]
