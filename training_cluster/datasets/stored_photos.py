"""Labelled photos in a bucket: listed a prefix a class, fetched whole when they are read.

Its place in the flow: beside folders and CSV files a source of dataset build; the photos never lie on
this machine's disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from artifact_sync.errors import InputError, LiftgateError
from artifact_sync.settings import StoreSettings, open_store
from artifact_sync.store import ObjectStore, check_key, read_bytes
from serving.photo_limits import PhotoLimits

_SHOWN_FAULTS = 50
_MAX_BYTES = PhotoLimits().max_bytes


@dataclass(frozen=True)
class StoredPhoto:
    """One labelled photo in a bucket; see `LabelledPhoto` for what the other fields mean.

    Attributes:
        url: "s3://bucket/key".
    """

    url: str
    label: str
    source: str
    slices: Mapping[str, str] = field(default_factory=dict)
    annotator: str = ""
    origin: str = ""


class PhotoStores:
    """The buckets that photos are read from, by "s3://…"; safe to use from several threads.

    Args:
        endpoint_url: an S3 server other than AWS; by default the AWS chain's.
        region: by default the AWS chain's.
    """

    def __init__(self, *, endpoint_url: str | None = None, region: str | None = None) -> None:
        self._endpoint_url, self._region = endpoint_url, region
        self._stores: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    def read(self, url: str, *, max_bytes: int) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: there is none.
            InputError: it is larger than `max_bytes`, or its key is no plain name.
            StoreError: the bucket cannot be reached.
        """
        bucket, key = _split_url(url)
        return read_bytes(self._store(bucket), key, max_bytes=max_bytes)

    def photos(self, url: str) -> Iterator[StoredPhoto]:
        """Yield the photos of `s3://bucket/prefix/<label>/…`; hidden names are passed over.

        Raises:
            InputError: an object outside of any class prefix, a key that is no plain name, or no photo at all.
            StoreError: the bucket cannot be reached.
        """
        bucket, prefix = _split_url(url)
        faults: list[str] = []
        fault_count = count = 0
        for info in self._store(bucket).list(f"{prefix}/" if prefix else ""):
            name = info.key[len(prefix) + 1 :] if prefix else info.key
            # A console makes an empty object "cat/" for a folder.
            if name.endswith("/") or any(part.startswith(".") for part in PurePosixPath(name).parts):
                continue
            if fault := _key_fault(name):
                fault_count += 1
                faults += [f"{name!r}: {fault}"] if len(faults) < _SHOWN_FAULTS else []
                continue
            count += 1
            yield StoredPhoto(f"s3://{bucket}/{info.key}", label=name.partition("/")[0], source=f"{url}: {name}")
        if faults:
            more = [f"and {fault_count - len(faults)} more"] if fault_count > len(faults) else []
            raise InputError(
                f"Photos refused: {fault_count} objects of {url} are wrong:\n  "
                + "\n  ".join([*faults, *more])
                + "\nMove each photo under the prefix of its class, and rename those with other characters."
            )
        if not count:
            raise InputError(f"Photos refused: {url} holds none. It needs a prefix for each class, with photos in it.")

    def _store(self, bucket: str) -> ObjectStore:
        with self._lock:
            if bucket not in self._stores:
                try:
                    settings = StoreSettings(url=f"s3://{bucket}", endpoint_url=self._endpoint_url, region=self._region)
                except ValueError:
                    raise InputError(f"Photos refused: {bucket!r} is not a bucket's name.") from None
                self._stores[bucket] = open_store(settings)
            return self._stores[bucket]


def read_photo(place: str, stores: PhotoStores) -> bytes:
    """Return the bytes of a photo on a disk or in a bucket.

    Raises:
        InputError: it is too large to be a photo; the text goes behind the photo's name.
        NotFoundError: it is not in its bucket.
        OSError: it cannot be read from the disk.
        StoreError: its bucket cannot be reached.
    """
    if place.startswith("s3://"):
        return stores.read(place, max_bytes=_MAX_BYTES)
    with Path(place).open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InputError(f"{place} is larger than the {_MAX_BYTES} bytes that a photo may have")
    return data


def _split_url(url: str) -> tuple[str, str]:
    """Return bucket and key, or prefix, of "s3://bucket/key"."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.rstrip("/")


def _key_fault(name: str) -> str | None:
    if "/" not in name:
        return "it lies under no class prefix, so it has no label"
    try:
        check_key(name)
    except LiftgateError:
        return "its key is not made of plain names (letters, digits and ._=+-) joined by '/'"
    return None
