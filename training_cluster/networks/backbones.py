"""The networks that have a name, up to the features that classes are told from.

Its place in the flow: networks.network puts the head on. Each takes the pixels as its published
weights expect them, and grey pictures as three equal channels, so that one file of weights fits both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from training_cluster.config.tables import ModelTable

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def build_backbone(table: ModelTable, pixels: Any) -> Any:
    """Return the features [n, f] of pixels [n, h, w, c] in 0 to 255."""
    if table.architecture.startswith("small-cnn"):
        scaled = _to_one(pixels)
        return _small_cnn(scaled.shape[1:], table)(scaled)
    published = PUBLISHED[table.architecture]
    scaled = published.scaled(_three_channels(pixels))
    backbone = published.model(table, scaled.shape[1:])
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            # Some were published with 0.999, which settles only after thousands of steps.
            layer.momentum = table.batch_norm_momentum
        elif isinstance(layer, layers.Normalization) and layer.input_mean is None:
            # The layer uses what its weights were when it was built: they are set now, not when a file is read.
            layer.adapt_mean.assign(_IMAGENET_MEAN)
            layer.adapt_variance.assign(_IMAGENET_DEVIATION)
            layer.finalize_state()
    return backbone(scaled)


@dataclass(frozen=True)
class Published:
    """A network of keras.applications.

    Attributes:
        function: makes it.
        scaled: 0 to 255 RGB to what its weights were trained on.
        has_width: whether it takes `width_multiplier`.
    """

    function: Callable[..., keras.Model]
    scaled: Callable[[Any], Any]
    has_width: bool = False

    def model(self, table: ModelTable, shape: tuple[int, ...], *, weights: str | None = None) -> keras.Model:
        """Return the network without its classes, with weights drawn or fetched."""
        width = {"alpha": table.width_multiplier} if self.has_width else {}
        return self.function(input_shape=shape, include_top=False, weights=weights, pooling="avg", **width)


def _small_cnn(shape: tuple[int, ...], table: ModelTable) -> keras.Model:
    has_norm = table.architecture == "small-cnn-batchnorm"
    stage = pixels = keras.Input(shape)
    for index, width in enumerate(table.widths):
        if has_norm:
            stage = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv_{index}")(stage)
            stage = layers.BatchNormalization(momentum=table.batch_norm_momentum, name=f"norm_{index}")(stage)
            stage = layers.ReLU(name=f"relu_{index}")(stage)
        else:
            size = 5 if index == 0 else 3
            stage = layers.Conv2D(width, size, padding="same", activation="relu", name=f"conv_{index}")(stage)
        stage = layers.MaxPooling2D(name=f"pool_{index}")(stage)
    return keras.Model(pixels, layers.Flatten(name="flatten")(stage), name="small_cnn")


def _three_channels(pixels: Any) -> Any:
    return layers.Concatenate(name="three_channels")([pixels] * 3) if pixels.shape[-1] == 1 else pixels


def _to_one(pixels: Any) -> Any:
    return layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="normalise")(pixels)


def _as_they_are(pixels: Any) -> Any:
    """For networks that scale the pixels themselves."""
    return layers.Rescaling(1.0, dtype="float32", name="normalise")(pixels)


def _blue_first(pixels: Any) -> Any:
    red, green, blue = (pixels[..., index : index + 1] for index in range(3))
    swapped = layers.Concatenate(name="blue_first")([blue, green, red])
    offset = [-mean for mean in _CAFFE_MEAN_BGR]
    return layers.Rescaling(1.0, offset=offset, dtype="float32", name="normalise")(swapped)


def _by_root_of_deviation(pixels: Any) -> Any:
    """Return what makes EfficientNet's own scaling come out as (pixels / 255 - mean) / deviation.

    Its published weights hold the deviation where its first layer takes a variance; Keras makes up for that
    only in networks that it loads the weights into itself.
    """
    scale = [deviation**-0.5 for deviation in _IMAGENET_DEVIATION]
    offset = [255 * mean * (1 - factor) for mean, factor in zip(_IMAGENET_MEAN, scale, strict=True)]
    return layers.Rescaling(scale, offset=offset, dtype="float32", name="normalise")(pixels)


PUBLISHED = {
    "mobilenet-v2": Published(keras.applications.MobileNetV2, _to_one, has_width=True),
    "mobilenet-v3-small": Published(keras.applications.MobileNetV3Small, _as_they_are, has_width=True),
    "mobilenet-v3-large": Published(keras.applications.MobileNetV3Large, _as_they_are, has_width=True),
    "efficientnet-b0": Published(keras.applications.EfficientNetB0, _by_root_of_deviation),
    "efficientnet-b3": Published(keras.applications.EfficientNetB3, _by_root_of_deviation),
    "efficientnet-v2-b0": Published(keras.applications.EfficientNetV2B0, _as_they_are),
    "efficientnet-v2-s": Published(keras.applications.EfficientNetV2S, _as_they_are),
    "resnet-50": Published(keras.applications.ResNet50, _blue_first),
    "convnext-tiny": Published(keras.applications.ConvNeXtTiny, _as_they_are),
    "convnext-small": Published(keras.applications.ConvNeXtSmall, _as_they_are),
}
