"""What the agent remembers between ticks: `<models>/<model>/state.json`.

Its place in the flow: the agent reads it at the start of a tick and writes it durably after each
step that matters, so that a tick that is killed at any line is finished by the next one. It is
memory, not truth: what is served is what the model server answers. agent_changes.py has the
transitions.
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from artifact_sync.canonical import FrozenModel, Record, Sha256, Timestamp
from artifact_sync.errors import RecordError
from artifact_sync.records import ModelName, Number

Cause = Literal[
    "trust",
    "integrity",
    "capacity",
    "host",
    "server",
    "load",
    "golden",
    "latency",
    "labels",
    "order",
    "traffic",
    "withdrawn",
]
"""Where a release failed; `withdrawn` is a person's decision on this host."""

Outcome = Literal["refused", "failed"]
Label = Literal["stable", "canary", "shadow"]

_FIRST_SCHEMA = "liftgate.agent-state/1"


class Accepted(FrozenModel):
    """The labels that this host serves, and the release that asked for them."""

    release: Number
    release_sha256: Sha256
    stable: Number
    canary: Number | None = None
    shadow: Number | None = None
    since: Timestamp

    @property
    def labels(self) -> dict[str, int]:
        """Label → version."""
        pairs = (("stable", self.stable), ("canary", self.canary), ("shadow", self.shadow))
        return {label: version for label, version in pairs if version is not None}


class Baking(FrozenModel):
    """The version before, which stays in memory until the new one has proved itself."""

    version: Number
    until: Timestamp


class Watch(FrozenModel):
    """A new stable version that is watched, the version before it, and until when."""

    release: Number
    version: Number
    before: Number
    until: Timestamp


class Failure(FrozenModel):
    """Why a release is not served here, and when it is tried again."""

    release: Number
    version: Number | None
    cause: Cause
    outcome: Outcome
    detail: str
    attempts: Annotated[int, Field(ge=1)]
    retry_at: Timestamp


class Withdrawal(FrozenModel):
    """A decision against a release on this host, by a person or by what was seen of it.

    The release and the version are not served here again; the next release is. `label` is what
    users called the version by.
    """

    release: Number
    version: Number
    reason: str
    cause: Literal["withdrawn", "traffic", "golden"] = "withdrawn"
    label: Label = "stable"


class Said(FrozenModel):
    """The last acknowledgement that reached the bucket; its like is not sent again."""

    release: Number
    outcome: Literal["serving", "refused", "failed"]
    cause: str
    serving_version: Number | None


class Account(FrozenModel):
    """Figures of one release's roll-out on this host, by what they are about; the acknowledgement has them."""

    release: Number
    figures: dict[str, str]


class MemoryPeak(FrozenModel):
    """The most that the server's process was seen to hold, and the size of each version's files in it then."""

    server_bytes: Annotated[int, Field(ge=0)]
    file_bytes: tuple[Annotated[int, Field(ge=0)], ...]


class AgentState(Record):
    """Everything the agent remembers.

    `last_good` is the version to return to; it is never removed from the disk. `offered` is what
    the last configuration sent to the server listed, written before it is sent. `seen_at` is when
    `highest_release` was first seen here; `announced_swap` the release for which it was said that
    the old version leaves the memory first; `memory_factor` what a byte of a version's files took,
    and `memory_peak` the most that the server held.
    """

    schema_name: ClassVar[str] = "liftgate.agent-state/2"
    model: ModelName
    highest_release: Annotated[int, Field(ge=0)] = 0
    seen_at: Timestamp | None = None
    accepted: Accepted | None = None
    last_good: Number | None = None
    baking: Baking | None = None
    watch: Watch | None = None
    failure: Failure | None = None
    withdrawal: Withdrawal | None = None
    offered: tuple[Number, ...] = ()
    announced_swap: Number | None = None
    account: Account | None = None
    memory_factor: Annotated[float, Field(gt=0)] | None = None
    memory_peak: MemoryPeak | None = None
    said: Said | None = None


def read_state(data: bytes) -> AgentState:
    """Parse a state file, of this or of the first schema, which had fewer fields.

    Raises:
        RecordError: it cannot be believed.
    """
    try:
        return AgentState.from_json(data)
    except RecordError:
        if _FIRST_SCHEMA.encode() not in data:
            raise
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.pop("schema", None) != _FIRST_SCHEMA:
            raise ValueError("another schema")
        return AgentState.model_validate_json(json.dumps(document), strict=True)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"Not a valid {_FIRST_SCHEMA} record: {error}.") from None
