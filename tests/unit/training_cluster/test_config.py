"""The training's configuration: defaults, refusals with the nearest known name, one resolved form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import SettingsError
from training_cluster.config.class_weights import class_weights
from training_cluster.config.recipes import recipe_of
from training_cluster.config.tables import ARCHITECTURES, OptimizationTable
from training_cluster.config.training_config import TrainingConfig, load_config, main


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
        ("[data]\nema_decay = 0.9\n", "did you mean optimization.ema_decay?"),
        ("[data.boost.klasses]\ncat = 2\n", "data.boost.klasses: unknown key; did you mean data.boost.classes?"),
        ("[optimization.class_weights]\ncat = -1\n", 'class_weights: "none", "balanced", or a number above 0 for each'),
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


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("architecture = 'resnet50'", "did you mean resnet-50?"),
        ("architecture = 'transformer'", 'is neither a network nor "package.module:function"; known are small-cnn'),
        ("architecture = 'a/b.py:network'", "is neither a network nor"),
        ("weights = 'old.keras'", "may hold code, which loading would execute"),
        ("weights = 'old.pt'", "may hold code"),
    ],
)
def test_networks_that_are_not_known_and_weights_that_may_hold_code_are_refused(
    tmp_path: Path, text: str, line: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_config(_written(tmp_path, f"[model]\n{text}\n"))
    assert line in str(refusal.value)


def test_a_network_of_ones_own_keeps_the_plain_defaults_and_takes_every_key(tmp_path: Path) -> None:
    text = (
        "[model]\narchitecture = 'own.networks:eye'\nwidths = [3]\nwidth_multiplier = 0.5\nbatch_norm_momentum = 0.8\n"
    )
    config = load_config(_written(tmp_path, text))
    assert config.optimization == OptimizationTable()
    assert config.model.widths == (3,)


def test_one_wrong_class_weight_is_one_wrong_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has 1 wrong keys"):
        load_config(_written(tmp_path, "[optimization]\nclass_weights = 'balancd'\n"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[model]\narchitecture = 'resnet-50'\nwidths = [8]\n", "model.widths: has no effect on resnet-50"),
        ("[model]\nwidth_multiplier = 0.5\n", "model.width_multiplier: has no effect on small-cnn"),
        ("[model]\nbatch_norm_momentum = 0.5\n", "model.batch_norm_momentum: has no effect on small-cnn"),
        ("[model]\nfine_tune_factor = 0.5\n", "model.fine_tune_factor: has no effect without model.frozen_epochs"),
        ("[model]\nfrozen_epochs = 2\n", "the backbone would stay as drawn"),
        ("[optimization]\nmomentum = 0.5\n", "optimization.momentum: has no effect with adam"),
        ("[optimization]\nreference_batch_size = 64\n", "has no effect with learning_rate_rule fixed"),
        ("[optimization]\ndecay_epochs = [3]\n", "optimization.decay_epochs: has no effect with schedule cosine"),
        ("[optimization]\nschedule = 'constant'\nfinal_rate_share = 0.1\n", "has no effect with schedule constant"),
        ("[optimization]\nearly_stopping_epochs = 3\n[execution]\nis_evaluated = false\n", "is_evaluated = false"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_config(_written(tmp_path, text))
    assert line in str(refusal.value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("weights", ["", "imagenet"])
def test_every_architecture_has_starting_points_that_can_be_loaded(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    text = f"[model]\narchitecture = '{architecture}'\nweights = '{weights}'\n"
    config = load_config(_written(tmp_path, text)).resolved()
    for key, value in recipe_of(architecture, has_weights=bool(weights)).items():
        table, _, name = key.partition(".")
        assert config[table][name] == value, key
    is_small = architecture.startswith("small-cnn")
    assert (config["model"]["dense_units"] > 0) == is_small
    assert (config["model"]["frozen_epochs"] > 0) == bool(weights)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate = 0.3", {"optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 5e-4}),
        ("optimizer = 'adamw'", {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01}),
        ("optimizer = 'adam'", {"learning_rate_rule": "fixed", "weight_decay": 0.0, "label_smoothing": 0.1}),
    ],
)
def test_keys_of_the_file_go_before_those_of_the_architecture(
    tmp_path: Path, text: str, expected: dict[str, Any]
) -> None:
    config = load_config(_written(tmp_path, f"[model]\narchitecture = 'resnet-50'\n[optimization]\n{text}\n"))
    assert config.optimization.model_dump() | expected == config.optimization.model_dump()


def test_a_freezing_that_is_turned_off_leaves_no_factor_behind(tmp_path: Path) -> None:
    text = "[model]\narchitecture = 'mobilenet-v2'\nweights = 'imagenet'\nfrozen_epochs = 0\n"
    assert load_config(_written(tmp_path, text)).model.fine_tune_factor == 1.0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boost.toml", "[classes]\ncat = 2.0\n[slices.camera]\nold = 0.5\n"),
        ("boost.json", '{"classes": {"cat": 2.0}, "slices": {"camera": {"old": 0.5}}}'),
    ],
)
def test_a_boost_manifest_and_weights_are_found_beside_the_file_and_kept_in_the_resolved_form(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    config = load_config(_written(tmp_path, f"[data]\nboost = '{name}'\n[model]\nweights = 'runs/old'\n"))
    assert config.data.boost.model_dump() == {"classes": {"cat": 2.0}, "slices": {"camera": {"old": 0.5}}}
    assert config.model.weights == str(tmp_path / "runs" / "old")


def test_a_boost_manifest_that_is_missing_or_wrong_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no boost manifest .*none\.toml"):
        load_config(_written(tmp_path, "[data]\nboost = 'none.toml'\n"))
    (tmp_path / "boost.toml").write_text("[classes]\ncat = -2\n")
    with pytest.raises(SettingsError, match=r"data\.boost\.classes\.cat: Input should be greater than or equal to 0"):
        load_config(_written(tmp_path, "[data]\nboost = 'boost.toml'\n"))


def test_the_program_writes_the_resolved_form_which_reads_as_the_same_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _written(tmp_path, "[model]\narchitecture = 'convnext-tiny'\n[optimization.class_weights]\ncat = 3\n")
    target = tmp_path / "resolved.json"
    assert main([str(source), str(target)]) == 0
    assert load_config(target) == load_config(source)
    assert json.loads(target.read_bytes()) == load_config(source).resolved()
    assert main([str(tmp_path / "none.toml"), str(target)]) == SettingsError.exit_code
    assert "there is no configuration" in capsys.readouterr().err


def test_class_weights_are_one_balanced_or_as_named() -> None:
    shares = {"cat": 0.5, "dog": 0.25, "eel": 0.25}
    assert class_weights(OptimizationTable(), shares) == (1, 1, 1)
    balanced = class_weights(OptimizationTable(class_weights="balanced"), shares)
    assert balanced == pytest.approx((2 / 3, 4 / 3, 4 / 3))
    assert sum(weight * share for weight, share in zip(balanced, shares.values(), strict=True)) == pytest.approx(1)
    assert class_weights(OptimizationTable(class_weights={"eel": 5.0}), shares) == (1, 1, 5)
    with pytest.raises(SettingsError, match="gone: its labels are cat, dog, eel"):
        class_weights(OptimizationTable(class_weights={"gone": 5.0}), shares)
    with pytest.raises(SettingsError, match=r"dgo: did you mean dog\?"):
        class_weights(OptimizationTable(class_weights={"dgo": 5.0}), shares)
