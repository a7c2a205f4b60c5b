"""Batches from shards: every example once an epoch, the same after a restart, shared out without overlap."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact_sync.errors import SettingsError
from training_cluster.config.tables import AugmentationTable, DataTable, ExecutionTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.pipeline import training_batches, validation_batches
from training_cluster.inputs.position import EpochPosition, ReplicaShare, Segment
from training_cluster.inputs.source import open_source
from training_cluster.inputs.split import ExampleSplit

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
    return ExampleSplit(open_source(str(directory)), config)


def _batches(
    split: ExampleSplit, config: TrainingConfig = _PLAIN, *, position: EpochPosition, **arguments: Any
) -> list[tuple[Any, ...]]:
    dataset = training_batches(split, config, position=position, **arguments)
    return [tuple(part.numpy() for part in batch) for batch in dataset]


def _numbers(batches: list[tuple[Any, ...]]) -> list[list[int]]:
    """Return the number of each picture that counts."""
    return [pixels[weights > 0, 0, 0, 0].tolist() for pixels, _, weights in batches]


def test_training_and_validation_share_no_example_and_leave_none_out(numbered: Path) -> None:
    split = _split(numbered)
    training = Counter(number for batch in _numbers(_batches(split, position=EpochPosition(0))) for number in batch)
    validation = Counter(number for pixels, _ in validation_batches(split) for number in pixels.numpy()[:, 0, 0, 0])
    assert (split.training_count, split.validation_count, split.steps_per_epoch) == (189, 21, 10)
    assert set(training.values()) == {1}
    assert len(training) == 189
    assert len(validation) == 21
    assert not training.keys() & validation.keys()


def test_labels_stay_with_their_pictures_in_a_new_order_each_epoch(numbered: Path) -> None:
    split = _split(numbered)
    epochs = [_batches(split, position=EpochPosition(epoch)) for epoch in (0, 1)]
    for pixels, labels, _ in [batch for epoch in epochs for batch in epoch]:
        assert pixels.dtype == np.uint8
        assert pixels.shape == (20, 4, 6, 1)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0] % 3, labels)
    assert _numbers(epochs[0]) != _numbers(epochs[1])
    assert _numbers(epochs[0]) == _numbers(_batches(split, position=EpochPosition(0)))


def test_another_seed_gives_another_order(numbered: Path) -> None:
    other = _PLAIN.model_copy(update={"execution": ExecutionTable(seed=2)})
    assert _numbers(_batches(_split(numbered), position=EpochPosition(0))) != _numbers(
        _batches(_split(numbered), other, position=EpochPosition(0))
    )


def test_a_restart_in_the_middle_of_an_epoch_sees_the_very_batches_that_were_left(numbered: Path) -> None:
    split = _split(numbered)
    whole = _batches(split, _AUGMENTED, position=EpochPosition(3))
    rest = _batches(split, _AUGMENTED, position=EpochPosition(3, (Segment(1, 4),)))
    assert len(rest) == len(whole) - 4
    for found, expected in zip(rest, whole[4:], strict=True):
        for part, expected_part in zip(found, expected, strict=True):
            np.testing.assert_array_equal(part, expected_part)


def test_the_replicas_of_a_host_get_the_batches_of_a_single_one_in_parts(numbered: Path) -> None:
    split = _split(numbered)
    expected = [sorted(batch) for batch in _numbers(_batches(split, position=EpochPosition(0)))]
    parts = _batches(split, position=EpochPosition(0), share=ReplicaShare(replicas=4))
    assert {pixels.shape[0] for pixels, _, _ in parts} == {5}
    numbers = _numbers(parts)
    steps = [itertools.chain(*numbers[step * 4 : step * 4 + 4]) for step in range(len(expected))]
    assert [sorted(step) for step in steps] == expected


def test_hosts_show_every_example_once_in_as_many_steps_as_one_host_has(numbered: Path) -> None:
    split = _split(numbered)
    shares = [
        _batches(split, position=EpochPosition(0), share=ReplicaShare(pipelines=5, pipeline=pipeline, replicas=2))
        for pipeline in range(5)
    ]
    assert {len(share) for share in shares} == {split.steps_per_epoch * 2}
    seen = Counter(number for share in shares for batch in _numbers(share) for number in batch)
    assert len(seen) == 189
    assert set(seen.values()) == {1}


def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(numbered: Path) -> None:
    with pytest.raises(SettingsError, match="Use a multiple of 3"):
        training_batches(_split(numbered), _PLAIN, position=EpochPosition(0), share=ReplicaShare(replicas=3))


def test_fewer_examples_than_a_batch_are_refused(numbered: Path) -> None:
    config = _PLAIN.model_copy(update={"data": DataTable(max_examples=19)})
    with pytest.raises(SettingsError, match="19 examples are left for training"):
        _split(numbered, config)


def test_augmentation_moves_and_mirrors_pictures_but_makes_no_new_pixels(training_lab: Any, tmp_path: Path) -> None:
    ramp = np.tile(np.arange(6, dtype=np.uint8), (4, 1))[None, ..., None] + np.zeros((100, 1, 1, 1), np.uint8)
    ramp[:, 0, 0, 0] = np.arange(100)
    training_lab.write_dataset(tmp_path / "ramp", ramp, np.arange(100) % 2, labels=("a", "b"))
    split = _split(tmp_path / "ramp", _AUGMENTED)
    pictures = np.concatenate([pixels for pixels, _, _ in _batches(split, _AUGMENTED, position=EpochPosition(0))])
    last_rows = {tuple(picture[3, :, 0].tolist()) for picture in pictures}
    allowed = set(range(6))
    assert len(last_rows) > 5
    assert all(set(row) <= allowed for row in last_rows if max(row) < 6)
    assert any(row[0] > row[-1] for row in last_rows)
    assert any(row[0] < row[-1] for row in last_rows)
