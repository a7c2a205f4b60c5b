"""Networks by name: uint8 pixels in, logits out, normalisation inside.

Its place in the flow: the trainer builds one from the configuration, the export builds the same one
again and fills it with the trained weights. `ARCHITECTURES` is where a further network is entered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import layers

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import ModelTable

Network = Callable[[Any, ModelTable, int], Any]
"""Takes normalised float32 pixels [n, h, w, c] in -1 to 1, the table, the number of classes; returns logits."""


def build_model(table: ModelTable, *, contract: InputContract, class_count: int) -> keras.Model:
    """Return an untrained model: "pixels" uint8 [n, h, w, c] → logits float32 [n, class_count].

    Raises:
        SettingsError: the network cannot take pictures of that size.
    """
    shape = (contract.height, contract.width, contract.channels)
    pixels = keras.Input(shape, dtype="uint8", name="pixels")
    normalised = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(pixels)
    try:
        logits = ARCHITECTURES[table.architecture](normalised, table, class_count)
    except ValueError as error:
        raise SettingsError(
            f"Training refused: architecture {table.architecture} cannot take {shape} pixels: {error}"
        ) from None
    return keras.Model(pixels, logits, name=table.architecture.replace("-", "_"))


def _small_cnn(pixels: Any, table: ModelTable, class_count: int) -> Any:
    stage = pixels
    for index, width in enumerate(table.widths):
        size = 5 if index == 0 else 3
        stage = layers.Conv2D(width, size, padding="same", activation="relu", name=f"conv_{index}")(stage)
        stage = layers.MaxPooling2D(name=f"pool_{index}")(stage)
    return _classes(layers.Flatten(name="flatten")(stage), table, class_count)


def _small_cnn_batchnorm(pixels: Any, table: ModelTable, class_count: int) -> Any:
    stage = pixels
    for index, width in enumerate(table.widths):
        stage = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv_{index}")(stage)
        stage = layers.BatchNormalization(momentum=table.batch_norm_momentum, name=f"norm_{index}")(stage)
        stage = layers.ReLU(name=f"relu_{index}")(stage)
        stage = layers.MaxPooling2D(name=f"pool_{index}")(stage)
    return _classes(layers.Flatten(name="flatten")(stage), table, class_count)


def _mobilenet_v2(pixels: Any, table: ModelTable, class_count: int) -> Any:
    # A model as a layer, so that its hundred layers keep their own names.
    backbone = keras.applications.MobileNetV2(
        input_shape=pixels.shape[1:], alpha=table.width_multiplier, include_top=False, weights=None, pooling="avg"
    )
    return _classes(backbone(pixels), table, class_count)


def _classes(features: Any, table: ModelTable, class_count: int) -> Any:
    if table.dense_units:
        features = layers.Dense(table.dense_units, activation="relu", name="dense")(features)
    if table.dropout:
        features = layers.Dropout(table.dropout, name="dropout")(features)
    return layers.Dense(class_count, name="logits")(features)


ARCHITECTURES: Mapping[str, Network] = {
    "small-cnn": _small_cnn,
    "small-cnn-batchnorm": _small_cnn_batchnorm,
    "mobilenet-v2": _mobilenet_v2,
}
