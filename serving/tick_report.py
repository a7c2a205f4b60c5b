"""What one tick of the agent found, did and left behind: for people, for `--json`, for the log.

Its place in the flow: Agent.tick returns it; `liftgate agent --once` prints it and ends with its
exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

TickOutcome = Literal["serving", "idle", "refused", "failed", "unreachable", "stopped"]


@dataclass(frozen=True)
class StepReport:
    """One step that was tried; `error` is empty when it went well."""

    name: str
    detail: str
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class TickReport:
    """One tick.

    Args:
        model: the model's name.
        host: this host's name.
        at: when the tick began.
        release: the number of the newest trusted release; None when there is none or it is not known now.
        outcome: "serving" what is desired, "idle" (nothing to serve yet), "refused" or "failed" (what
            was served stays), "unreachable" (the bucket or the model server is away), "stopped".
        detail: one or more sentences for a person.
        served: label → version that the model server answers with; None when it cannot be reached.
        loaded: versions in the server's memory that answer.
        steps: what was done, in order.
        seconds: how long all of it took.
        exit_code: 0, or that of the error that kept the host from what is desired.
    """

    model: str
    host: str
    at: datetime
    release: int | None
    outcome: TickOutcome
    detail: str
    served: Mapping[str, int] | None
    loaded: tuple[int, ...]
    steps: tuple[StepReport, ...]
    seconds: float
    exit_code: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "at": self.at.isoformat(), "served": None if self.served is None else dict(self.served)}

    def __str__(self) -> str:
        done = ", ".join(step.name for step in self.steps if not step.error)
        return f"{self.model} on {self.host}: {self.outcome}. {self.detail}" + (f" [{done}]" if done else "")
