"""How what the agent remembers changes: pure transitions of AgentState.

Its place in the flow: the step runner and the tick ask here for the next state and write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from serving.agent_state import Accepted, Account, AgentState, Baking, Cause, Failure, Label, Outcome, Watch, Withdrawal


def after_acceptance(
    state: AgentState,
    *,
    release: int,
    release_sha256: str,
    labels: Mapping[str, int],
    is_fallback: bool,
    is_watched: bool = True,
    now: datetime,
    bake_seconds: float,
) -> AgentState:
    """Return the state once `labels` are what the server answers with.

    A move to another stable version makes the one before the last good one and lets it bake; the new
    one is watched as long, unless it came by a rollback. A fallback does neither: what it left had
    failed, and the failure stays on record.
    """
    accepted = Accepted.model_validate(
        {"release": release, "release_sha256": release_sha256, "since": now, **labels}, strict=True
    )
    changes: dict[str, object] = {"accepted": accepted}
    before = state.accepted
    is_move = before is not None and before.stable != accepted.stable
    if is_move:
        changes |= {"baking": None, "watch": None}
    if not is_fallback:
        changes |= {"failure": None, "withdrawal": None, "announced_swap": None}
        if before is not None and is_move:
            changes["last_good"] = before.stable
            until = now + timedelta(seconds=bake_seconds)
            if bake_seconds > 0:
                changes["baking"] = Baking(version=before.stable, until=until)
            if bake_seconds > 0 and is_watched:
                changes["watch"] = Watch(release=release, version=accepted.stable, before=before.stable, until=until)
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


def after_withdrawal(
    state: AgentState,
    *,
    reason: str,
    cause: Literal["withdrawn", "traffic", "golden"] = "withdrawn",
    label: Label = "stable",
) -> AgentState:
    """Return the state in which the accepted release is not served here again; the next release is."""
    accepted = state.accepted
    version = accepted.labels.get(label) if accepted is not None else None
    if accepted is None or version is None:
        return state
    withdrawal = Withdrawal(release=accepted.release, version=version, reason=reason, cause=cause, label=label)
    return state.model_copy(update={"withdrawal": withdrawal})


def after_figures(
    state: AgentState, *, release: int, about: str, figures: str, is_said_again: bool = False
) -> AgentState:
    """Return the state with figures of a release's roll-out; `is_said_again` has them acknowledged anew."""
    before = state.account.figures if state.account is not None and state.account.release == release else {}
    account = Account(release=release, figures={**before, about: figures})
    changes: dict[str, object] = {"account": account}
    if is_said_again:
        changes["said"] = None
    return state.model_copy(update=changes)
