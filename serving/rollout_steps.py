"""The steps of which every roll-out is made, as plain data.

Its place in the flow: rollout.plan decides on one, step_runner.StepRunner carries it out, and the
tick's report names it. Every step is safe to repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from serving.agent_state import Cause, Label


@dataclass(frozen=True)
class WriteConfig:
    """Write the file that the server reads when it starts, with verified versions only."""

    def __str__(self) -> str:
        return "the model server's start-up file"


@dataclass(frozen=True)
class PullVersion:
    """Bring a version's directory to the disk, or mend it, and verify every digest."""

    version: int

    def __str__(self) -> str:
        return f"version {self.version}"


@dataclass(frozen=True)
class LoadVersions:
    """Have the server hold `versions`, and wait for `awaited` to be AVAILABLE. No label moves."""

    versions: tuple[int, ...]
    awaited: tuple[int, ...]
    labels: Mapping[str, int]

    def __str__(self) -> str:
        return f"version {_listed(self.awaited)}"


@dataclass(frozen=True)
class CheckMemory:
    """See whether `versions` fit into the server's memory beside what is there, or without `outgoing`.

    A `is_return` is away from a version that must go: it is not refused for want of memory.
    """

    versions: tuple[int, ...]
    outgoing: tuple[int, ...] = ()
    is_return: bool = False

    def __str__(self) -> str:
        return f"version {_listed(self.versions)}"


@dataclass(frozen=True)
class AnnounceSwap:
    """Say, before it is done, that `outgoing` leaves the memory before `versions` are loaded."""

    release: int
    release_sha256: str
    versions: tuple[int, ...]
    outgoing: tuple[int, ...]
    figures: str
    is_bucket_reachable: bool

    def __str__(self) -> str:
        return f"version {_listed(self.outgoing)} makes room for version {_listed(self.versions)}"


@dataclass(frozen=True)
class SwapOut:
    """Take versions that labels point at out of memory; requests to those labels fail until the next move."""

    versions: tuple[int, ...]
    labels: Mapping[str, int]
    outgoing: tuple[int, ...]

    def __str__(self) -> str:
        return f"version {_listed(self.outgoing)}"


@dataclass(frozen=True)
class ProbeVersion:
    """Replay the golden examples on the server against this very version."""

    version: int

    def __str__(self) -> str:
        return f"version {self.version}"


@dataclass(frozen=True)
class MeasureLatency:
    """Time the version and the served one in turn on this server; `served` is None when none is."""

    version: int
    served: int | None

    def __str__(self) -> str:
        return f"version {self.version}" + (f" against version {self.served}" if self.served is not None else "")


@dataclass(frozen=True)
class MoveLabels:
    """Point the labels at versions that are AVAILABLE and proved, and see that they answer."""

    versions: tuple[int, ...]
    labels: Mapping[str, int]

    def __str__(self) -> str:
        return described(self.labels)


@dataclass(frozen=True)
class RecordServing:
    """Write down durably what is served now: first the server's start-up file, then the state."""

    release: int
    release_sha256: str
    labels: Mapping[str, int]
    is_fallback: bool
    is_watched: bool = True

    def __str__(self) -> str:
        return described(self.labels)


@dataclass(frozen=True)
class UnloadVersions:
    """Have the server hold `versions` only; all others leave its memory."""

    versions: tuple[int, ...]
    labels: Mapping[str, int]

    def __str__(self) -> str:
        return f"all but version {_listed(self.versions)}" if self.versions else "all"


@dataclass(frozen=True)
class RemoveVersions:
    """Remove directories that nobody needs, and the paths that interrupted steps left behind."""

    versions: tuple[int, ...]
    leftovers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"version {_listed(self.versions)}" if self.versions else "what interrupted steps left"


@dataclass(frozen=True)
class Acknowledge:
    """Say in the bucket what this host serves, or why it could not."""

    release: int
    release_sha256: str
    outcome: Literal["serving", "refused", "failed"]
    cause: Cause | Literal[""]
    detail: str

    def __str__(self) -> str:
        return f"release {self.release}: {self.outcome}"


@dataclass(frozen=True)
class Withdraw:
    """Write down that the accepted release is not served here again, and why; the labels go back next."""

    label: Label
    version: int
    cause: Literal["withdrawn", "traffic", "golden"]
    reason: str

    def __str__(self) -> str:
        return f"{self.label} = version {self.version}"


@dataclass(frozen=True)
class WaitForHosts:
    """All is ready; other hosts move their labels first."""

    reason: str
    labels: Mapping[str, int]

    def __str__(self) -> str:
        return f"{described(self.labels)[:1].upper()}{described(self.labels)[1:]} is ready and waits: {self.reason}."


@dataclass(frozen=True)
class KeepForBake:
    """All is as it should be; the version before stays in memory until then."""

    version: int
    until: datetime
    labels: Mapping[str, int]

    def __str__(self) -> str:
        served, until = described(self.labels), f"{self.until:%H:%M:%S} UTC"
        return f"{served[:1].upper()}{served[1:]} is served; version {self.version} stays in memory until {until}."


@dataclass(frozen=True)
class Nothing:
    """There is nothing to do, and why."""

    reason: str

    def __str__(self) -> str:
        return f"{self.reason[:1].upper()}{self.reason[1:]}."


Step = (
    WriteConfig
    | PullVersion
    | CheckMemory
    | AnnounceSwap
    | SwapOut
    | LoadVersions
    | ProbeVersion
    | MeasureLatency
    | MoveLabels
    | RecordServing
    | UnloadVersions
    | RemoveVersions
    | Acknowledge
    | Withdraw
    | WaitForHosts
    | KeepForBake
    | Nothing
)


def described(labels: Mapping[str, int]) -> str:
    """Return labels as people read them: "stable = version 2, canary = version 3"."""
    return ", ".join(f"{label} = version {version}" for label, version in labels.items())


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))
