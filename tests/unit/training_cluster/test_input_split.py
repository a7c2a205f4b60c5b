"""What is for validation, what is shown how often: cut between groups, boosted by class and slice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from artifact_sync.errors import IntegrityError, NotFoundError, SettingsError
from training_cluster.config.tables import BoostTable, DataTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.boost import Repetitions
from training_cluster.inputs.source import DataSource, open_source
from training_cluster.inputs.split import ExampleSplit

_LABELS = ("cat", "dog", "eel")


def _dataset(lab: ModuleType, directory: Path, **columns: Any) -> DataSource:
    pixels = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    lab.write_indexed_dataset(directory / "data", pixels, np.arange(200) % 3, labels=_LABELS, **columns)
    return open_source(str(directory / "data"))


def _config(**keys: Any) -> TrainingConfig:
    return TrainingConfig(optimization=OptimizationTable(batch_size=16), data=DataTable(**keys))


def test_the_cut_lies_where_a_group_begins(training_lab: ModuleType, tmp_path: Path) -> None:
    starts = np.zeros(200, np.bool_)
    starts[[0, 13, 24, 90]] = True
    split = ExampleSplit(_dataset(training_lab, tmp_path, starts_group=starts), _config(validation_share=0.1))
    assert split.validation_count == 24
    assert (split.training_count, split.steps_per_epoch) == (176, 11)
    assert np.flatnonzero(split.repetitions(0)).tolist() == list(range(24, 200))


def test_one_group_alone_cannot_be_divided(training_lab: ModuleType, tmp_path: Path) -> None:
    starts = np.arange(200) == 0
    with pytest.raises(SettingsError, match="all 200 examples are near duplicates of each other or of one source"):
        ExampleSplit(_dataset(training_lab, tmp_path, starts_group=starts), _config())


def test_an_epoch_shows_exact_numbers_of_boosted_classes_and_slices(training_lab: ModuleType, tmp_path: Path) -> None:
    light = ["night" if number % 5 == 0 else "" if number % 5 == 1 else "day" for number in range(200)]
    source = _dataset(training_lab, tmp_path, slices={"light": light})
    boost = BoostTable(classes={"dog": 2.5, "eel": 0}, slices={"light": {"night": 1.5, "day": 0.5}})
    split = ExampleSplit(source, _config(validation_share=0.25, boost=boost))
    used = range(split.validation_count, 200)
    factors = {number: (1, 2.5, 0)[number % 3] * {"night": 1.5, "day": 0.5, "": 1}[light[number]] for number in used}
    sizes = Counter((number % 3, light[number]) for number in used)
    wanted = sum(
        np.floor(factors[next(n for n in used if (n % 3, light[n]) == key)] * size + 0.5) for key, size in sizes.items()
    )
    for epoch in range(3):
        shown = split.repetitions(epoch)
        assert shown.sum() == split.training_count == wanted
        assert not shown[: split.validation_count].any()
        assert all(abs(shown[number] - factor) < 1 for number, factor in factors.items())
    assert split.distribution()["eel"] == 0
    assert sum(split.distribution().values()) == split.training_count
    assert sum(split.label_shares.values()) == pytest.approx(1)
    assert split.label_shares["dog"] == split.distribution()["dog"] / split.training_count


def test_what_is_left_out_in_one_epoch_comes_in_the_next() -> None:
    halves = Repetitions.of(np.full(31, 0.5), np.zeros(31, np.int64), seed=3)
    first, second = halves.in_epoch(0), halves.in_epoch(1)
    assert first.sum() == second.sum() == halves.total == 16
    assert ((first + second) >= 1).all()
    thirds = Repetitions.of(np.full(30, 4 / 3), np.zeros(30, np.int64), seed=3)
    assert set((thirds.in_epoch(5) + thirds.in_epoch(6) + thirds.in_epoch(7)).tolist()) == {4}


def test_names_that_the_dataset_does_not_have_are_all_refused(training_lab: ModuleType, tmp_path: Path) -> None:
    source = _dataset(training_lab, tmp_path, slices={"light": ["night"] * 200})
    boost = BoostTable(classes={"cow": 2}, slices={"light": {"nigth": 2}, "lens": {"old": 2}})
    with pytest.raises(SettingsError) as refusal:
        ExampleSplit(source, _config(boost=boost))
    for text in ("class 'cow' (it has cat, dog, eel)", "light 'nigth' (it has night)", "column 'lens' (it has light)"):
        assert text in str(refusal.value)


def test_fewer_examples_than_a_batch_are_refused(training_lab: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="15 examples are left for training"):
        ExampleSplit(_dataset(training_lab, tmp_path), _config(max_examples=15))


def test_a_dataset_of_an_older_manifest_has_the_same_blocks_of_its_own_making(
    training_lab: ModuleType, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 3, 3, 3), np.uint8)
    training_lab.write_dataset(tmp_path / "old", pixels, np.arange(90) % 2, labels=("a", "b"))
    source = open_source(str(tmp_path / "old"))
    assert source.blocks["count"].sum() == 90
    assert sorted(source.examples.labels.tolist()) == [0] * 45 + [1] * 45
    assert b"".join(source.read_block(index) for index in range(len(source.blocks))) == b"".join(
        (tmp_path / "old" / shard.path).read_bytes() for shard in source.manifest.shards
    )
    (tmp_path / "old" / source.manifest.shards[3].path).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        open_source(str(tmp_path / "old"))


def test_a_changed_block_is_refused_when_it_is_read(training_lab: ModuleType, tmp_path: Path) -> None:
    source = _dataset(training_lab, tmp_path)
    path = tmp_path / "data" / source.manifest.shards[1].path
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    source = open_source(str(tmp_path / "data"))
    first = int(np.flatnonzero(source.blocks["shard"] == 1)[0])
    assert source.read_block(first - 1)
    with pytest.raises(IntegrityError, match="was changed, its block at byte 0"):
        source.read_block(first)


def test_shards_and_tables_that_are_missing_or_cut_are_named_at_once(training_lab: ModuleType, tmp_path: Path) -> None:
    source = _dataset(training_lab, tmp_path)
    shards = [tmp_path / "data" / shard.path for shard in source.manifest.shards]
    shards[0].unlink()
    shards[2].write_bytes(b"short")
    with pytest.raises(IntegrityError) as refusal:
        open_source(str(tmp_path / "data"))
    assert f"{shards[0].name}: missing" in str(refusal.value)
    assert f"{shards[2].name}: 5 bytes instead of" in str(refusal.value)
    next((tmp_path / "data").glob("*.examples")).unlink()
    with pytest.raises(IntegrityError, match="not whole"):
        open_source(str(tmp_path / "data"))


def test_a_folder_without_a_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no data_manifest\.json. Run `liftgate dataset build` first"):
        open_source(str(tmp_path))
