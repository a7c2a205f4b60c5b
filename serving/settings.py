"""Settings of the serving agent: the table [agent].

Its place in the flow: the command line loads the table into `AgentSettings` and hands it to the
agent, its loop and the files of the model server. Every duration is in seconds.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from artifact_sync.records import ModelName

_ADDRESS = re.compile(r"^(unix:/\S+|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5})$")

_TRAFFIC_URL = re.compile(r"^http://[^\s/]+(/\S*)?$")

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]
Pause = Annotated[float, Field(ge=0, le=7 * 86_400, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class AgentSettings(BaseModel):
    """How one serving host follows the releases. One agent serves one model on one model server.

    Args:
        model: the model to serve; by default the one that the settings file names.
        host: this host's name in acknowledgements.
        models_dir: the directory with one directory a model; it should be on one file system.
        server_address: the model server's gRPC address, "unix:/absolute/socket" or "host:port". It
            has no password, so a Unix socket or the loopback is what it should listen on, or mutual TLS.
        server_ca_path, server_certificate_path, server_key_path: for mutual TLS with the model server: the
            authority that signed its certificate, and this host's own certificate and key. All or none.
        server_name: the name in the server's certificate where it is not the one in server_address.
        server_config_path: the file that the model server reads when it starts; by default
            `models.config` in `models_dir`. The server must not poll it: the agent reloads by gRPC.
        poll_seconds: the pause between two looks at the bucket.
        poll_jitter: the part of that pause that is random, so that hosts do not move in step.
        load_timeout_seconds: how long a version may take from the reload to AVAILABLE.
        request_timeout_seconds: how long one golden example batch or question to the server may take.
        bake_seconds: how long the version before stays in memory after the label moved.
        retry_seconds: the pause before a release that failed is tried again; doubled at each failure.
        retry_limit_seconds: what that pause grows to at most.
        latency_pairs: how often a new version and the served one are timed in turn on the golden examples
            before a label moves; 0 turns the comparison off. Twice this often before a refusal.
        max_latency_ratio: how many times as long as the served version a new one may take, in the median and
            in the 95th percentile; it is refused when it is over this and over latency_floor_ms.
        latency_floor_ms: a difference of fewer milliseconds than this never refuses a version.
        max_latency_ms: what the median may be at most, whatever the served version takes; none by default.
        when_memory_is_short: what to do when a new version does not fit beside the served one: "refuse" it, or
            "swap": unload the served one first. Requests in between fail; it is announced.
        memory_limit_bytes: the model server's memory, where the control group does not say it.
        traffic_urls: where front ends tell what users' requests say about versions, such as
            "http://front-1:9100/traffic". Read during the bake time and as long as a canary runs.
        traffic_timeout_seconds: how long one front end may take to say so.
        watch_seconds: the pause between two looks while a new version is watched.
        probe_seconds: the pause between two replays of the golden examples while a new version is watched; 0: none.
        baseline_seconds: how much of the time before a move counts as "before".
        min_requests: requests that a version must have had before traffic says anything about it.
        max_error_increase: by how much the share of failed requests may rise, 0.02 for two in a hundred.
        max_p95_ratio: how many times the earlier 95th percentile of the answer time may be.
        p95_floor_ms: a rise of fewer milliseconds than this is no reason to return.
        max_answer_shift: how far the shares of the winning labels may move (total variation distance, 0 to 1).
        min_shadow_agreement: the share of copied requests whose winning label must agree; none by default: a
            shadow's figures are said and decide nothing.
        host_order: hosts, as acknowledgements name them, that take a promotion one after another; this host
            moves its labels once all before it serve. Empty: all at once. Rollbacks never wait.
        order_pause_seconds: how long the host before must have served before this one moves its labels.
        order_timeout_seconds: how long this host waits for those before it until it says that it gave up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName | None = None
    host: Annotated[str, Field(min_length=1, max_length=253)] = Field(default_factory=socket.gethostname)
    models_dir: Path = Path("/var/lib/liftgate/models")
    server_address: str = "unix:/run/liftgate/model-server.sock"
    server_config_path: Path | None = None
    poll_seconds: Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)] = 30.0
    poll_jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.2
    load_timeout_seconds: Seconds = 300.0
    request_timeout_seconds: Seconds = 10.0
    bake_seconds: Pause = 600.0
    retry_seconds: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 30.0
    retry_limit_seconds: Annotated[float, Field(ge=1, le=7 * 86_400, allow_inf_nan=False)] = 3600.0
    server_ca_path: Path | None = None
    server_certificate_path: Path | None = None
    server_key_path: Path | None = None
    server_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    latency_pairs: Annotated[int, Field(ge=0, le=1000)] = 30
    max_latency_ratio: Ratio = 2.0
    latency_floor_ms: Milliseconds = 10.0
    max_latency_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)] | None = None
    when_memory_is_short: Literal["refuse", "swap"] = "refuse"
    memory_limit_bytes: Annotated[int, Field(ge=1024 * 1024)] | None = None
    traffic_urls: tuple[str, ...] = ()
    traffic_timeout_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 2.0
    watch_seconds: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 10.0
    probe_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    baseline_seconds: Seconds = 3600.0
    min_requests: Annotated[int, Field(ge=20, le=1_000_000)] = 100
    max_error_increase: Share = 0.02
    max_p95_ratio: Ratio = 2.0
    p95_floor_ms: Milliseconds = 50.0
    max_answer_shift: Share = 0.3
    min_shadow_agreement: Share | None = None
    host_order: tuple[str, ...] = ()
    order_pause_seconds: Pause = 0.0
    order_timeout_seconds: Seconds = 3600.0

    @field_validator("server_address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        if not _ADDRESS.match(address):
            raise ValueError(f"server_address {address!r} is of no known form. Use unix:/absolute/socket or host:port.")
        return address

    @field_validator("traffic_urls")
    @classmethod
    def _plain_http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _TRAFFIC_URL.match(url):
                raise ValueError(f"traffic_urls: {url!r} is of no known form. Use http://front-end:port/traffic.")
        return urls

    @model_validator(mode="after")
    def _whole(self) -> Self:
        parts = (self.server_ca_path, self.server_certificate_path, self.server_key_path)
        if any(parts) != all(parts):
            raise ValueError("server_ca_path, server_certificate_path and server_key_path: set all of them or none")
        if self.server_name is not None and not all(parts):
            raise ValueError("server_name is for TLS: set server_ca_path, server_certificate_path, server_key_path too")
        if self.host_order and (self.host not in self.host_order or len(set(self.host_order)) != len(self.host_order)):
            raise ValueError(
                f"host_order {list(self.host_order)} must name each host once, and this one, {self.host!r}, among them"
            )
        return self

    @property
    def config_path(self) -> Path:
        """The file that the model server reads when it starts."""
        return self.server_config_path or self.models_dir / "models.config"
