"""How versions get into memory: beside the old one, or in its place where both do not fit. Pure.

Its place in the flow: rollout.plan asks it once the files are on the disk. Only here may a version
that a label points at leave the memory, and only after that was announced.
"""

from __future__ import annotations

from serving.rollout_situation import Situation
from serving.rollout_steps import AnnounceSwap, CheckMemory, LoadVersions, Step, SwapOut, UnloadVersions
from serving.rollout_target import Target, is_new


def next_load(s: Situation, target: Target) -> Step | None:
    """Return the next step towards having the target's versions in memory; None when there is none."""
    is_loaded = s.server is None or target.versions <= s.available
    if is_loaded or not all(s.is_usable(version) for version in target.versions):
        return None
    held = held_labels(s)
    keep = target.versions | frozenset(held.values())
    # The gate measured the memory of two versions at once, so one that only bakes makes room.
    make_room = UnloadVersions(versions=tuple(sorted(s.available & keep)), labels=held)
    if s.state.accepted is not None and s.available - keep and make_room not in s.done:
        return make_room
    check = _memory_check(s, target, keep)
    if check is not None and check not in s.done:
        return check
    if check is not None and (s.room is None or s.room.room != "beside"):
        return _next_swap(s, target, check)
    # A server that somebody set up by hand keeps what it has until the first release is accepted.
    foreign = s.available if s.state.accepted is None else frozenset()
    awaited = tuple(sorted(target.versions - s.available))
    return LoadVersions(versions=tuple(sorted(keep | foreign)), awaited=awaited, labels=held)


def _memory_check(s: Situation, target: Target, keep: frozenset[int]) -> CheckMemory | None:
    if not s.rules.is_memory_checked or any(isinstance(step, SwapOut) for step in s.done):
        return None
    outgoing = tuple(sorted((s.available & keep) - target.versions)) if s.state.accepted is not None else ()
    is_return = not is_new(s, target)
    if not outgoing and is_return:
        # An empty server is given what was accepted without a question: there is nothing to lose.
        return None
    awaited = tuple(sorted(target.versions - s.available))
    return CheckMemory(versions=awaited, outgoing=outgoing, is_return=is_return)


def held_labels(s: Situation) -> dict[str, int]:
    """Return the labels as they are; one that did not answer is held where it was accepted."""
    accepted = s.state.accepted.labels if s.state.accepted is not None else {}
    return {label: version for label, version in {**accepted, **s.labels}.items() if version in s.available}


def _next_swap(s: Situation, target: Target, check: CheckMemory) -> Step | None:
    accepted = s.state.accepted
    if s.room is None or s.room.room != "swap" or accepted is None:
        return None
    # With this the old version's users get errors, so it is the roll-out itself and not its preparation.
    if is_new(s, target) and s.turn.word != "go":
        return None
    announced = target.release.number if target.release is not None else accepted.release
    announce = AnnounceSwap(
        release=announced,
        release_sha256=accepted.release_sha256,
        versions=check.versions,
        outgoing=check.outgoing,
        figures=s.room.figures,
        is_bucket_reachable=s.is_bucket_reachable,
    )
    is_announced = any(isinstance(step, AnnounceSwap) for step in s.done)
    if s.state.announced_swap != announced and not is_announced:
        return announce
    labels = {label: version for label, version in held_labels(s).items() if version not in check.outgoing}
    remaining = tuple(sorted(s.available & target.versions))
    return SwapOut(versions=remaining, labels=labels, outgoing=check.outgoing)
