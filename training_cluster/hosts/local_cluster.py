"""Training on this very machine, in a process that lives on when this one ends.

Its place in the flow: the `Cluster` for a laptop or a single GPU machine without Ansible. What is
known of a run lies in files, so a later process finds it, follows it and stops it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from artifact_sync.errors import TrainingError
from artifact_sync.manifest import verify_manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingRequest, TrainingState
from training_cluster.config.training_config import load_config
from training_cluster.datasets.data_manifest import load_data_manifest
from training_cluster.hosts.detached import LaunchFolder, start_detached, stop_detached
from training_cluster.hosts.host_side import observe

_STOP_GRACE_SECONDS = 30.0


class LocalCluster:
    """One machine: this one.

    Args:
        python: the interpreter that trains, by default this one.
        stop_grace_seconds: how long a stopped training may take for its checkpoint before it is killed.
    """

    def __init__(self, *, python: str = sys.executable, stop_grace_seconds: float = _STOP_GRACE_SECONDS) -> None:
        self._python = python
        self._stop_grace_seconds = stop_grace_seconds

    def start(self, request: TrainingRequest) -> None:
        """Begin the run, go on with it, or leave it alone when it is running or complete.

        Raises:
            SettingsError: the configuration is wrong.
            NotFoundError: there is no dataset.
            TrainingError: the process did not come up.
        """
        if request.run_folder.is_complete:
            return
        # What can be refused at once is not left to a log file.
        load_config(request.config_path)
        load_data_manifest(Path(request.data))
        start_detached(_launch_folder(request), self._command(request), name=f"liftgate-train-{request.run_id}")

    def state(self, request: TrainingRequest) -> TrainingState:
        """Return what is known of the run from its files."""
        return observe(_launch_folder(request), request.run_folder)

    def collect(self, request: TrainingRequest) -> RunFolder:
        """Return the run folder, which is here already, verified.

        Raises:
            TrainingError: the run is not complete.
            IntegrityError: the export is not what its manifest says.
        """
        folder = request.run_folder
        if not folder.is_complete:
            state = self.state(request)
            raise TrainingError(f"Run {request.run_id} cannot be collected, it is {state.status}: {state.detail}.")
        verify_manifest(folder.export, folder.read_manifest())
        return folder

    def stop(self, request: TrainingRequest) -> None:
        """Ask the run to checkpoint and end; kill it when it does not."""
        stop_detached(_launch_folder(request), grace_seconds=self._stop_grace_seconds)

    def _command(self, request: TrainingRequest) -> Sequence[str]:
        return (
            *(self._python, "-m", "training_cluster.trainer"),
            *("--run-dir", str(request.run_folder.path.resolve()), "--run-id", request.run_id),
            *("--model", request.model, "--trained-by", request.trained_by),
            *("--config", str(request.config_path.resolve()), "--data", str(Path(request.data).resolve())),
        )


def _launch_folder(request: TrainingRequest) -> LaunchFolder:
    return LaunchFolder(request.runs_dir.resolve() / ".launch" / request.run_id)
