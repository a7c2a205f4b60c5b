"""Small real datasets and trainings, for the tests of the trainer.

Loaded by path from the conftest files that need it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact_sync.durable import write_durably
from artifact_sync.records import InputContract
from artifact_sync.run_folder import RunFolder
from training_cluster.datasets.data_manifest import DataManifest
from training_cluster.datasets.shard_writer import ShardWriter

QUICK = """
[model]
architecture = "small-cnn"
widths = [8]
dense_units = 16
dropout = 0.1
[optimization]
epochs = 2
batch_size = 16
learning_rate = 5e-3
label_smoothing = 0.05
[augmentation]
flip_horizontal = true
shift_pixels = 1
[data]
validation_share = 0.2
max_examples = 320
[execution]
checkpoint_every_steps = 7
log_every_steps = 5
"""


@dataclass(frozen=True)
class Training:
    """Everything that one execution of the trainer needs."""

    data_dir: Path
    config_path: Path
    runs_dir: Path

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs_dir / run_id)

    def command(self, run_id: str) -> list[str]:
        return [
            *[sys.executable, "-m", "training_cluster.trainer", "--run-id", run_id, "--model", "digits"],
            *["--run-dir", str(self.folder(run_id).path), "--config", str(self.config_path)],
            *["--data", str(self.data_dir), "--trained-by", "ada"],
        ]

    def spawn(self, run_id: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(run_id),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def execute(self, run_id: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(run_id), capture_output=True, text=True, check=False)


def write_dataset(directory: Path, pixels: np.ndarray, classes: np.ndarray, *, labels: tuple[str, ...]) -> DataManifest:
    """Write shards and manifest of pixels uint8 [n, h, w, c] as dataset build does, without decoding anything."""
    directory.mkdir(parents=True)
    contract = InputContract(height=pixels.shape[1], width=pixels.shape[2], channels=pixels.shape[3])
    digests = [hashlib.sha256(picture.tobytes()).digest() for picture in pixels]
    writer = ShardWriter(directory, expected_count=len(pixels), contract=contract)
    for index in sorted(range(len(pixels)), key=digests.__getitem__):
        writer.add(pixels[index].tobytes(), label=int(classes[index]), source=digests[index])
    counts = np.bincount(classes, minlength=len(labels))
    manifest = DataManifest(
        contract=contract,
        labels=labels,
        shards=writer.close(),
        example_counts={label: int(count) for label, count in zip(labels, counts, strict=True)},
        slice_counts={},
        rejects=(),
        excluded=(),
        duplicates=(),
        feedback_count=0,
        sources_sha256="0" * 64,
        guard_sha256="0" * 64,
    )
    write_durably(directory / "data_manifest.json", manifest.to_json())
    return manifest


def write_digits(directory: Path) -> DataManifest:
    """Write scikit-learn's 1,797 real digits of 8×8 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)[..., None]
    return write_dataset(directory, pixels, digits.target, labels=tuple(str(number) for number in range(10)))
