"""Whether there is something new to say in the bucket, and what: a pure part of the roll-out.

Its place in the flow: rollout.plan asks it once the host has done what it can. One outcome is said
once; a kill between the write and the note of it can say it twice, never zero times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from artifact_sync.records import ReleaseRecord
from serving.agent_state import AgentState, Cause, Outcome
from serving.rollout_steps import Acknowledge, described


@dataclass(frozen=True)
class Trouble:
    """What is wrong with the host or the bucket, apart from any one release."""

    cause: Cause
    outcome: Outcome
    detail: str


def due_acknowledgement(
    state: AgentState, *, desired: ReleaseRecord | None, wanted: Mapping[str, int] | None, trouble: Trouble | None
) -> Acknowledge | None:
    """Return what this host has to say and has not said yet; `wanted` are the labels that `desired` asks for."""
    current = _current(state, desired=desired, wanted=wanted, trouble=trouble)
    if current is None:
        return None
    said = state.said
    serving = state.accepted.stable if state.accepted is not None else None
    if said is not None and (said.release, said.outcome, said.cause, said.serving_version) == (
        current.release,
        current.outcome,
        current.cause,
        serving,
    ):
        return None
    return current


def _current(
    state: AgentState, *, desired: ReleaseRecord | None, wanted: Mapping[str, int] | None, trouble: Trouble | None
) -> Acknowledge | None:
    accepted, failure = state.accepted, state.failure
    if trouble is not None:
        return _about_trouble(state, desired=desired, trouble=trouble)
    if desired is None:
        return None
    if failure is not None and failure.release == desired.number:
        return Acknowledge(desired.number, desired.sha256, failure.outcome, failure.cause, failure.detail)
    withdrawal = state.withdrawal
    if withdrawal is not None and withdrawal.release == desired.number:
        return Acknowledge(desired.number, desired.sha256, "failed", "withdrawn", withdrawal.reason)
    if accepted is None or accepted.release != desired.number or accepted.labels != wanted:
        return None
    return Acknowledge(desired.number, desired.sha256, "serving", "", f"Serves {described(accepted.labels)}.")


def _about_trouble(state: AgentState, *, desired: ReleaseRecord | None, trouble: Trouble) -> Acknowledge | None:
    if desired is not None:
        return Acknowledge(desired.number, desired.sha256, trouble.outcome, trouble.cause, trouble.detail)
    if state.accepted is not None:
        release, digest = state.accepted.release, state.accepted.release_sha256
        return Acknowledge(release, digest, trouble.outcome, trouble.cause, trouble.detail)
    return None
