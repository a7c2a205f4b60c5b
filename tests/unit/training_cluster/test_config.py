"""The training's configuration: defaults, refusals with the nearest known name, a digest of the resolved form."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact_sync.errors import SettingsError
from training_cluster.config.training_config import TrainingConfig, load_config


def _written(directory: Path, text: str) -> Path:
    path = directory / "training.toml"
    path.write_text(text)
    return path


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert load_config(_written(tmp_path, "")) == TrainingConfig()


def test_a_key_of_the_file_is_taken(tmp_path: Path) -> None:
    config = load_config(_written(tmp_path, "[model]\narchitecture = 'mobilenet-v2'\n[optimization]\nepochs = 7\n"))
    assert (config.model.architecture, config.optimization.epochs) == ("mobilenet-v2", 7)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[optimization]\nepoch = 3\n", "optimization.epoch: unknown key; did you mean optimization.epochs?"),
        ("[optimisation]\nepochs = 3\n", "optimisation: unknown key; did you mean optimization?"),
        ("[model]\nbatch_size = 3\n", "did you mean optimization.batch_size?"),
        ("zzz = 1\n", "known tables are model, optimization, augmentation, data, execution"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_name(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_config(_written(tmp_path, text))
    assert hint in str(refusal.value)


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_config(_written(tmp_path, "[model]\ndropout = 1.5\nwidth = [3]\n[optimization]\nepochs = 0\n"))
    assert "has 3 wrong keys" in str(refusal.value)
    for name in ("model.dropout", "model.width", "optimization.epochs"):
        assert name in str(refusal.value)


def test_a_missing_file_and_a_file_that_is_not_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no configuration"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_config(_written(tmp_path, "epochs = = 3"))


def test_the_digest_follows_values_and_not_the_way_they_are_written(tmp_path: Path) -> None:
    default = TrainingConfig().sha256
    assert load_config(_written(tmp_path, "[optimization]\nepochs = 5\n# a comment\n")).sha256 == default
    assert load_config(_written(tmp_path, "[optimization]\nepochs = 6\n")).sha256 != default


@pytest.mark.parametrize("name", ["first", "better", "worse"])
def test_the_trainings_of_the_demo_are_valid(repository: Path, name: str) -> None:
    assert load_config(repository / "liftgate" / "demo" / f"{name}.toml") != TrainingConfig()
