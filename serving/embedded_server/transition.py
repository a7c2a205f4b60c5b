"""The two transitions from the versions in memory to the wanted ones, one step at a time.

Its place in the flow: pure; the lifecycle asks for steps until there is none, and asks again after
each change. Availability-preserving loads the new version before the old one goes, so both are in
memory for a while; resource-preserving lets the old one go first, so nothing answers for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias


class Stage(Enum):
    """How far a version has come; the states that clients see say less."""

    NEW = "new"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    ENDED = "ended"


@dataclass(frozen=True)
class Step:
    """Load or unload one version."""

    action: Literal["load", "unload"]
    version: int


Transition: TypeAlias = "Callable[[Mapping[int, Stage], Set[int]], Step | None]"


def availability_preserving(stages: Mapping[int, Stage], wanted: Set[int]) -> Step | None:
    """Return the next step for one model that never stops answering, or None when there is nothing to do now.

    Args:
        stages: every version the server knows.
        wanted: the versions that the policy wants, whether or not they are loaded.
    """
    unwanted_ready = _unwanted_ready(stages, wanted)
    is_replaced = not wanted or any(stages.get(version) is Stage.READY for version in wanted)
    if unwanted_ready and (is_replaced or len(unwanted_ready) > 1):
        return Step("unload", unwanted_ready[0])
    return _load_highest(stages, wanted)


def resource_preserving(stages: Mapping[int, Stage], wanted: Set[int]) -> Step | None:
    """Return the next step for one model of which old and new do not fit into memory together.

    Args:
        stages: every version the server knows.
        wanted: the versions that the policy wants, whether or not they are loaded.
    """
    unwanted_ready = _unwanted_ready(stages, wanted)
    if unwanted_ready:
        return Step("unload", unwanted_ready[0])
    is_leaving = any(
        stage in (Stage.LOADING, Stage.UNLOADING) and (version not in wanted or stage is Stage.UNLOADING)
        for version, stage in stages.items()
    )
    return None if is_leaving else _load_highest(stages, wanted)


def _unwanted_ready(stages: Mapping[int, Stage], wanted: Set[int]) -> list[int]:
    return sorted(version for version, stage in stages.items() if stage is Stage.READY and version not in wanted)


def _load_highest(stages: Mapping[int, Stage], wanted: Set[int]) -> Step | None:
    new = [version for version in wanted if stages.get(version) is Stage.NEW]
    return Step("load", max(new)) if new else None
