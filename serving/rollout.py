"""What to do next: a pure function from what is wanted and what is there to one step.

Its place in the flow: the agent observes, asks `plan`, carries out the step and asks again, until
the answer is `Nothing` or `KeepForBake`. Killed anywhere, the next look goes on from what is there.

The order holds these promises:
- a path is sent to the server only when its directory was verified (or the server already answers
  with that version);
- a label moves only to a version that is AVAILABLE and gave the golden answers, in a configuration
  that loads nothing;
- only UnloadVersions takes a version out of memory, and never one that a label needs;
- the serving version, the last good one and whatever the server holds are never removed from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from artifact_sync.records import ReleaseRecord
from serving.rollout_acknowledgement import due_acknowledgement
from serving.rollout_situation import Situation
from serving.rollout_steps import (
    KeepForBake,
    LoadVersions,
    MoveLabels,
    Nothing,
    ProbeVersion,
    PullVersion,
    RecordServing,
    RemoveVersions,
    Step,
    UnloadVersions,
    WriteConfig,
    described,
)


@dataclass(frozen=True)
class Target:
    """The labels that the server shall answer with, and why: the release, or what was accepted before."""

    labels: Mapping[str, int]
    release: ReleaseRecord | None = None
    is_fallback: bool = False

    @property
    def versions(self) -> frozenset[int]:
        """Every version that a label needs."""
        return frozenset(self.labels.values())


def release_labels(release: ReleaseRecord) -> dict[str, int]:
    """Return label → version as a release wants it."""
    shares = (("canary", release.canary), ("shadow", release.shadow))
    return {"stable": release.stable} | {label: share.version for label, share in shares if share is not None}


def plan(situation: Situation) -> Step:
    """Return the next step; `Nothing` and `KeepForBake` end the tick."""
    target = _target(situation)
    for decide in _DECISIONS:
        step = decide(situation, target)
        if step is not None and step not in situation.done:
            return step
    return _rest(situation, target)


def _target(s: Situation) -> Target:
    is_held_back = s.failure is not None or s.withdrawal is not None
    if s.desired is not None and not is_held_back and not s.blocked & set(s.desired.versions):
        return Target(labels=release_labels(s.desired), release=s.desired)
    accepted = s.state.accepted
    if accepted is None:
        # Nothing was ever accepted: what the labels point at, if anything, is left alone.
        return Target(labels=dict(s.labels))
    usable = {label: version for label, version in accepted.labels.items() if s.is_usable(version)}
    if usable == accepted.labels:
        return Target(labels=usable)
    last_good = s.state.last_good
    if "stable" not in usable and last_good is not None and s.is_usable(last_good):
        usable = {"stable": last_good}
    # Without any usable stable version there is nothing better than to keep what is there.
    return Target(labels=usable, is_fallback=True) if "stable" in usable else Target(labels=accepted.labels)


def _make_config_safe(s: Situation, target: Target) -> Step | None:
    return None if s.is_config_safe else WriteConfig()


def _pull(s: Situation, target: Target) -> Step | None:
    if target.release is None and s.state.accepted is None:
        return None
    missing = target.versions - s.verified - s.blocked
    return PullVersion(version=min(missing)) if missing and s.is_bucket_reachable else None


def _load(s: Situation, target: Target) -> Step | None:
    if s.server is None or target.versions <= s.available:
        return None
    if not all(s.is_usable(version) for version in target.versions):
        return None
    held = _held_labels(s)
    keep = target.versions | frozenset(held.values())
    # The gate measured the memory of two versions at once, so one that only bakes makes room.
    make_room = UnloadVersions(versions=tuple(sorted(s.available & keep)), labels=held)
    if s.state.accepted is not None and s.available - keep and make_room not in s.done:
        return make_room
    # A server that somebody set up by hand keeps what it has until the first release is accepted.
    foreign = s.available if s.state.accepted is None else frozenset()
    awaited = tuple(sorted(target.versions - s.available))
    return LoadVersions(versions=tuple(sorted(keep | foreign)), awaited=awaited, labels=held)


def _held_labels(s: Situation) -> dict[str, int]:
    """Return the labels as they are; one that did not answer is held where it was accepted."""
    accepted = s.state.accepted.labels if s.state.accepted is not None else {}
    return {label: version for label, version in {**accepted, **s.labels}.items() if version in s.available}


def _probe(s: Situation, target: Target) -> Step | None:
    unproved = _moving(s, target) - s.proved
    if not unproved or not _is_in_memory(s, target) or not all(s.is_usable(version) for version in unproved):
        return None
    return ProbeVersion(version=min(unproved))


def _move(s: Situation, target: Target) -> Step | None:
    is_needed = target.labels and dict(s.labels) != dict(target.labels)
    if not is_needed or not _is_in_memory(s, target) or not _moving(s, target) <= s.proved:
        return None
    return MoveLabels(versions=tuple(sorted(target.versions | s.available)), labels=dict(target.labels))


def _moving(s: Situation, target: Target) -> frozenset[int]:
    return frozenset(version for label, version in target.labels.items() if s.labels.get(label) != version)


def _is_in_memory(s: Situation, target: Target) -> bool:
    return s.server is not None and target.versions <= s.available


def _record(s: Situation, target: Target) -> Step | None:
    accepted = s.state.accepted
    is_served = _is_in_memory(s, target) and dict(s.labels) == dict(target.labels)
    if is_served and target.release is not None:
        release = target.release
        is_new = accepted is None or accepted.release != release.number or accepted.labels != target.labels
        if is_new or s.state.failure is not None:
            return RecordServing(release.number, release.sha256, dict(target.labels), is_fallback=False)
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
    return due_acknowledgement(s.state, desired=s.desired, wanted=wanted, trouble=s.trouble)


def _mend_last_good(s: Situation, target: Target) -> Step | None:
    last_good = s.state.last_good
    is_damaged = last_good is not None and last_good in s.on_disk - s.verified - s.blocked
    return PullVersion(version=last_good) if last_good is not None and is_damaged and s.is_bucket_reachable else None


def _remove(s: Situation, target: Target) -> Step | None:
    if s.server is None:
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
    _load,
    _probe,
    _move,
    _record,
    _unload,
    _mend_last_good,
    _remove,
    # Last, when everything that can go wrong in a tick has: else two words would take turns.
    _acknowledge,
)


def _rest(s: Situation, target: Target) -> Step:
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
