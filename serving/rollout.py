"""What to do next: a pure function from what is wanted and what is there to one step.

Its place in the flow: the agent observes, asks `plan`, carries out the step and asks again, until
the answer is one at which a tick rests. Killed anywhere, the next look goes on from what is there.

The order holds these promises:
- a path is sent to the server only when its directory was verified (or the server already answers
  with that version);
- a label moves only to a version that is AVAILABLE, gave the golden answers and is not slower than it
  may be, in a configuration that loads nothing, and when it is this host's turn;
- only UnloadVersions and SwapOut take a version out of memory; the first never one that a label
  needs, the second only where both do not fit, where that is allowed, and after it was announced;
- the serving version, the last good one and whatever the server holds are never removed from disk.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.rollout_acknowledgement import due_acknowledgement
from serving.rollout_load import next_load
from serving.rollout_situation import Situation
from serving.rollout_steps import (
    KeepForBake,
    MeasureLatency,
    MoveLabels,
    Nothing,
    ProbeVersion,
    PullVersion,
    RecordServing,
    RemoveVersions,
    Step,
    UnloadVersions,
    WaitForHosts,
    WriteConfig,
    described,
)
from serving.rollout_target import Target, is_new, release_labels, target_of


def plan(situation: Situation) -> Step:
    """Return the next step; `Nothing`, `KeepForBake` and `WaitForHosts` end the tick."""
    target = target_of(situation)
    for decide in _DECISIONS:
        step = decide(situation, target)
        if step is not None and step not in situation.done:
            return step
    return _rest(situation, target)


def _make_config_safe(s: Situation, target: Target) -> Step | None:
    return None if s.is_config_safe else WriteConfig()


def _pull(s: Situation, target: Target) -> Step | None:
    if target.release is None and s.state.accepted is None:
        return None
    missing = target.versions - s.verified - s.blocked
    return PullVersion(version=min(missing)) if missing and s.is_bucket_reachable else None


def _probe(s: Situation, target: Target) -> Step | None:
    unproved = _moving(s, target) - s.proved
    if (
        _is_prepared(s, target)
        or not unproved
        or not _is_in_memory(s, target)
        or not all(s.is_usable(version) for version in unproved)
    ):
        return None
    return ProbeVersion(version=min(unproved))


def _measure(s: Situation, target: Target) -> Step | None:
    untimed = _to_be_timed(s, target) - s.timed
    if _is_prepared(s, target) or not untimed or not _is_in_memory(s, target) or not _moving(s, target) <= s.proved:
        return None
    version = min(untimed)
    return MeasureLatency(version=version, served=_served(s))


def _to_be_timed(s: Situation, target: Target) -> frozenset[int]:
    # What users get; a way back is not refused because it is slow.
    if target.release is None or target.release.kind == "rollback" or not is_new(s, target):
        return frozenset()
    served = _served(s)
    is_due = s.rules.is_latency_limited or (s.rules.is_latency_compared and served is not None)
    moving = {target.labels.get("stable"), target.labels.get("canary")} & _moving(s, target)
    return frozenset(version for version in moving if version is not None and version != served and is_due)


def _served(s: Situation) -> int | None:
    stable = s.labels.get("stable")
    return stable if stable in s.available else None


def _move(s: Situation, target: Target) -> Step | None:
    is_needed = target.labels and dict(s.labels) != dict(target.labels)
    if not is_needed or not _is_ready(s, target) or _is_waiting(s, target):
        return None
    return MoveLabels(versions=tuple(sorted(target.versions | s.available)), labels=dict(target.labels))


def _is_ready(s: Situation, target: Target) -> bool:
    is_proved = _moving(s, target) <= s.proved and _to_be_timed(s, target) <= s.timed
    return is_proved and _is_in_memory(s, target)


def _is_waiting(s: Situation, target: Target) -> bool:
    return target.release is not None and s.turn.word == "wait" and dict(s.labels) != dict(target.labels)


def _is_prepared(s: Situation, target: Target) -> bool:
    # While others go first it is not asked again at every look; all of it is once more before the move.
    return _is_waiting(s, target) and _moving(s, target) <= s.prepared


def _moving(s: Situation, target: Target) -> frozenset[int]:
    return frozenset(version for label, version in target.labels.items() if s.labels.get(label) != version)


def _is_in_memory(s: Situation, target: Target) -> bool:
    return s.server is not None and target.versions <= s.available


def _record(s: Situation, target: Target) -> Step | None:
    accepted = s.state.accepted
    is_served = _is_in_memory(s, target) and dict(s.labels) == dict(target.labels)
    if is_served and target.release is not None:
        release = target.release
        if is_new(s, target) or s.state.failure is not None:
            is_watched = release.kind != "rollback"
            labels = dict(target.labels)
            return RecordServing(release.number, release.sha256, labels, is_fallback=False, is_watched=is_watched)
    if is_served and target.is_fallback and accepted is not None and accepted.labels != target.labels:
        return RecordServing(accepted.release, accepted.release_sha256, dict(target.labels), is_fallback=True)
    return None if s.is_config_current else WriteConfig()


def _unload(s: Situation, target: Target) -> Step | None:
    is_ours = s.state.accepted is not None or bool(s.state.offered)
    if s.server is None or not is_ours:
        return None
    if not _is_in_memory(s, target) or dict(s.labels) != dict(target.labels):
        return None
    keep = target.versions | s.baking
    if s.live <= keep and set(s.state.offered) == keep:
        return None
    return UnloadVersions(versions=tuple(sorted(keep)), labels=dict(target.labels))


def _acknowledge(s: Situation, target: Target) -> Step | None:
    if not s.is_bucket_reachable:
        return None
    wanted = release_labels(s.desired) if s.desired is not None else None
    return due_acknowledgement(s.state, desired=s.desired, wanted=wanted, trouble=s.trouble, turn=s.turn)


def _mend_last_good(s: Situation, target: Target) -> Step | None:
    last_good = s.state.last_good
    is_damaged = last_good is not None and last_good in s.on_disk - s.verified - s.blocked
    return PullVersion(version=last_good) if last_good is not None and is_damaged and s.is_bucket_reachable else None


def _remove(s: Situation, target: Target) -> Step | None:
    # While the bucket is away it is not known what the newest release needs.
    if s.server is None or not s.is_bucket_reachable:
        return None
    state = s.state
    needed = set(target.versions | s.live | s.baking) | set(s.labels.values()) | set(state.offered)
    needed |= {version for version in (state.last_good,) if version is not None}
    needed |= set(state.accepted.labels.values()) if state.accepted is not None else set()
    needed |= set(s.desired.versions) if s.desired is not None else set()
    # Without a last good version on record any directory may be the one to return to.
    removable = s.on_disk - needed if state.last_good is not None else frozenset()
    is_needed = removable or s.leftovers
    return RemoveVersions(versions=tuple(sorted(removable)), leftovers=s.leftovers) if is_needed else None


_DECISIONS: tuple[Callable[[Situation, Target], Step | None], ...] = (
    _make_config_safe,
    _pull,
    next_load,
    _probe,
    _measure,
    _move,
    _record,
    _unload,
    _mend_last_good,
    _remove,
    # Last, when everything that can go wrong in a tick has: else two words would take turns.
    _acknowledge,
)


def _rest(s: Situation, target: Target) -> Step:
    if _is_waiting(s, target):
        return WaitForHosts(reason=s.turn.reason, labels=dict(target.labels))
    baking = s.state.baking
    if baking is not None and baking.version in s.baking - target.versions:
        return KeepForBake(version=baking.version, until=baking.until, labels=dict(target.labels))
    if s.desired is None and s.state.accepted is None:
        return Nothing(reason="no release to serve")
    if not target.labels:
        return Nothing(reason="no version has been accepted on this host")
    served = described(target.labels)
    if not _is_in_memory(s, target) or dict(s.labels) != dict(target.labels):
        return Nothing(reason=f"{served} is wanted and cannot be had now")
    return Nothing(reason=f"{served} is served")
