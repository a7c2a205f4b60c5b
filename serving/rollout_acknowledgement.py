"""Whether there is something new to say in the bucket, and what: a pure part of the roll-out.

Its place in the flow: rollout.plan asks it once the host has done what it can. One outcome is said
once; a kill between the write and the note of it can say it twice, never zero times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from artifact_sync.records import ReleaseRecord
from serving.agent_state import AgentState, Cause, Outcome
from serving.host_order import GO, Turn
from serving.rollout_steps import Acknowledge, described


@dataclass(frozen=True)
class Trouble:
    """What is wrong with the host or the bucket, apart from any one release."""

    cause: Cause
    outcome: Outcome
    detail: str


def due_acknowledgement(
    state: AgentState,
    *,
    desired: ReleaseRecord | None,
    wanted: Mapping[str, int] | None,
    trouble: Trouble | None,
    turn: Turn = GO,
) -> Acknowledge | None:
    """Return what this host has to say and has not said yet; `wanted` are the labels that `desired` asks for."""
    current = _current(state, desired=desired, wanted=wanted, trouble=trouble, turn=turn)
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
    state: AgentState,
    *,
    desired: ReleaseRecord | None,
    wanted: Mapping[str, int] | None,
    trouble: Trouble | None,
    turn: Turn,
) -> Acknowledge | None:
    accepted = state.accepted
    if trouble is not None:
        return _about_trouble(state, desired=desired, trouble=trouble)
    if desired is None:
        return None
    held_back = _held_back(state, desired=desired, turn=turn)
    if held_back is not None:
        return held_back
    if accepted is None or accepted.release != desired.number or accepted.labels != wanted:
        return None
    figures = state.account.figures if state.account is not None and state.account.release == desired.number else {}
    detail = " ".join((f"Serves {described(accepted.labels)}.", *figures.values()))
    return Acknowledge(desired.number, desired.sha256, "serving", "", detail)


def _held_back(state: AgentState, *, desired: ReleaseRecord, turn: Turn) -> Acknowledge | None:
    failure, withdrawal, accepted = state.failure, state.withdrawal, state.accepted
    if failure is not None and failure.release == desired.number:
        return Acknowledge(desired.number, desired.sha256, failure.outcome, failure.cause, failure.detail)
    if withdrawal is not None and withdrawal.release == desired.number:
        return Acknowledge(desired.number, desired.sha256, "failed", withdrawal.cause, withdrawal.reason)
    if turn.word in {"stop", "late"}:
        kept = f"keeps {described(accepted.labels)}" if accepted is not None else "serves nothing yet"
        detail = f"{_sentence(turn.reason)}; this host {kept}."
        return Acknowledge(desired.number, desired.sha256, "refused", "order", detail)
    return None


def _about_trouble(state: AgentState, *, desired: ReleaseRecord | None, trouble: Trouble) -> Acknowledge | None:
    if desired is not None:
        return Acknowledge(desired.number, desired.sha256, trouble.outcome, trouble.cause, trouble.detail)
    if state.accepted is not None:
        release, digest = state.accepted.release, state.accepted.release_sha256
        return Acknowledge(release, digest, trouble.outcome, trouble.cause, trouble.detail)
    return None


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".")
