"""The availability-preserving transition: what to do next so that a model never stops answering.

Its place in the flow: pure; the lifecycle asks for steps until there is none, and asks again after
each change. A new version is loaded before the old one goes, so both are in memory for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import Literal


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


def next_step(stages: Mapping[int, Stage], wanted: Set[int]) -> Step | None:
    """Return the next step for one model, or None when there is nothing to do now.

    Args:
        stages: every version the server knows.
        wanted: the versions that the policy wants, whether or not they are loaded.
    """
    unwanted_ready = sorted(
        version for version, stage in stages.items() if stage is Stage.READY and version not in wanted
    )
    is_replaced = not wanted or any(stages.get(version) is Stage.READY for version in wanted)
    if unwanted_ready and (is_replaced or len(unwanted_ready) > 1):
        return Step("unload", unwanted_ready[0])
    new = [version for version in wanted if stages.get(version) is Stage.NEW]
    return Step("load", max(new)) if new else None
