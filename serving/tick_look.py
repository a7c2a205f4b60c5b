"""What a tick knows, and the situation that follows from it: looks at server and disk, changes nothing.

Its place in the flow: tick.py keeps the facts up to date and asks `observe` before each decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from artifact_sync.errors import LiftgateError, ModelServerError, StoreError
from artifact_sync.records import ReleaseRecord
from serving.host_order import GO, Turn, turn_of
from serving.model_server import VersionState
from serving.rollout_acknowledgement import Trouble
from serving.rollout_situation import Rules, Situation
from serving.rollout_steps import Step
from serving.start_config import read_start_config, versions_named
from serving.step_runner import StepRunner


@dataclass
class TickFacts:
    """What a tick has found out so far.

    Args:
        now: when the tick began.
        desired: the newest trusted release; None when there is none or it is not known.
        is_bucket_reachable: whether the bucket could be reached.
        trouble: what is wrong with the host or the bucket's metadata, apart from any release.
        turn: whether the order of hosts lets this one go on.
        proved, timed: versions that passed those checks in this tick.
        blocked: versions that could not be had.
        done: the steps so far.
    """

    now: datetime
    desired: ReleaseRecord | None = None
    is_bucket_reachable: bool = True
    trouble: Trouble | None = None
    turn: Turn = GO
    proved: set[int] = field(default_factory=set)
    timed: set[int] = field(default_factory=set)
    blocked: set[int] = field(default_factory=set)
    done: list[Step] = field(default_factory=list)


def observe(runner: StepRunner, facts: TickFacts) -> tuple[Situation, ModelServerError | None]:
    """Return the situation now, and what the model server's silence was, if it is silent."""
    state, settings, directories = runner.state_file.state, runner.settings, runner.directories
    server, labels, error = _look_at_server(runner)
    trouble = facts.trouble if error is None else Trouble(cause="server", outcome="failed", detail=str(error))
    on_disk = directories.numbers()
    desired = frozenset(facts.desired.versions) if facts.desired is not None else frozenset()
    config = read_start_config(settings.config_path)
    named = versions_named(config, model=runner.registry.model)
    of_interest = {*desired, *named, *(state.accepted.labels.values() if state.accepted else ()), state.last_good}
    verified = frozenset(version for version in on_disk & of_interest if runner.is_verified(version))
    situation = Situation(
        now=facts.now,
        state=state,
        desired=facts.desired,
        server=server,
        labels=labels,
        on_disk=on_disk,
        verified=verified,
        proved=frozenset(facts.proved),
        timed=frozenset(facts.timed),
        prepared=frozenset(runner.prepared),
        room=runner.room,
        turn=facts.turn,
        rules=Rules(
            is_memory_checked=True,
            is_latency_compared=settings.latency_pairs > 0,
            is_latency_limited=settings.max_latency_ms is not None,
        ),
        blocked=frozenset(facts.blocked) | (runner.beyond_repair - desired),
        done=tuple(facts.done),
        is_config_safe=named <= verified,
        is_config_current=config == runner.start_config(),
        leftovers=tuple(str(path) for path in directories.leftovers(wanted=desired)),
        is_bucket_reachable=facts.is_bucket_reachable,
        trouble=trouble,
    )
    return situation, error


def _look_at_server(
    runner: StepRunner,
) -> tuple[dict[int, VersionState] | None, dict[str, int], ModelServerError | None]:
    try:
        statuses = {version: status.state for version, status in runner.driver.statuses().items()}
        return statuses, runner.driver.labels(), None
    except ModelServerError as error:
        return None, {}, error


def turn_now(runner: StepRunner, facts: TickFacts) -> Turn:
    """Return whether this host may move its labels, by what the hosts before it acknowledged.

    Raises:
        StoreError: the bucket cannot be reached.
    """
    settings, state, release = runner.settings, runner.state_file.state, facts.desired
    is_taken = release is not None and state.accepted is not None and state.accepted.release == release.number
    if release is None or is_taken or not settings.host_order or release.kind == "rollback":
        return GO
    try:
        acknowledgements = runner.registry.acknowledgements(release.number)
    except StoreError:
        raise
    except LiftgateError as error:
        # They are not signed: anybody who may write there can leave one that is none.
        return Turn(word="wait", reason=f"the acknowledgements of release {release.number} cannot be read: {error}")
    return turn_of(
        settings.host,
        order=settings.host_order,
        release=release,
        acknowledgements=acknowledgements,
        seen_at=state.seen_at or facts.now,
        now=facts.now,
        pause_seconds=settings.order_pause_seconds,
        timeout_seconds=settings.order_timeout_seconds,
    )
