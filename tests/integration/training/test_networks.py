"""Networks: every name can be built and served, pixels are scaled as its weights expect, weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from soak import IS_SOAK

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import ARCHITECTURES, ModelTable
from training_cluster.exports.graph_operations import SERVED_OPERATIONS
from training_cluster.networks.backbones import PUBLISHED
from training_cluster.networks.network import build_model, set_backbone_trainable
from training_cluster.training.checkpoint import CheckpointFolder
from training_cluster.training.predictor import named_variables
from training_cluster.training.pretrained import load_backbone
from validation.programs.scan_graph import SERVING_OPERATIONS

_GREY = InputContract(height=32, width=32, channels=1)
_COLOUR = InputContract(height=32, width=32, channels=3)

# One of each family in the suite; their larger sisters are made of the same parts.
_LARGE = {"efficientnet-b3", "efficientnet-v2-s", "mobilenet-v3-large", "convnext-small"}
_BUILT = [name for name in ARCHITECTURES if IS_SOAK or name not in _LARGE]

OWN_NETWORK = """
from keras import layers

def network(pixels, *, class_count, table):
    stage = layers.Conv2D(table.widths[0], 3, activation="relu", name="eye")(pixels)
    stage = layers.GlobalAveragePooling2D(name="mean")(stage)
    return layers.Dense(class_count, name="logits")(stage)

def wrong(pixels, *, class_count, table):
    return pixels

def failing(pixels, *, class_count, table):
    raise RuntimeError("no idea")
"""


def _table(architecture: str, **keys: Any) -> ModelTable:
    return ModelTable(
        **{"architecture": architecture, "widths": (4,), "dense_units": 0, "width_multiplier": 0.35} | keys
    )


def _small_table(architecture: str) -> ModelTable:
    return _table(architecture, width_multiplier=0.35 if architecture == "mobilenet-v2" else 1.0)


def _operations(model: keras.Model, contract: InputContract) -> set[str]:
    shape = [None, contract.height, contract.width, contract.channels]
    answer = tf.function(lambda pixels: tf.nn.softmax(model(pixels, training=False)))
    graph = answer.get_concrete_function(tf.TensorSpec(shape, tf.uint8)).graph.as_graph_def()
    return {
        node.op for part in (graph, *graph.library.function) for node in getattr(part, "node", None) or part.node_def
    }


@pytest.mark.parametrize("architecture", _BUILT)
def test_every_network_takes_grey_pixels_and_uses_only_operations_that_are_served(architecture: str) -> None:
    model = build_model(_small_table(architecture), contract=_GREY, class_count=3, number_format="bfloat16")
    assert (model.input_shape, model.input.dtype) == ((None, 32, 32, 1), "uint8")
    assert (model.output_shape, model.output.dtype) == ((None, 3), "float32")
    assert keras.config.dtype_policy().name == "float32"
    assert _operations(model, _GREY) <= SERVED_OPERATIONS & SERVING_OPERATIONS
    set_backbone_trainable(model, False)
    assert [variable.path for variable in model.trainable_variables] == ["logits/kernel", "logits/bias"]


def test_all_published_networks_have_a_name() -> None:
    assert set(ARCHITECTURES) - set(PUBLISHED) == {"small-cnn", "small-cnn-batchnorm"}


def test_efficientnets_first_layers_see_the_pixels_that_its_weights_were_trained_on() -> None:
    model = build_model(_table("efficientnet-b0"), contract=_COLOUR, class_count=3)
    (backbone,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    (normalization,) = (layer for layer in backbone.layers if isinstance(layer, keras.layers.Normalization))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3)
    scaled = keras.Model(model.input, model.get_layer("normalise").output)(pixels)
    seen = keras.Model(backbone.input, normalization.output)(scaled)
    np.testing.assert_allclose(seen, (pixels / 255 - mean) / deviation, atol=2e-3)


def test_resnet_sees_blue_first_with_the_mean_taken_away() -> None:
    model = build_model(_table("resnet-50"), contract=_COLOUR, class_count=3)
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    pixels[..., 0] = 255
    scaled = keras.Model(model.input, model.get_layer("normalise").output)(pixels).numpy()
    np.testing.assert_allclose(scaled[0, 0, 0], [-103.939, -116.779, 255 - 123.68], atol=1e-3)


@pytest.mark.parametrize(
    ("table", "contract", "message"),
    [
        (_table("mobilenet-v2"), InputContract(height=31, width=64, channels=3), "only of 32x32 and more"),
        (_table("small-cnn", widths=(4, 4, 4, 4)), InputContract(height=8, width=8, channels=1), "only of 16x16"),
        (_table("small-cnn", input_size="64x64"), _GREY, "model.input_size is 64x64, the dataset's pictures are 32x32"),
    ],
)
def test_pictures_that_a_network_cannot_take_are_refused(
    table: ModelTable, contract: InputContract, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        build_model(table, contract=contract, class_count=3)


def test_a_network_of_ones_own_is_built_by_its_name_and_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_networks.py").write_text(OWN_NETWORK)
    (tmp_path / "broken_networks.py").write_text("import does_not_exist\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model(_table("own_networks:network"), contract=_GREY, class_count=3)
    assert model.output_shape == (None, 3)
    set_backbone_trainable(model, False)
    assert [variable.path for variable in model.trainable_variables] == ["logits/kernel", "logits/bias"]
    for name, message in {
        "own_networks:wrong": r"must return logits of shape \(None, 3\), not \(None, 32, 32, 1\)",
        "own_networks:failing": "own_networks:failing failed: RuntimeError: no idea",
        "own_networks:absent": "module own_networks has no function 'absent'",
        "broken_networks:network": "cannot be imported .*does_not_exist.*on every host that trains",
        "nowhere:network": "PYTHONPATH",
    }.items():
        with pytest.raises(SettingsError, match=message):
            build_model(_table(name), contract=_GREY, class_count=3)


def _weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in model.layers[2].variables}


def test_a_backbone_takes_the_weights_of_a_run_of_a_checkpoint_and_of_a_file(tmp_path: Path) -> None:
    old = build_model(_table("small-cnn-batchnorm", dense_units=8), contract=_GREY, class_count=5)
    arrays = {name: variable.numpy() + 1 for name, variable in named_variables("model", old.variables)}
    averaged = {f"average/{name}": array + 1 for name, array in arrays.items()}
    saved = CheckpointFolder(tmp_path / "run-1" / "checkpoints", binding={}).save(arrays | averaged, step=3)
    old.layers[2].save_weights(tmp_path / "old.weights.h5")
    for path, difference in ((tmp_path / "run-1", 2), (saved, 2), (tmp_path / "old.weights.h5", 0)):
        table = _table("small-cnn-batchnorm", weights=str(path))
        model = build_model(table, contract=_GREY, class_count=3)
        assert "sha256:" in load_backbone(model, table)
        for mine, theirs in zip(_weights(model).values(), _weights(old).values(), strict=True):
            np.testing.assert_allclose(mine, theirs + difference, rtol=1e-6)


def test_weights_that_do_not_fit_or_are_not_there_are_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(_table("small-cnn"), contract=_GREY, class_count=3)
    arrays = {name: variable.numpy()[..., :1] for name, variable in named_variables("model", model.variables)}
    CheckpointFolder(tmp_path / "run-1" / "checkpoints", binding={}).save(arrays, step=3)
    (tmp_path / "no.weights.h5").write_bytes(b"nothing of the kind")
    # Nothing listens there, as on a host without a way out.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    for architecture, weights, message in (
        ("small-cnn", tmp_path / "run-1", r"0000/kernel has shape \(5, 5, 1, 1\), \(5, 5, 1, 4\) is needed"),
        ("small-cnn", tmp_path / "none", "no .h5 file, no checkpoint and no run folder"),
        ("small-cnn", tmp_path / "none.h5", "there are no weights"),
        ("small-cnn", tmp_path / "no.weights.h5", "does not hold the weights of a small-cnn"),
        ("small-cnn", "imagenet", "there are no ImageNet weights for small-cnn"),
        (
            "mobilenet-v2",
            "imagenet",
            r"Fetch https://storage.googleapis.com/\S+_0.35_224_no_top.h5 where",
        ),
    ):
        table = _table(architecture, weights=str(weights))
        with pytest.raises(SettingsError, match=message):
            load_backbone(build_model(table, contract=_GREY, class_count=3), table)
