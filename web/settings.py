"""Settings of the front end: the table [web].

Its place in the flow: the command line loads the table into `WebSettings`; assembly.py and
server.py build everything from it. Durations are in seconds, sizes in bytes.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_MEBIBYTE = 1024 * 1024
_HOST_AND_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})$")
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]


class WebSettings(BaseModel):
    """How one front end runs.

    Args:
        host: the address to listen on; a proxy that ends TLS should be in front of any other than loopback.
        port: the port to listen on, 0 for a free one.
        threads: requests that are worked on at once.
        data_dir: the database and the secret that signs sessions lie here (made when missing).
        database_url: another database in SQLAlchemy's form; by default SQLite in `data_dir`.
        instance_name: this front end's name in receipts.
        server_address: the model server's gRPC address; by default the agent's.
        server_ca_path: for mutual TLS with the model server, the authority that signed its certificate; this
            and the next two are set all or none.
        server_certificate_path: this front end's own certificate for the model server.
        server_key_path: the key of that certificate.
        server_name: the name in the server's certificate where it is not the one in server_address.
        max_upload_bytes: the largest photo that is taken.
        decode_workers: processes that decode photos.
        predict_timeout_seconds: how long the model server may take for one photo.
        photo_keep_seconds: how long the photo of an answer can still be given with a correction; then
            it is deleted. 0 keeps none.
        top_count: classes that an answer shows.
        catalog_refresh_seconds: pause between two looks at the releases.
        outbox_poll_seconds: pause between two looks at corrections that wait for the bucket.
        graceful_seconds: how long requests may take to end after SIGTERM.
        is_behind_https: people reach it by https, so cookies are for https only.
        trusted_proxies: proxies in front whose X-Forwarded headers are believed.
        metrics_address: "host:port" of a listener for /traffic and /metrics; without it there is none. It has no
            password: only agents and Prometheus should reach it.
        shadow_workers: copies for a release's shadow that are worked on at once.
        shadow_max_waiting: copies that may wait; what comes beyond that is dropped and counted.
        shadow_timeout_seconds: how long the model server may take for one copy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    threads: Annotated[int, Field(ge=1, le=256)] = 16
    data_dir: Path = Path("/var/lib/liftgate/web")
    database_url: str | None = None
    instance_name: Annotated[str, Field(min_length=1, max_length=253)] = Field(default_factory=socket.gethostname)
    server_address: str | None = None
    server_ca_path: Path | None = None
    server_certificate_path: Path | None = None
    server_key_path: Path | None = None
    server_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    max_upload_bytes: Annotated[int, Field(ge=1024, le=1024 * _MEBIBYTE)] = 25 * _MEBIBYTE
    decode_workers: Annotated[int, Field(ge=1, le=64)] = 2
    predict_timeout_seconds: Seconds = 5.0
    photo_keep_seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    top_count: Annotated[int, Field(ge=1, le=20)] = 5
    catalog_refresh_seconds: Seconds = 15.0
    outbox_poll_seconds: Seconds = 2.0
    graceful_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    is_behind_https: bool = False
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    metrics_address: str | None = None
    shadow_workers: Annotated[int, Field(ge=1, le=32)] = 2
    shadow_max_waiting: Annotated[int, Field(ge=1, le=10_000)] = 32
    shadow_timeout_seconds: Seconds = 2.0

    @field_validator("metrics_address")
    @classmethod
    def _known_form(cls, address: str | None) -> str | None:
        found = _HOST_AND_PORT.match(address or "")
        if address is not None and (found is None or int(found[2]) > 65_535):
            raise ValueError(f'metrics_address {address!r} is of no known form. Use "host:port" or "[IPv6]:port".')
        return address

    @model_validator(mode="after")
    def _tls_whole_or_not_at_all(self) -> Self:
        parts = (self.server_ca_path, self.server_certificate_path, self.server_key_path)
        if any(parts) != all(parts):
            raise ValueError("server_ca_path, server_certificate_path and server_key_path: set all of them or none")
        if self.server_name is not None and not all(parts):
            raise ValueError("server_name is for TLS: set server_ca_path, server_certificate_path, server_key_path too")
        return self

    @property
    def effective_database_url(self) -> str:
        """The database's URL, SQLite in `data_dir` unless another is set."""
        return self.database_url or f"sqlite:///{self.data_dir / 'web.sqlite3'}"
