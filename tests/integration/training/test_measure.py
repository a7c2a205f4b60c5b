"""The inputs are measured, and what is looked at is what the training shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from liftgate.commands.data import command
from training_cluster.config.tables import AugmentationTable, BoostTable, DataTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.pipeline import training_batches
from training_cluster.inputs.position import EpochPosition
from training_cluster.inputs.source import open_source
from training_cluster.inputs.split import ExampleSplit
from training_cluster.measure.look import seen_examples

_CONFIG = TrainingConfig(
    optimization=OptimizationTable(batch_size=10),
    augmentation=AugmentationTable(flip_horizontal=True, shift_pixels=2),
    data=DataTable(boost=BoostTable(classes={"a": 0.5})),
)


@pytest.fixture
def noise(training_lab: Any, tmp_path: Path) -> Path:
    """120 pictures of which no two are alike."""
    pixels = np.random.default_rng(3).integers(0, 256, (120, 8, 6, 3), dtype=np.uint8)
    directory = tmp_path / "noise"
    training_lab.write_indexed_dataset(directory, pixels, np.arange(120) % 3, labels=("a", "b", "c"))
    return directory


def test_what_is_looked_at_is_what_each_epoch_shows(noise: Path) -> None:
    source = open_source(str(noise))
    split = ExampleSplit(source, _CONFIG)
    looked = seen_examples(source, split, _CONFIG, count=12, epochs=2)
    assert [example.label for example in looked] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    for epoch in (0, 1):
        shown = {
            (pixels.tobytes(), split.labels[label])
            for batch in training_batches(split, _CONFIG, position=EpochPosition(epoch))
            for pixels, label, weight in zip(*(part.numpy() for part in batch), strict=True)
            if weight
        }
        seen = [(example.seen[epoch], example.label) for example in looked]
        assert {(picture.tobytes(), label) for picture, label in seen if picture is not None} <= shown
    # Half of a class with the factor 0.5 is left out in each epoch: those of the first epoch come in none but it.
    assert [example.seen[1] is None for example in looked] == [True] * 4 + [False] * 8
    assert any((example.original != example.seen[0]).any() for example in looked)
    source.close()


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "training.toml"
    path.write_text("[optimization]\nbatch_size = 16\n[augmentation]\nflip_horizontal = true\n")
    return path


def test_the_inputs_are_measured_and_gpus_are_fed_or_not(noise: Path, config_path: Path) -> None:
    words = ["bench", "--data", str(noise), "--training-config", str(config_path), "--seconds", "0.2"]
    done = CliRunner().invoke(command, [*words, "--gpu-rate", "1e9", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert [stage["stage"] for stage in found["stages"]] == ["reading", "parsing", "augmenting", "handing over"]
    alone = [stage["images_per_second"] for stage in found["stages"]]
    assert found["images_per_second"] > 0
    assert found["bottleneck"] == found["stages"][alone.index(min(alone))]["stage"]
    assert found["feeding"]["hosts"] > 1
    assert (found["picture"], found["batch_size"]) == ([8, 6, 3], 16)


def test_a_look_writes_a_page_and_names_it(noise: Path, config_path: Path, tmp_path: Path) -> None:
    words = ["look", "--data", str(noise), "--training-config", str(config_path), "--examples", "3", "--draws", "2"]
    done = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "page.html")], catch_exceptions=False)
    assert done.stdout.splitlines() == [str(tmp_path / "page.html")]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 3 * (1 + 2)
