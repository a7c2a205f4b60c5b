"""Where things lie in a run folder: `runs/<run_id>/`, state = which files exist.

Its place in the flow: training_cluster fills it, validation adds report, verdict and approvals,
promotion reads it. It lives here because both may import this package and not each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifact_sync.errors import NotFoundError
from artifact_sync.records import Manifest, RunRecord

GOLDEN_EXAMPLES_PATH = "assets.extra/golden_examples.json"
"""Where the golden examples lie inside an export."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; properties are paths, whether or not the file exists yet."""

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name is the run's id."""
        return self.path.name

    @property
    def run_json(self) -> Path:
        """What was executed (RunRecord), written when training ended."""
        return self.path / "run.json"

    @property
    def data_manifest_json(self) -> Path:
        """What the dataset was made of; runs that were begun before there was a copy have none."""
        return self.path / "data_manifest.json"

    @property
    def export(self) -> Path:
        """The SavedModel directory."""
        return self.path / "export"

    @property
    def manifest_json(self) -> Path:
        """The export's Manifest; it is written last, so its presence means that the run is complete."""
        return self.path / "manifest.json"

    @property
    def report_json(self) -> Path:
        """The measurements of the gate."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """The same, for people."""
        return self.path / "report.html"

    @property
    def policy_json(self) -> Path:
        """The policy that the verdict applied; its digest stands in the verdict."""
        return self.path / "policy.json"

    @property
    def verdict_json(self) -> Path:
        """The gate's decision."""
        return self.path / "verdict.json"

    @property
    def approvals(self) -> Path:
        """One file an approver."""
        return self.path / "approvals"

    @property
    def events(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "events"

    @property
    def checkpoints(self) -> Path:
        """The newest checkpoints; they stay on the host that trains."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """What `liftgate evaluate` found, one file a checkpoint."""
        return self.path / "evaluations"

    @property
    def control(self) -> Path:
        """Wishes to a running training, one file each; the trainer removes those that it has fulfilled."""
        return self.path / "control"

    @property
    def variants(self) -> Path:
        """Further exports of the same weights, each a run folder of its own: `variants/<run_id>-<variant>/`."""
        return self.path / "variants"

    @property
    def is_complete(self) -> bool:
        """Whether training and export ended."""
        return self.manifest_json.is_file()

    def read_run(self) -> RunRecord:
        """Return run.json.

        Raises:
            NotFoundError: the run is not complete.
            RecordError: run.json is malformed.
        """
        return RunRecord.from_json(self._read(self.run_json))

    def read_manifest(self) -> Manifest:
        """Return manifest.json.

        Raises:
            NotFoundError: the run is not complete.
            RecordError: manifest.json is malformed.
        """
        return Manifest.from_json(self._read(self.manifest_json))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"Run {self.run_id} has no {path.name} in {self.path}: it does not exist or is not complete. "
                f"Run `liftgate train --run-id {self.run_id}` to start it or to go on with it."
            ) from None
