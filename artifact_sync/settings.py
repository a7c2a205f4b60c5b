"""Settings of the store and of trust, and the one place where a store is built from them.

Its place in the flow: the command line loads the tables [store] and [trust] into these models and
hands `open_store`'s result to everything else. Credentials are never settings: S3 takes them from
the standard AWS chain (environment, profile, instance role).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, field_validator

from artifact_sync.directory_store import DirectoryStore

if TYPE_CHECKING:
    from artifact_sync.store import ObjectStore

_FORMS = "Use dir:/absolute/path or s3://bucket/prefix."
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._=+-]*)(/[A-Za-z0-9_][A-Za-z0-9._=+-]*)*")


class StoreSettings(BaseModel):
    """The table [store].

    Args:
        url: "dir:/absolute/path" or "s3://bucket/prefix".
        endpoint_url: an S3 server other than AWS, such as "https://s3.example.com:9000".
        region: the region of the bucket; by default the AWS chain's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    endpoint_url: str | None = None
    region: str | None = None

    @field_validator("url")
    @classmethod
    def _known_form(cls, url: str) -> str:
        _parse_url(url)
        return url

    @field_validator("endpoint_url")
    @classmethod
    def _http(cls, endpoint_url: str | None) -> str | None:
        if endpoint_url is None:
            return None
        parts = urlsplit(endpoint_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"endpoint_url {endpoint_url!r} is not an address. Use https://host or https://host:port.")
        if parts.username or parts.password or parts.query or parts.fragment or parts.path not in {"", "/"}:
            raise ValueError(
                "endpoint_url must hold a scheme, a host and a port only. Keep credentials in the standard AWS chain "
                "and the bucket in the store's url."
            )
        return endpoint_url


class TrustSettings(BaseModel):
    """The table [trust].

    Args:
        metadata_dir: where this machine keeps the signed metadata that it has seen (made when missing).
        root_path: the trusted root that the machine was given when it was set up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metadata_dir: Path
    root_path: Path


def open_store(settings: StoreSettings) -> ObjectStore:
    """Return the store that `settings` name; nothing is contacted yet."""
    kind, place, prefix = _parse_url(settings.url)
    if kind == "dir":
        return DirectoryStore(Path(place))
    # boto3 takes a third of a second to import, which `liftgate --help` has not.
    from artifact_sync.s3_store import S3Store  # noqa: PLC0415

    return S3Store(place, prefix=prefix, endpoint_url=settings.endpoint_url, region=settings.region)


def _parse_url(url: str) -> tuple[Literal["dir", "s3"], str, str]:
    """Return the kind, the directory or bucket, and the prefix; ValueError says what is wrong."""
    if url.startswith("dir:"):
        return "dir", _check_directory(url.removeprefix("dir:"), url=url), ""
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return "s3", _check_bucket(bucket, url=url), _check_prefix(prefix.rstrip("/"), url=url)
    raise ValueError(f"store url {url!r} is of no known form. {_FORMS}")


def _check_directory(path: str, *, url: str) -> str:
    if path.startswith("//"):
        raise ValueError(f"store url {url!r} has two slashes too many: write dir:/{path.lstrip('/')}. {_FORMS}")
    if not Path(path).is_absolute():
        raise ValueError(
            f"store url {url!r} is relative, so it would mean another place in each directory. "
            f"Write dir:{Path.cwd() / path} if that is what you mean. {_FORMS}"
        )
    if "\0" in path or ".." in Path(path).parts:
        raise ValueError(f"store url {url!r} has '..' or a NUL in it. {_FORMS}")
    return path


def _check_bucket(bucket: str, *, url: str) -> str:
    if "@" in bucket:
        raise ValueError("store url must not hold credentials: keep them in the standard AWS chain.")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            f"store url {url!r} refused: {bucket!r} is not a bucket's name (3 to 63 lower-case letters, digits, "
            f"dots and hyphens). {_FORMS}"
        )
    return bucket


def _check_prefix(prefix: str, *, url: str) -> str:
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ValueError(f"store url {url!r} refused: the prefix {prefix!r} is not plain names joined by '/'. {_FORMS}")
    return prefix
