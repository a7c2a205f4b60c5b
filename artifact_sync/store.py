"""The object store: five methods that the bucket, or a directory that stands for it, must have.

Its place in the flow: registry.py alone decides on keys; everything else sees records and blobs.
`create` is the one primitive that promotion rests on: of any number of concurrent creators of one
key, exactly one succeeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from artifact_sync.errors import InputError

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+-]{0,254}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A key that exists, and its size."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """What a store must do. Keys are `/`-separated plain names; bodies are bytes or a local file.

    A key is never the folder of another ("a" beside "a/b"): a directory cannot hold both.

    Every method raises StoreError when the store cannot be reached or refuses the credentials.
    """

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        """Create `key`, whole and durable when this returns.

        With `sha256` the digest is taken of the very bytes that are stored, so that a file that
        changes while it is read never becomes visible.

        Raises:
            AlreadyExistsError: the key exists; the store is unchanged.
            IntegrityError: the body's digest is not `sha256`; the store is unchanged.
            InputError: the local file cannot be read.
        """
        ...

    def replace(self, key: str, body: bytes) -> None:
        """Create or overwrite `key` atomically: a reader sees the old or the new, never a mixture."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading; the caller closes it.

        Raises:
            NotFoundError: no such key.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key begins with `prefix`, sorted by key (code points)."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; removing a key that does not exist is not an error."""
        ...


def check_key(key: str) -> str:
    """Return `key` if it is plain: segments of letters, digits and `._=+-`, none hidden or empty.

    Raises:
        InputError: it is not.
    """
    if len(key) > 900 or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise InputError(f"Store key refused: {key!r} is not made of plain names joined by '/'.")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a key could begin with it; empty means every key.

    Raises:
        InputError: no key could.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def read_bytes(store: ObjectStore, key: str, *, max_bytes: int) -> bytes:
    """Return the whole object.

    Raises:
        NotFoundError: no such key.
        InputError: the object is larger than `max_bytes`, so it is not what it should be.
    """
    with store.open(key) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"Object {key} refused: it is larger than the {max_bytes} bytes that it may have.")
    return data
