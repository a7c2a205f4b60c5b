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
from training_cluster.datasets.block_index import BLOCK_DTYPE, write_blocks
from training_cluster.datasets.data_manifest import DataManifest, HashFile, IndexedDataManifest, ShardEntry
from training_cluster.datasets.example_table import NO_VALUE, ExampleTable, write_examples
from training_cluster.datasets.shard_writer import ShardWriter
from training_cluster.datasets.tfrecord import example, frame

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


def write_indexed_dataset(
    directory: Path,
    pixels: np.ndarray,
    classes: np.ndarray,
    *,
    labels: tuple[str, ...],
    starts_group: np.ndarray | None = None,
    slices: dict[str, list[str]] | None = None,
    shards: int = 4,
    block_examples: int = 5,
) -> IndexedDataManifest:
    """Write a dataset with small blocks; examples keep their order, so that a test can foretell what lies where."""
    directory.mkdir(parents=True)
    entries, rows = [], []
    for number, chosen in enumerate(np.array_split(np.arange(len(pixels)), shards)):
        records = [
            frame(example(pixels=pixels[index].tobytes(), label=int(classes[index]), source=bytes(32)))
            for index in chosen
        ]
        offset = 0
        for begin in range(0, len(records), block_examples):
            block = b"".join(records[begin : begin + block_examples])
            count = len(records[begin : begin + block_examples])
            rows.append((number, chosen[0] + begin, count, offset, len(block), hashlib.sha256(block).digest()))
            offset += len(block)
        data = b"".join(records)
        sha256 = hashlib.sha256(data).hexdigest()
        (directory / f"{sha256}.tfrecord").write_bytes(data)
        entries.append(ShardEntry(path=f"{sha256}.tfrecord", size_bytes=len(data), sha256=sha256, count=len(chosen)))
    starts = np.ones(len(pixels), np.bool_) if starts_group is None else starts_group
    values = {name: tuple(sorted(set(column) - {""})) for name, column in (slices or {}).items()}
    codes = {
        name: np.array([values[name].index(value) if value else NO_VALUE for value in column], np.uint16)
        for name, column in (slices or {}).items()
    }
    table = ExampleTable(classes.astype(np.uint16), starts, codes)
    counts = np.bincount(classes, minlength=len(labels))
    manifest = IndexedDataManifest(
        contract=InputContract(height=pixels.shape[1], width=pixels.shape[2], channels=pixels.shape[3]),
        labels=labels,
        shards=tuple(entries),
        example_counts={label: int(count) for label, count in zip(labels, counts, strict=True)},
        slice_counts={
            name: {value: column.count(value) for value in values[name]} for name, column in (slices or {}).items()
        },
        rejects=(),
        excluded=(),
        duplicates=(),
        feedback_count=0,
        sources_sha256="0" * 64,
        guard_sha256="0" * 64,
        hashes=_no_hashes(directory, len(pixels)),
        blocks=write_blocks(directory, np.array(rows, BLOCK_DTYPE)),
        examples=write_examples(directory, table, slice_values=values),
        near_duplicates=(),
        sources={},
        holdout_count=0,
    )
    write_durably(directory / "data_manifest.json", manifest.to_json())
    return manifest


def _no_hashes(directory: Path, count: int) -> HashFile:
    data = bytes(48 * count)
    sha256 = hashlib.sha256(data).hexdigest()
    (directory / f"{sha256}.hashes").write_bytes(data)
    return HashFile(path=f"{sha256}.hashes", sha256=sha256, count=count, hash_name="none")
