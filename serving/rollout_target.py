"""What this host's labels shall point at: the release, or what was accepted before. Pure.

Its place in the flow: rollout.plan asks first where to go, then for the next step there; the
server's start-up file follows the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from artifact_sync.records import ReleaseRecord
from serving.rollout_situation import Situation


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


def is_new(s: Situation, target: Target) -> bool:
    """Return whether the target is a release that this host does not serve as it wants to be served yet."""
    accepted, release = s.state.accepted, target.release
    if release is None:
        return False
    return accepted is None or accepted.release != release.number or accepted.labels != target.labels


def release_labels(release: ReleaseRecord) -> dict[str, int]:
    """Return label → version as a release wants it."""
    shares = (("canary", release.canary), ("shadow", release.shadow))
    return {"stable": release.stable} | {label: share.version for label, share in shares if share is not None}


def labels_without(
    labels: Mapping[str, int], *, last_good: int | None, is_usable: Callable[[int], bool]
) -> dict[str, int]:
    """Return where accepted labels point when some of their versions cannot be used.

    A canary that is gone gives its users the stable version; a stable version that is gone gives
    everybody the last good one. A shadow is nobody's answer and loses its label. Without any usable
    stable version there is nothing better than to keep what is there.
    """
    if is_usable(labels["stable"]):
        usable = {label: version for label, version in labels.items() if is_usable(version)}
        stable = labels["stable"]
    elif last_good is not None and is_usable(last_good):
        usable, stable = {}, last_good
    else:
        return dict(labels)
    wanted = {"stable": stable} | ({"canary": stable} if "canary" in labels else {})
    return wanted | usable


def target_of(s: Situation) -> Target:
    """Return what this host works towards now."""
    is_held_back = s.failure is not None or s.withdrawal is not None or s.turn.word in {"stop", "late"}
    # A host that waits for others serves what it has in the meantime; an emptied server gets that first.
    is_held_back |= s.turn.word == "wait" and s.state.accepted is not None and "stable" not in s.labels
    if s.desired is not None and not is_held_back and not s.blocked & set(s.desired.versions):
        return Target(labels=release_labels(s.desired), release=s.desired)
    accepted = s.state.accepted
    if accepted is None:
        # Nothing was ever accepted: what the labels point at, if anything, is left alone.
        return Target(labels=dict(s.labels))
    labels = labels_without(accepted.labels, last_good=s.state.last_good, is_usable=s.is_usable)
    return Target(labels=labels, is_fallback=labels != accepted.labels)
