"""A person's wish to return this host to its version before, as a file that outlives every process.

Its place in the flow: `liftgate agent --back WHY` writes it; the agent that runs looks for it ten
times a second, between the steps and in the waits of a tick too, and obeys before it asks the bucket.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from artifact_sync.canonical import Record, Timestamp
from artifact_sync.durable import write_durably
from artifact_sync.errors import RecordError, RefusedError
from artifact_sync.records import ModelName, Number
from serving.agent_state import AgentState, read_state

_NAME = ".back-request.json"


class BackRequest(Record):
    """Leave `release` and go back to the version before it; another release is not meant."""

    schema_name: ClassVar[str] = "liftgate.back-request/1"
    model: ModelName
    release: Number
    reason: str
    at: Timestamp


class BackRequests:
    """The request of one model on one host; there is one at a time."""

    def __init__(self, model_dir: Path) -> None:
        self._path = model_dir / _NAME
        self._state_path = model_dir / "state.json"

    def is_pending(self) -> bool:
        """Return whether a request waits to be obeyed."""
        return self._path.exists()

    def write(self, request: BackRequest) -> None:
        """Make the request durable; it takes the place of an earlier one."""
        write_durably(self._path, request.to_json())

    def read(self) -> BackRequest | None:
        """Return the request; None when there is none that can be understood."""
        try:
            return BackRequest.from_json(self._path.read_bytes())
        except (FileNotFoundError, RecordError):
            return None

    def is_done(self, *, release: int) -> bool:
        """Return whether the agent has obeyed and the labels have left `release`; reads files only."""
        try:
            state = read_state(self._state_path.read_bytes())
        except (FileNotFoundError, RecordError):
            return False
        return not self.is_pending() and is_returned(state, release=release)

    def remove(self) -> None:
        """Forget the request: it was obeyed, or is about a release that is gone."""
        self._path.unlink(missing_ok=True)


def is_returned(state: AgentState, *, release: int) -> bool:
    """Return whether the labels have left what was withdrawn of `release`."""
    accepted, withdrawal = state.accepted, state.withdrawal
    if accepted is None or accepted.release != release:
        return True
    if withdrawal is None or withdrawal.release != release:
        return False
    return accepted.labels.get(withdrawal.label) != withdrawal.version


def returnable_release(model_dir: Path, *, model: str) -> int:
    """Return the release that this host can leave for the version before; changes nothing.

    Raises:
        RefusedError: there is no version to go back to.
    """
    try:
        state = read_state((model_dir / "state.json").read_bytes())
    except (FileNotFoundError, RecordError):
        state = AgentState(model=model)
    if state.accepted is None or state.last_good in {None, state.accepted.stable}:
        raise RefusedError("Return refused: this host has no other good version. Run `liftgate rollback` instead.")
    return state.accepted.release
