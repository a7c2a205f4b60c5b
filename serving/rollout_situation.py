"""All that a roll-out decision may rest on, as plain data.

Its place in the flow: the agent observes it before each step and hands it to rollout.plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from artifact_sync.records import ReleaseRecord
from serving.agent_state import AgentState, Failure, Withdrawal
from serving.host_order import GO, Turn
from serving.memory_budget import RoomVerdict
from serving.model_server import VersionState
from serving.rollout_acknowledgement import Trouble
from serving.rollout_steps import Step

_LIVE = (VersionState.START, VersionState.LOADING, VersionState.AVAILABLE)


@dataclass(frozen=True)
class Rules:
    """Which checks this host makes.

    Args:
        is_memory_checked: whether room in memory is looked for before a load.
        is_latency_compared: whether a new version is timed against the served one.
        is_latency_limited: whether there is a limit that holds without a served version too.
    """

    is_memory_checked: bool = False
    is_latency_compared: bool = False
    is_latency_limited: bool = False


@dataclass(frozen=True)
class Situation:
    """All that a decision may rest on.

    Args:
        now: the time at which the tick began.
        state: what the agent remembers.
        desired: the newest trusted release; None when there is none or it cannot be known now.
        server: what the server reports, version → state; None when it cannot be reached.
        labels: label → version that the server answers with.
        on_disk: versions with a directory; `verified`: those whose every digest was checked.
        proved: versions that gave the golden answers in this tick.
        timed: versions whose latency was found fit in this tick.
        prepared: versions that were proved and timed in an earlier tick and wait for this host's turn.
        room: what the check of the memory said in this tick.
        turn: whether the order of hosts lets this one go on.
        rules: which checks this host makes.
        blocked: versions that could not be had in this tick.
        done: the steps of this tick so far; none is taken twice.
        is_config_safe: whether the start-up file lists verified versions only.
        is_config_current: whether it lists exactly what was accepted.
        leftovers: paths that interrupted steps left on the disk.
        is_bucket_reachable: whether the bucket could be reached in this tick.
        trouble: what is wrong with the host or the bucket's metadata, apart from any release.
    """

    now: datetime
    state: AgentState
    desired: ReleaseRecord | None = None
    server: Mapping[int, VersionState] | None = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    on_disk: frozenset[int] = frozenset()
    verified: frozenset[int] = frozenset()
    proved: frozenset[int] = frozenset()
    timed: frozenset[int] = frozenset()
    prepared: frozenset[int] = frozenset()
    room: RoomVerdict | None = None
    turn: Turn = GO
    rules: Rules = Rules()
    blocked: frozenset[int] = frozenset()
    done: tuple[Step, ...] = ()
    is_config_safe: bool = True
    is_config_current: bool = True
    leftovers: tuple[str, ...] = ()
    is_bucket_reachable: bool = True
    trouble: Trouble | None = None

    @property
    def available(self) -> frozenset[int]:
        """Versions that the server answers with."""
        return frozenset(v for v, state in (self.server or {}).items() if state is VersionState.AVAILABLE)

    @property
    def live(self) -> frozenset[int]:
        """Versions that are in the server's memory or on the way there."""
        return frozenset(v for v, state in (self.server or {}).items() if state in _LIVE)

    @property
    def failure(self) -> Failure | None:
        """The failure that holds now: of this release, and not yet due for another try."""
        failure = self.state.failure
        if failure is None or (self.desired is not None and self.desired.number != failure.release):
            return None
        return failure if self.now < failure.retry_at else None

    @property
    def withdrawal(self) -> Withdrawal | None:
        """The decision against the release, as long as no newer one is there."""
        withdrawal = self.state.withdrawal
        is_past = withdrawal is None or (self.desired is not None and self.desired.number != withdrawal.release)
        return None if is_past else withdrawal

    def is_usable(self, version: int) -> bool:
        """Whether the server answers with the version, or could be told to load it now."""
        failure, withdrawal = self.failure, self.withdrawal
        is_at_fault = failure is not None and failure.version == version
        is_wrong = is_at_fault and failure is not None and failure.cause == "golden"
        if is_wrong or (withdrawal is not None and withdrawal.version == version):
            return False
        return version in self.available or (version in self.verified and not is_at_fault)

    @property
    def baking(self) -> frozenset[int]:
        """The version before, while it is still in memory and its time is not over."""
        baking = self.state.baking
        is_due = baking is not None and self.now < baking.until and baking.version in self.available
        return frozenset({baking.version}) if baking is not None and is_due else frozenset()
