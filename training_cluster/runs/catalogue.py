"""All runs of a folder with their state, as far as this machine's files tell it.

Its place in the flow: `liftgate runs list` and `show` print it. There is no index to go stale: a run's
state is which files its folder holds, and whether its process still holds its lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from artifact_sync.errors import LiftgateError, NotFoundError
from artifact_sync.records import RunRecord
from artifact_sync.run_folder import RunFolder
from training_cluster.hosts.attachment import AttachedHost, Attachment, attachment_path
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.observation import HostState, joint_state, observe
from training_cluster.runs.run import TrainingStart


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run.

    Attributes:
        folder: where it lies.
        status: a training's status, "elsewhere" when it goes on on another host, "unreadable".
        detail: one sentence about the status.
        start: what it was begun with; None when that is not here.
        record: what came out; None before it is complete.
        variants: the run ids of its further exports.
    """

    folder: RunFolder
    status: str
    detail: str
    start: TrainingStart | None
    record: RunRecord | None
    variants: tuple[str, ...]

    @property
    def started_at(self) -> datetime | None:
        """When it was first started, as far as that is known."""
        known = self.record or self.start
        return None if known is None else known.started_at


def list_runs(runs_dir: Path) -> tuple[RunSummary, ...]:
    """Return all runs of a folder, the newest first; those whose start is not known come last.

    Raises:
        NotFoundError: there is no such folder.
    """
    try:
        folders = [entry for entry in runs_dir.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no folder {runs_dir}, so there are no runs. `liftgate train` makes one; [training] runs_dir "
            "says where."
        ) from None
    runs = [summarize(RunFolder(folder)) for folder in folders]
    return tuple(sorted(runs, key=lambda run: (-_seconds(run.started_at), run.folder.run_id)))


def summarize(folder: RunFolder) -> RunSummary:
    """Return what is known of one run; what cannot be read is said, not raised."""
    try:
        start = _start(folder)
        record = folder.read_run() if folder.is_complete else None
        status, detail = _standing(folder)
    except LiftgateError as error:
        return RunSummary(folder, "unreadable", str(error), None, None, ())
    return RunSummary(folder, status, detail, start, record, tuple(_variants(folder)))


def _start(folder: RunFolder) -> TrainingStart | None:
    try:
        return TrainingStart.from_json((folder.path / "started.json").read_bytes())
    except FileNotFoundError:
        return None


def _standing(folder: RunFolder) -> tuple[str, str]:
    """Return status and detail; hosts are not asked, since a list must not wait for them."""
    runs_dir = folder.path.parent
    attachment = None if folder.is_complete else Attachment.load(attachment_path(runs_dir, folder.run_id))
    if attachment is None:
        state = observe(LaunchFolder(runs_dir / ".launch" / folder.run_id), folder)
    elif any(host.connection == "ssh" for host in attachment.hosts):
        names = ", ".join(host.name for host in attachment.hosts)
        return "elsewhere", f"on {names}; `liftgate train --attach {folder.run_id}` asks there"
    else:
        state = joint_state([_host_state(host) for host in attachment.hosts])
    return state.status, state.detail


def _host_state(host: AttachedHost) -> HostState:
    state = observe(LaunchFolder(Path(host.launch_dir)), RunFolder(Path(host.run_dir)), index=host.index)
    return HostState(host.name, state)


def _variants(folder: RunFolder) -> Iterator[str]:
    if folder.variants.is_dir():
        yield from (name.name for name in sorted(folder.variants.iterdir()) if RunFolder(name).is_complete)


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
