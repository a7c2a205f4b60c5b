"""What a model answers to pixels, as probabilities, and how far two models' answers lie apart.

Its place in the flow: no folder is called an export before its answers, loaded from disk, were
compared here with the training model's. Everything is computed on the CPU, as serving hosts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.records import InputContract

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]
Answer = Callable[[Pixels], Probabilities]

DEVICE = "/CPU:0"
"""Where exports are made and compared: GPUs round float32 convolutions to 10 bits unless told otherwise."""

_BATCH = 64


@dataclass(frozen=True)
class Comparison:
    """How two models answered the same pictures.

    Attributes:
        examples: the number of pictures.
        difference: the largest difference of a probability; NaN when there was one.
        same_label_share: the share of pictures to which both give the same label.
        accuracy: the share of pictures to which the second gives the right label.
    """

    examples: int
    difference: float
    same_label_share: float
    accuracy: float


def answer_of_model(model: keras.Model) -> Answer:
    """Return what a model that gives logits answers."""

    @tf.function  # type: ignore[untyped-decorator]
    def probabilities(pixels: Any) -> Any:
        return tf.nn.softmax(tf.cast(model(pixels, training=False), tf.float32))

    def answer(pixels: Pixels) -> Probabilities:
        with tf.device(DEVICE):
            return np.asarray(probabilities(tf.constant(pixels)), np.float32)

    return answer


def answer_of_export(export_dir: Path, *, contract: InputContract) -> Answer:
    """Load the SavedModel from disk and return what it answers."""
    with tf.device(DEVICE):
        loaded = tf.saved_model.load(str(export_dir))

    def answer(pixels: Pixels) -> Probabilities:
        # The signature alone would not keep the variables alive.
        signature = loaded.signatures[contract.signature_name]
        with tf.device(DEVICE):
            return np.asarray(signature(**{contract.input_name: tf.constant(pixels)})[contract.scores_name], np.float32)

    return answer


def compared(examples: Iterable[tuple[Pixels, Labels]], *, trained: Answer, served: Answer) -> Comparison:
    """Return how `served` answers batches of pixels and right labels, compared with `trained`."""
    count = same = right = 0
    difference = 0.0
    for pixels, labels in _pieces(examples):
        expected, found = trained(pixels), served(pixels)
        # Not max(): a NaN has to stay.
        difference = float(np.maximum(difference, np.max(np.abs(found - expected))))
        same += int(np.sum(found.argmax(axis=1) == expected.argmax(axis=1)))
        right += int(np.sum(found.argmax(axis=1) == labels))
        count += len(pixels)
    return Comparison(count, difference, same_label_share=same / count, accuracy=right / count)


def _pieces(examples: Iterable[tuple[Pixels, Labels]]) -> Iterator[tuple[Pixels, Labels]]:
    """Yield the examples in batches whose activations fit into the memory of a CPU host."""
    for pixels, labels in examples:
        for start in range(0, len(pixels), _BATCH):
            yield pixels[start : start + _BATCH], labels[start : start + _BATCH]


@contextmanager
def in_float32(model: keras.Model) -> Iterator[bool]:
    """Let a model that was trained in mixed precision compute in float32, and say whether it was."""
    # Networks lie in networks, and Keras has no public way to visit all layers of all of them.
    layers = list(model._flatten_layers())
    policies = [layer.dtype_policy for layer in layers]
    is_mixed = any(policy.compute_dtype != "float32" for policy in policies)
    try:
        for layer in layers if is_mixed else ():
            layer.dtype_policy = "float32"
        yield is_mixed
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            if is_mixed:
                layer.dtype_policy = policy
