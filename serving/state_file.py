"""`state.json` on the disk: read at the start of a tick, written durably after each change.

Its place in the flow: the agent's memory between ticks and over kills; agent_state says what it is.
"""

from __future__ import annotations

import errno
from pathlib import Path

from artifact_sync.durable import write_durably
from artifact_sync.errors import RecordError
from serving.agent_state import AgentState, read_state


class StateFile:
    """The state and the file that holds it; `state` is what was last read or written."""

    def __init__(self, path: Path, *, model: str) -> None:
        self.path = path
        self._model = model
        self.state = AgentState(model=model)

    def load(self) -> str:
        """Read the file; return a warning when it could not be believed and was set aside, else ''."""
        self.state = AgentState(model=self._model)
        try:
            state = read_state(self.path.read_bytes())
            if state.model != self._model:
                raise RecordError(f"It is of model {state.model}.")
        except FileNotFoundError:
            return ""
        except RecordError as error:
            # What is served is what the server answers; forgetting the rest costs a look, not an outage.
            aside = self.path.with_name(f"{self.path.name}.unreadable")
            self.path.replace(aside)
            return f"{self.path} could not be believed and was set aside as {aside.name}: {error}"
        self.state = state
        return ""

    def write(self, state: AgentState) -> None:
        """Make `state` the one that counts; an unchanged one is not written again."""
        if state != self.state or not self.path.exists():
            write_durably(self.path, state.to_json())
        self.state = state

    def write_if_room(self, state: AgentState) -> None:
        """Do as `write`; on a full disk remember it in this process only.

        What is written this way makes the next tick cheaper or tidier. A host whose disk is full
        must still be able to bring its model server back.
        """
        try:
            self.write(state)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self.state = state
