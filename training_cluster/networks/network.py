"""Networks: uint8 pixels in, logits out, normalisation inside.

Its place in the flow: the trainer builds one from the configuration, the export builds the same one
again and fills it with the trained weights. A model is a backbone and, after it, the layers called
`HEAD_LAYERS`, which are all that is trained while the backbone is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import ModelTable
from training_cluster.networks.backbones import build_backbone
from training_cluster.networks.builder import own_builder
from training_cluster.networks.sizes import refuse_other_sizes

HEAD_LAYERS = ("dense", "dropout", "logits")
"""The names of the layers after the backbone, in a network of the user's own too."""


def build_model(
    table: ModelTable, *, contract: InputContract, class_count: int, number_format: str = "off"
) -> keras.Model:
    """Return an untrained model: "pixels" uint8 [n, h, w, c] → logits float32 [n, class_count].

    Args:
        table: the configuration's [model].
        contract: the shape of the pixels.
        class_count: the number of labels.
        number_format: of the activations: "off" (float32), "float16" or "bfloat16". Weights and logits
            are float32 in each.

    Raises:
        SettingsError: the network cannot take pictures of that size, or there is no such network.
    """
    refuse_other_sizes(table, contract)
    pixels = keras.Input((contract.height, contract.width, contract.channels), dtype="uint8", name="pixels")
    with _activations_in(number_format):
        if ":" in table.architecture:
            logits = _own_logits(pixels, table, class_count)
        else:
            logits = _head(build_backbone(table, pixels), table, class_count)
    # Layers that compute in 16 bits must not hand on 16 bits, whatever a builder did.
    logits = layers.Activation("linear", dtype="float32", name="scores")(logits)
    model = keras.Model(pixels, logits, name="classifier")
    if table.frozen_epochs and not any(layer.name in HEAD_LAYERS and layer.weights for layer in model.layers):
        raise SettingsError(
            f"Training refused: model.frozen_epochs is {table.frozen_epochs}, but {table.architecture} has no layer "
            f"called {', '.join(HEAD_LAYERS)}, so nothing would be trained. Name its last layers so."
        )
    return model


def set_backbone_trainable(model: keras.Model, is_trainable: bool) -> None:
    """Let a model's backbone learn or not; its normalisations keep their running means while it does not."""
    for layer in model.layers:
        if layer.name not in HEAD_LAYERS:
            layer.trainable = is_trainable


def _head(features: Any, table: ModelTable, class_count: int) -> Any:
    if table.dense_units:
        features = layers.Dense(table.dense_units, activation="relu", name="dense")(features)
    if table.dropout:
        features = layers.Dropout(table.dropout, name="dropout")(features)
    return layers.Dense(class_count, dtype="float32", name="logits")(features)


def _own_logits(pixels: Any, table: ModelTable, class_count: int) -> Any:
    normalised = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="normalise")(pixels)
    builder = own_builder(table.architecture)
    try:
        logits = builder(normalised, class_count=class_count, table=table)
    # Code that is not ours may fail in any way.
    except Exception as error:
        raise SettingsError(
            f"Training refused: {table.architecture} failed: {type(error).__name__}: {error}"
        ) from error
    shape = getattr(logits, "shape", None)
    if shape != (None, class_count):
        raise SettingsError(
            f"Training refused: {table.architecture} must return logits of shape (None, {class_count}), not {shape}."
        )
    return logits


@contextmanager
def _activations_in(number_format: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if number_format == "off" else f"mixed_{number_format}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
