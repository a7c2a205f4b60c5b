"""What a trial is about, as files in a directory that both sides of the walls know.

Its place in the flow: trial.py writes it outside, trial_child.py reads it inside.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.records import GoldenExamples, InputContract

READY = "ready"
"""The stage that a trial reaches before it touches the model; what goes wrong earlier is not the model's doing."""

_JOB, _GOLDEN, _EXPORT = "job.json", "golden.json", "export"


@dataclass(frozen=True)
class TrialJob:
    """A copy of an export, the contract and the number of classes to hold it to, and pictures that it knows."""

    export: Path
    contract: InputContract
    classes: int
    golden: GoldenExamples | None

    def write(self, directory: Path) -> None:
        """Copy all of it into a new directory.

        Raises:
            OSError: the export cannot be copied (shutil.Error is one too).
        """
        directory.mkdir()
        shutil.copytree(self.export, directory / _EXPORT, symlinks=True, copy_function=shutil.copyfile)
        fields = {"contract": self.contract.model_dump(mode="json"), "classes": self.classes}
        (directory / _JOB).write_text(json.dumps(fields), encoding="utf-8")
        if self.golden is not None:
            (directory / _GOLDEN).write_bytes(self.golden.to_json())

    @classmethod
    def read(cls, directory: Path) -> TrialJob:
        """Return what `write` has left in a directory."""
        fields = json.loads((directory / _JOB).read_bytes())
        golden = directory / _GOLDEN
        return cls(
            export=directory / _EXPORT,
            contract=InputContract.model_validate(fields["contract"]),
            classes=int(fields["classes"]),
            golden=GoldenExamples.from_json(golden.read_bytes()) if golden.is_file() else None,
        )
