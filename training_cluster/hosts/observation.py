"""How a run stands, from files and locks alone: on one host, and over all hosts together.

Its place in the flow: `host_side` answers with the first on each host, `attached_run` makes the second of the
answers. Nothing here waits, starts or changes anything, so it may be asked every second and by anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artifact_sync.errors import TrainingError
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import INTERRUPTED_EXIT_CODE, PEER_LOST_EXIT_CODE, TrainingState
from training_cluster.hosts.launch_folder import LaunchFolder

_TAIL_BYTES = 16384
_NO_FIGURES = ("step", "total_steps", "at", "event")


@dataclass(frozen=True)
class HostState:
    """What one host said, the chief first in any list of these.

    Attributes:
        state: None when the host could not be asked.
        problem: why it could not be asked.
    """

    name: str
    state: TrainingState | None
    problem: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it is known that its part of the run is running."""
        return self.state is not None and self.state.status == "running"


def observe(launch: LaunchFolder, run: RunFolder, *, index: int = 0) -> TrainingState:
    """Return how worker `index` of the run stands on this machine."""
    progress = _last_progress(run.path / (f"progress-{index}.jsonl" if index else "progress.jsonl"))
    step, total = int(progress.get("step", 0)), int(progress.get("total_steps", 0))
    if launch.is_running:
        return TrainingState("running", step, (_figures(progress) or "starting") + _restarts(launch.restarts), total)
    # Only the chief's run folder gets a manifest.
    if run.is_complete or (index and launch.exit_code == 0):
        return TrainingState("complete", step, _figures(progress) or "complete", total)
    if not launch.exists:
        return TrainingState("absent", 0, f"run {run.run_id} was never started here")
    return _ended(launch, step=step, total=total)


def joint_state(hosts: Sequence[HostState]) -> TrainingState:
    """Return how a run stands over all its hosts, naming each that is missing.

    Raises:
        TrainingError: the hosts that could be asked do not tell it.
    """
    chief = hosts[0].state
    if chief is not None and (len(hosts) == 1 or chief.status == "complete"):
        return chief
    answered = [(host.name, host.state) for host in hosts if host.state is not None]
    running = [state for _, state in answered if state.status == "running"]
    failed = [f"{name}: {state.detail}" for name, state in answered if state.status == "failed"]
    missing = [text for host in hosts if (text := _missing(host))]
    if not running and not failed and len(answered) < len(hosts):
        raise TrainingError("; ".join(host.problem for host in hosts if host.problem))
    # The chief's figures are those of the whole; another's serve when it cannot be asked.
    shown = chief if chief is not None and chief.step else max((s for _, s in answered), key=lambda state: state.step)
    if failed:
        return TrainingState("failed", shown.step, "; ".join(failed), shown.total_steps)
    if running:
        figures = next((s.detail for s in (chief, *running) if s is not None and s.status == "running"), "")
        return TrainingState("running", shown.step, "; ".join([figures, *missing]), shown.total_steps)
    if all(state.status == "absent" for _, state in answered):
        return replace(shown, status="absent")
    return TrainingState("interrupted", shown.step, _together(answered), shown.total_steps)


def _missing(host: HostState) -> str:
    if host.state is None:
        return host.problem
    # A worker that has done its part ends before the chief, which makes the export.
    return "" if host.state.status in ("running", "complete") else f"{host.name} is missing: {host.state.detail}"


def _together(answered: Sequence[tuple[str, TrainingState]]) -> str:
    details = {state.detail for _, state in answered}
    return details.pop() if len(details) == 1 else "; ".join(f"{name}: {state.detail}" for name, state in answered)


def _ended(launch: LaunchFolder, *, step: int, total: int) -> TrainingState:
    code = launch.exit_code
    if code == INTERRUPTED_EXIT_CODE:
        return TrainingState("interrupted", step, f"interrupted at a checkpoint near step {step}", total)
    if code is None or code < 0:
        how = "killed, or its machine went down" if code is None else f"killed by signal {-code}"
        return TrainingState("interrupted", step, f"{how} after step {step}; it goes on from its checkpoint", total)
    last = " | ".join(line for line in launch.log_tail(3) if line.strip())
    if code == PEER_LOST_EXIT_CODE:
        return TrainingState("interrupted", step, f"lost another host after step {step}: {last or 'no output'}", total)
    return TrainingState("failed", step, f"exit code {code} after step {step}: {last or 'no output'}", total)


def _restarts(count: int) -> str:
    if count == 0:
        return ""
    return "; started again once" if count == 1 else f"; started again {count} times"


def _figures(progress: Mapping[str, object]) -> str:
    """Return the trainer's newest figures as one line for people."""
    shown = {key: value for key, value in progress.items() if key not in _NO_FIGURES}
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in shown.items()
    )


def _last_progress(path: Path) -> dict[str, int | float | str]:
    """Return the last whole line of a progress file; a line that is still being written is passed over."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            progress = json.loads(line)
        except ValueError:
            continue
        if isinstance(progress, dict):
            return progress
    return {}
