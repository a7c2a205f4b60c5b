"""The seam to whatever executes a training: ask for a run, look at it, fetch it, stop it.

Its place in the flow: `liftgate train` builds a request and talks to a `Cluster`; `LocalCluster`
and `AnsibleCluster` implement it under one contract suite. A run's state is what its folder says,
so every call may be repeated, from another process and after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from artifact_sync.errors import RefusedError
from artifact_sync.run_folder import RunFolder

TrainingStatus = Literal["absent", "running", "complete", "failed", "interrupted"]
"""absent: never started; running: a process works on it; complete: manifest.json is there;
failed: it ended without a candidate; interrupted: it ended at a checkpoint and can be started again."""

Spread = Literal["device", "host", "hosts"]
"""device: one device; host: all devices of one host; hosts: all devices of all hosts."""

Wish = Literal["profile", "histograms"]
"""What a running training does once when it is asked: a profiler window, histograms of weights and gradients."""

INTERRUPTED_EXIT_CODE = 75
"""The trainer's exit code after SIGTERM: a checkpoint is written, starting again resumes (EX_TEMPFAIL)."""

PEER_LOST_EXIT_CODE = 76
"""The trainer's exit code when another worker ended or cannot be reached: starting all again resumes (EX_PROTOCOL)."""


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained, from what, into which run.

    Attributes:
        run_id: names the run; the same id again re-attaches or resumes, never starts a second one.
        model: the model's name.
        config_path: the training's TOML file.
        data: where data_manifest.json and its shards lie: a folder, or s3://bucket/prefix to stream from.
        runs_dir: the folder that holds one folder a run, on this machine.
        trained_by: who asked for it; the gate wants another person as approver.
        spread: over what it is spread: one device, all devices of one host, all hosts.
    """

    run_id: str
    model: str
    config_path: Path
    data: str
    runs_dir: Path
    trained_by: str
    spread: Spread = "host"

    @property
    def streams(self) -> bool:
        """Whether the data is read from an object store and not from a folder."""
        return self.data.startswith("s3://")

    @property
    def run_folder(self) -> RunFolder:
        """Where the run lies, or will lie, on this machine."""
        return RunFolder(self.runs_dir / self.run_id)


@dataclass(frozen=True)
class TrainingState:
    """What is known of a run now.

    Attributes:
        status: see `TrainingStatus`.
        step: training steps done, 0 before the first.
        detail: one sentence for people: figures while it runs, the reason when it failed.
        total_steps: training steps in all, 0 as long as it is not known.
    """

    status: TrainingStatus
    step: int
    detail: str
    total_steps: int = 0


class Cluster(Protocol):
    """A place that trains."""

    def start(self, request: TrainingRequest) -> None:
        """Begin the run, or go on with it, or leave it alone when it is running or complete.

        Raises:
            PreflightError: the hosts are not fit to train; the message names every failure.
        """
        ...

    def state(self, request: TrainingRequest) -> TrainingState:
        """Return what is known of the run; it starts nothing."""
        ...

    def collect(self, request: TrainingRequest) -> RunFolder:
        """Bring the complete run to `runs_dir` on this machine, verified against its manifest.

        Raises:
            TrainingError: the run is not complete.
            IntegrityError: the files are not what the manifest says.
        """
        ...

    def stop(self, request: TrainingRequest) -> None:
        """Ask the run to checkpoint and end, then make it end; stopping a run that is not running is fine."""
        ...

    def kill(self, request: TrainingRequest) -> None:
        """End the run at once, without a checkpoint; it can be started again from its newest one."""
        ...

    def wish(self, request: TrainingRequest, wish: Wish, *, steps: int = 0) -> None:
        """Have the running training fulfil a wish at its next look; `steps` is the length of a profile.

        Raises:
            RefusedError: the run does not run.
        """
        ...


def never_started(request: TrainingRequest, wish: Wish) -> RefusedError:
    """Return the error of a wish for a run that no process can fulfil."""
    return RefusedError(
        f"The wish for {wish} is refused: run {request.run_id} was never started from {request.runs_dir}. "
        "Start it, then wish again."
    )


def spread_over(spread: Spread, *, hosts: int) -> Spread:
    """Return what the trainer is told: all hosts, when there is one, are all devices of that host."""
    return "host" if hosts == 1 and spread == "hosts" else spread
