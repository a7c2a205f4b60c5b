"""Batches from shards: every example once an epoch, the same after a restart, shared out without overlap."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError, SettingsError
from training_cluster.config.tables import AugmentationTable, BoostTable, DataTable, ExecutionTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.pipeline import training_batches, validation_batches
from training_cluster.inputs.position import EpochPosition, ReplicaShare
from training_cluster.inputs.source import open_source
from training_cluster.inputs.split import ExampleSplit

_PLAIN = TrainingConfig(optimization=OptimizationTable(batch_size=20), data=DataTable(validation_share=0.1))
_AUGMENTED = _PLAIN.model_copy(
    update={"augmentation": AugmentationTable(flip_horizontal=True, shift_pixels=2, brightness=0.1, erase_share=0.1)}
)
_LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def numbered(training_lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """210 pictures, each of which bears its number: 189 for training, 21 for validation."""
    pixels = np.arange(210, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
    directory: Path = tmp_path_factory.mktemp("numbered") / "dataset"
    training_lab.write_indexed_dataset(directory, pixels, np.arange(210) % 3, labels=_LABELS)
    return directory


@pytest.fixture(scope="module")
def split(numbered: Path) -> ExampleSplit:
    return _split(numbered)


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


def test_training_and_validation_share_no_example_and_leave_none_out(split: ExampleSplit) -> None:
    batches = _batches(split, position=EpochPosition(0))
    assert [int(weights.sum()) for _, _, weights in batches] == [20] * 9 + [9]
    training = Counter(itertools.chain(*_numbers(batches)))
    validation = [(pixels.numpy(), labels.numpy()) for pixels, labels in validation_batches(split, batch_size=8)]
    assert [len(labels) for _, labels in validation] == [8, 8, 5]
    assert (split.training_count, split.validation_count, split.steps_per_epoch) == (189, 21, 10)
    assert training == dict.fromkeys(range(21, 210), 1)
    assert np.concatenate([pixels[:, 0, 0, 0] for pixels, _ in validation]).tolist() == list(range(21))
    assert np.concatenate([labels for _, labels in validation]).tolist() == [number % 3 for number in range(21)]


def test_hosts_that_evaluate_together_get_every_other_batch(split: ExampleSplit) -> None:
    whole = [labels.numpy().tolist() for _, labels in validation_batches(split, batch_size=8)]
    meters = [InputMeter(), InputMeter()]
    parts = [
        [
            labels.numpy().tolist()
            for _, labels in validation_batches(split, batch_size=8, share=ReplicaShare(2, host), meter=meters[host])
        ]
        for host in (0, 1)
    ]
    assert parts == [whole[0::2], whole[1::2]]
    assert meters[1].read_bytes < meters[0].read_bytes


def test_labels_stay_with_their_pictures_in_a_new_order_each_epoch(split: ExampleSplit) -> None:
    epochs = [_batches(split, position=EpochPosition(epoch)) for epoch in (0, 1)]
    for pixels, labels, weights in itertools.chain(*epochs):
        assert (pixels.dtype, labels.dtype, weights.dtype) == (np.uint8, np.int64, np.float32)
        assert pixels.shape == (20, 4, 6, 1)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0] % 3, labels)
    assert _numbers(epochs[0]) != _numbers(epochs[1])
    assert _numbers(epochs[0]) == _numbers(_batches(split, position=EpochPosition(0)))
    other = _PLAIN.model_copy(update={"execution": ExecutionTable(seed=2)})
    assert _numbers(epochs[0]) != _numbers(_batches(split, other, position=EpochPosition(0)))


def test_a_restart_in_the_middle_of_an_epoch_sees_the_very_batches_that_were_left(split: ExampleSplit) -> None:
    whole = _batches(split, _AUGMENTED, position=EpochPosition(3))
    rest = _batches(split, _AUGMENTED, position=EpochPosition(3).after(4, pipelines=1))
    assert len(rest) == len(whole) - 4
    for found, expected in zip(rest, whole[4:], strict=True):
        for part, expected_part in zip(found, expected, strict=True):
            np.testing.assert_array_equal(part, expected_part)


def test_another_number_of_hosts_sees_the_pictures_that_were_left_changed_as_they_would_have_been(
    split: ExampleSplit,
) -> None:
    def pictures(batches: list[tuple[Any, ...]]) -> list[bytes]:
        return [picture.tobytes() for pixels, _, weights in batches for picture in pixels[weights > 0]]

    whole = _batches(split, _AUGMENTED, position=EpochPosition(3))
    position = EpochPosition(3).after(4, pipelines=1)
    rest = [_batches(split, _AUGMENTED, position=position, share=ReplicaShare(2, host)) for host in (0, 1)]
    assert sorted(pictures(whole[:4]) + pictures(rest[0]) + pictures(rest[1])) == sorted(pictures(whole))


def test_the_replicas_of_a_host_get_the_batches_of_a_single_one_in_parts(split: ExampleSplit) -> None:
    expected = [sorted(batch) for batch in _numbers(_batches(split, position=EpochPosition(0)))]
    parts = _batches(split, position=EpochPosition(0), share=ReplicaShare(replicas=4))
    assert {pixels.shape[0] for pixels, _, _ in parts} == {5}
    numbers = _numbers(parts)
    steps = [itertools.chain(*numbers[step * 4 : step * 4 + 4]) for step in range(len(expected))]
    assert [sorted(step) for step in steps] == expected


def test_hosts_show_every_example_once_in_as_many_steps_as_one_host_has(split: ExampleSplit) -> None:
    shares = [
        _batches(split, position=EpochPosition(0), share=ReplicaShare(pipelines=5, pipeline=pipeline, replicas=2))
        for pipeline in range(5)
    ]
    assert {len(share) for share in shares} == {split.steps_per_epoch * 2}
    seen = Counter(number for share in shares for batch in _numbers(share) for number in batch)
    assert seen == dict.fromkeys(range(21, 210), 1)


def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(split: ExampleSplit) -> None:
    with pytest.raises(SettingsError, match="Use a multiple of 3"):
        training_batches(split, _PLAIN, position=EpochPosition(0), share=ReplicaShare(replicas=3))


def test_a_boosted_class_comes_as_often_as_it_should_and_each_time_changed_in_another_way(numbered: Path) -> None:
    data = DataTable(validation_share=0.1, boost=BoostTable(classes={"a": 3, "b": 0}))
    config = _AUGMENTED.model_copy(update={"data": data})
    split = _split(numbered, config)
    assert split.distribution() == {"a": 189, "b": 0, "c": 63}
    seen = Counter(
        (label, picture.tobytes())
        for pixels, labels, weights in _batches(split, config, position=EpochPosition(0))
        for picture, label in zip(pixels[weights > 0], labels[weights > 0].tolist(), strict=True)
    )
    assert Counter(label for label, _ in seen.elements()) == {0: 189, 2: 63}
    assert len(seen) > 230


def test_the_error_of_a_thread_comes_through_tensorflow_as_it_is(numbered: Path, tmp_path: Path) -> None:
    for path in numbered.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    split = _split(tmp_path)
    last = tmp_path / split.source.manifest.shards[3].path
    last.write_bytes(bytes(last.stat().st_size))
    meter = InputMeter()
    with pytest.raises(IntegrityError, match=f"{last.name}.*was changed"):
        list(meter.watch(training_batches(split, _PLAIN, position=EpochPosition(0), meter=meter)))


def test_the_meter_knows_where_the_time_went(split: ExampleSplit) -> None:
    meter = InputMeter()
    dataset = training_batches(split, _AUGMENTED, position=EpochPosition(0), meter=meter)
    assert len(list(meter.watch(dataset))) == 10
    assert meter.images == 200
    assert meter.read_bytes > 189 * 24
    assert meter.waited_seconds > 0
    assert all(meter.seconds[stage] > 0 for stage in ("reading", "parsing", "augmenting"))


def test_an_iteration_that_is_left_ends_its_threads(split: ExampleSplit) -> None:
    import gc
    import threading
    import time

    iterator = iter(training_batches(split, _AUGMENTED, position=EpochPosition(0)))
    next(iterator)
    del iterator
    gc.collect()
    deadline = time.monotonic() + 10
    names = ("read-block", "augment")
    while any(thread.name.startswith(names) for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
