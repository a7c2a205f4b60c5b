"""Settings of the serving agent: the table [agent].

Its place in the flow: the command line loads the table into `AgentSettings` and hands it to the
agent, its loop and the files of the model server. Every duration is in seconds.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from artifact_sync.records import ModelName

_ADDRESS = re.compile(r"^(unix:/\S+|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5})$")

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]


class AgentSettings(BaseModel):
    """How one serving host follows the releases. One agent serves one model on one model server.

    Args:
        model: the model to serve; by default the one that the settings file names.
        host: this host's name in acknowledgements.
        models_dir: the directory with one directory a model; it should be on one file system.
        server_address: the model server's gRPC address, "unix:/absolute/socket" or "host:port". It
            has no password, so a Unix socket or the loopback is what it should listen on.
        server_config_path: the file that the model server reads when it starts; by default
            `models.config` in `models_dir`. The server must not poll it: the agent reloads by gRPC.
        poll_seconds: the pause between two looks at the bucket.
        poll_jitter: the part of that pause that is random, so that hosts do not move in step.
        load_timeout_seconds: how long a version may take from the reload to AVAILABLE.
        request_timeout_seconds: how long one golden example batch or question to the server may take.
        bake_seconds: how long the version before stays in memory after the label moved.
        retry_seconds: the pause before a release that failed is tried again; doubled at each failure.
        retry_limit_seconds: what that pause grows to at most.
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
    bake_seconds: Annotated[float, Field(ge=0, le=7 * 86_400, allow_inf_nan=False)] = 600.0
    retry_seconds: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 30.0
    retry_limit_seconds: Annotated[float, Field(ge=1, le=7 * 86_400, allow_inf_nan=False)] = 3600.0

    @field_validator("server_address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        if not _ADDRESS.match(address):
            raise ValueError(f"server_address {address!r} is of no known form. Use unix:/absolute/socket or host:port.")
        return address

    @property
    def config_path(self) -> Path:
        """The file that the model server reads when it starts."""
        return self.server_config_path or self.models_dir / "models.config"
