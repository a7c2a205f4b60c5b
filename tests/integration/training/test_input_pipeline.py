"""Batches from shards: every example once an epoch, the same after a restart, shared out without overlap."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact_sync.errors import SettingsError
from training_cluster.config.tables import AugmentationTable, DataTable, ExecutionTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.datasets.data_manifest import load_data_manifest
from training_cluster.inputs.pipeline import ExampleSplit, ReplicaShare, training_batches, validation_batches

_PLAIN = TrainingConfig(optimization=OptimizationTable(batch_size=20), data=DataTable(validation_share=0.1))
_AUGMENTED = _PLAIN.model_copy(update={"augmentation": AugmentationTable(flip_horizontal=True, shift_pixels=2)})


@pytest.fixture
def numbered(training_lab: Any, tmp_path: Path) -> Path:
    """210 pictures, each of which bears its number: 189 for training, 21 for validation."""
    pixels = np.arange(210, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
    directory = tmp_path / "numbered"
    training_lab.write_dataset(directory, pixels, np.arange(210) % 3, labels=("a", "b", "c"))
    return directory


def _split(directory: Path, config: TrainingConfig = _PLAIN) -> ExampleSplit:
    return ExampleSplit(directory, load_data_manifest(directory), config)


def _batches(split: ExampleSplit, config: TrainingConfig = _PLAIN, **arguments: Any) -> list[tuple[Any, Any]]:
    return [(pixels.numpy(), labels.numpy()) for pixels, labels in training_batches(split, config, **arguments)]


def _numbers(batches: list[tuple[Any, Any]]) -> list[list[int]]:
    return [pixels[:, 0, 0, 0].tolist() for pixels, _ in batches]


def test_training_and_validation_share_no_example_and_leave_none_out(numbered: Path) -> None:
    split = _split(numbered)
    training = Counter(number for batch in _numbers(_batches(split, epoch=0)) for number in batch)
    validation = Counter(number for pixels, _ in validation_batches(split) for number in pixels.numpy()[:, 0, 0, 0])
    assert (split.training_count, split.validation_count, split.steps_per_epoch) == (189, 21, 9)
    assert set(training.values()) == {1}
    assert len(training) == 180
    assert len(validation) == 21
    assert not training.keys() & validation.keys()


def test_labels_stay_with_their_pictures_in_a_new_order_each_epoch(numbered: Path) -> None:
    split = _split(numbered)
    epochs = [_batches(split, epoch=epoch) for epoch in (0, 1)]
    for pixels, labels in [batch for epoch in epochs for batch in epoch]:
        assert pixels.dtype == np.uint8
        assert pixels.shape == (20, 4, 6, 1)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0] % 3, labels)
    assert _numbers(epochs[0]) != _numbers(epochs[1])
    assert _numbers(epochs[0]) == _numbers(_batches(split, epoch=0))


def test_another_seed_gives_another_order(numbered: Path) -> None:
    other = _PLAIN.model_copy(update={"execution": ExecutionTable(seed=2)})
    assert _numbers(_batches(_split(numbered), epoch=0)) != _numbers(_batches(_split(numbered), other, epoch=0))


def test_a_restart_in_the_middle_of_an_epoch_sees_the_very_batches_that_were_left(numbered: Path) -> None:
    split = _split(numbered)
    whole = _batches(split, _AUGMENTED, epoch=3)
    rest = _batches(split, _AUGMENTED, epoch=3, first_step=4)
    assert len(rest) == len(whole) - 4
    for (pixels, labels), (expected_pixels, expected_labels) in zip(rest, whole[4:], strict=True):
        np.testing.assert_array_equal(pixels, expected_pixels)
        np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize(("pipelines", "replicas"), [(2, 1), (1, 4), (5, 2)])
def test_a_global_batch_holds_the_same_examples_over_any_number_of_replicas(
    numbered: Path, pipelines: int, replicas: int
) -> None:
    split = _split(numbered)
    expected = [sorted(batch) for batch in _numbers(_batches(split, epoch=0))]
    shares = [
        _numbers(_batches(split, epoch=0, share=ReplicaShare(pipelines, pipeline, replicas)))
        for pipeline in range(pipelines)
    ]
    for step, batch in enumerate(expected):
        parts = [share[step * replicas + replica] for share in shares for replica in range(replicas)]
        assert {len(part) for part in parts} == {20 // (pipelines * replicas)}
        assert sorted(number for part in parts for number in part) == batch


def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(numbered: Path) -> None:
    with pytest.raises(SettingsError, match="Use a multiple of 3"):
        training_batches(_split(numbered), _PLAIN, epoch=0, share=ReplicaShare(replicas=3))


def test_fewer_examples_than_a_batch_are_refused(numbered: Path) -> None:
    config = _PLAIN.model_copy(update={"data": DataTable(max_examples=19)})
    with pytest.raises(SettingsError, match="19 examples are left for training"):
        _split(numbered, config)


def test_augmentation_moves_and_mirrors_pictures_but_makes_no_new_pixels(training_lab: Any, tmp_path: Path) -> None:
    ramp = np.tile(np.arange(6, dtype=np.uint8), (4, 1))[None, ..., None] + np.zeros((100, 1, 1, 1), np.uint8)
    ramp[:, 0, 0, 0] = np.arange(100)
    training_lab.write_dataset(tmp_path / "ramp", ramp, np.arange(100) % 2, labels=("a", "b"))
    split = _split(tmp_path / "ramp", _AUGMENTED)
    pictures = np.concatenate([pixels for pixels, _ in _batches(split, _AUGMENTED, epoch=0)])
    last_rows = {tuple(picture[3, :, 0].tolist()) for picture in pictures}
    allowed = set(range(6))
    assert len(last_rows) > 5
    assert all(set(row) <= allowed for row in last_rows if max(row) < 6)
    assert any(row[0] > row[-1] for row in last_rows)
    assert any(row[0] < row[-1] for row in last_rows)
