"""What the agent remembers between ticks: `<models>/<model>/state.json`, and its pure transitions.

Its place in the flow: the agent reads it at the start of a tick and writes it durably after each
step that matters, so that a tick that is killed at any line is finished by the next one. It is
memory, not truth: what is served is what the model server answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from artifact_sync.canonical import FrozenModel, Record, Sha256, Timestamp
from artifact_sync.records import ModelName, Number

Cause = Literal["trust", "integrity", "capacity", "host", "server", "load", "golden", "labels", "withdrawn"]
"""Where a release failed; `withdrawn` is a person's decision on this host."""

Outcome = Literal["refused", "failed"]


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
    """A person's decision on this host: the release and its stable version are not served here again."""

    release: Number
    version: Number
    reason: str


class Said(FrozenModel):
    """The last acknowledgement that reached the bucket; its like is not sent again."""

    release: Number
    outcome: Literal["serving", "refused", "failed"]
    cause: str
    serving_version: Number | None


class AgentState(Record):
    """Everything the agent remembers.

    `last_good` is the version to return to; it is never removed from the disk. `offered` is what
    the last configuration sent to the server listed, written before it is sent.
    """

    schema_name: ClassVar[str] = "liftgate.agent-state/1"
    model: ModelName
    highest_release: Annotated[int, Field(ge=0)] = 0
    accepted: Accepted | None = None
    last_good: Number | None = None
    baking: Baking | None = None
    failure: Failure | None = None
    withdrawal: Withdrawal | None = None
    offered: tuple[Number, ...] = ()
    said: Said | None = None


def after_acceptance(
    state: AgentState,
    *,
    release: int,
    release_sha256: str,
    labels: Mapping[str, int],
    is_fallback: bool,
    now: datetime,
    bake_seconds: float,
) -> AgentState:
    """Return the state once `labels` are what the server answers with.

    A move to another stable version makes the one before the last good one and lets it bake. A
    fallback does neither: what it left had failed, and the failure stays on record.
    """
    accepted = Accepted.model_validate(
        {"release": release, "release_sha256": release_sha256, "since": now, **labels}, strict=True
    )
    changes: dict[str, object] = {"accepted": accepted}
    before = state.accepted
    if is_fallback:
        changes["baking"] = None
    else:
        changes |= {"failure": None, "withdrawal": None}
        if before is not None and before.stable != accepted.stable:
            changes["last_good"] = before.stable
            until = now + timedelta(seconds=bake_seconds)
            changes["baking"] = Baking(version=before.stable, until=until) if bake_seconds > 0 else None
    return state.model_copy(update=changes)


def after_failure(
    state: AgentState,
    *,
    release: int,
    version: int | None,
    cause: Cause,
    outcome: Outcome,
    detail: str,
    now: datetime,
    retry_seconds: float,
    retry_limit_seconds: float,
) -> AgentState:
    """Return the state with the failure on record and the next try put off, twice as long each time."""
    before = state.failure
    attempts = before.attempts + 1 if before is not None and before.release == release else 1
    pause_seconds = min(retry_seconds * 2.0 ** min(attempts - 1, 30), retry_limit_seconds)
    # A record keeps whole seconds, so a pause is rounded up: never shorter than promised.
    retry_at = now + timedelta(seconds=int(pause_seconds) + 1)
    failure = Failure(
        release=release,
        version=version,
        cause=cause,
        outcome=outcome,
        detail=detail,
        attempts=attempts,
        retry_at=retry_at,
    )
    return state.model_copy(update={"failure": failure})


def after_withdrawal(state: AgentState, *, reason: str) -> AgentState:
    """Return the state in which the accepted release is not served here again; the next release is."""
    accepted = state.accepted
    if accepted is None:
        return state
    withdrawal = Withdrawal(release=accepted.release, version=accepted.stable, reason=reason)
    return state.model_copy(update={"withdrawal": withdrawal})
