"""Tiny SavedModels with the signature of Liftgate's exports, made in a few hundredths of a second.

Tests load this file by its path (tests/ is no package):

    spec = importlib.util.spec_from_file_location("tiny_models", repository / "tests/tiny_models.py")

`tiny_model` imports TensorFlow (about 5 s, once a process); importing this file does not.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path


def tiny_model(
    path: Path,
    *,
    height: int = 8,
    width: int = 8,
    channels: int = 1,
    classes: int = 3,
    favourite_class: int = 0,
    version_marker: float = 0.0,
    labels: tuple[str, ...] | None = None,
) -> Path:
    """Write a SavedModel at `path` and return it.

    Input "pixels" uint8 [None, height, width, channels]; outputs "probabilities" and "logits"
    float32 [None, classes]. The favourite class always wins; logits have `version_marker` added to
    every class, which leaves the probabilities alone; brighter pixels favour higher classes a little.
    """
    import numpy as np
    import tensorflow as tf

    bias = np.zeros(classes, np.float32)
    bias[favourite_class] = 6.0

    class Tiny(tf.Module):
        def __init__(self) -> None:
            self.bias = tf.Variable(bias + np.float32(version_marker))
            self.slope = tf.Variable(np.linspace(0.0, 1.0, classes, dtype=np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, height, width, channels], tf.uint8, name="pixels")])
        def classify(self, pixels):
            brightness = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=[1, 2, 3]) / 255.0
            logits = self.bias + brightness[:, None] * self.slope
            return {"probabilities": tf.nn.softmax(logits), "logits": logits}

    module = Tiny()
    temporary = path.parent / f".tmp-{path.name}"
    tf.saved_model.save(module, str(temporary), signatures={"serving_default": module.classify})
    extra = temporary / "assets.extra"
    extra.mkdir()
    names = labels or tuple(f"class-{index}" for index in range(classes))
    (extra / "labels.json").write_text(json.dumps(names))
    temporary.rename(path)
    return path


def copy_version(source: Path, target: Path) -> Path:
    """Copy a version directory so that it appears at `target` whole or not at all."""
    temporary = target.parent / f".tmp-{target.name}"
    shutil.copytree(source, temporary)
    temporary.rename(target)
    return target


def write_warm_up(path: Path, *requests: bytes) -> None:
    """Write serialized PredictionLogs as the warm-up file of the version at `path`."""
    import google_crc32c

    def crc(data: bytes) -> bytes:
        value = google_crc32c.value(data)
        return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    target = path / "assets.extra/tf_serving_warmup_requests"
    target.parent.mkdir(exist_ok=True)
    with target.open("wb") as stream:
        for request in requests:
            length = struct.pack("<Q", len(request))
            stream.write(length + crc(length) + request + crc(request))


def slow_model(path: Path, *, rounds: int) -> Path:
    """Write a SavedModel of the same signature for photos 8x8x1 that goes `rounds` times round a loop a request.

    The loop's own cost counts, some microseconds a round, so it is hardly quicker on a bigger machine.
    """
    import tensorflow as tf

    class Slow(tf.Module):
        def __init__(self) -> None:
            self.step = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.uint8, name="pixels")])
        def classify(self, pixels):
            total = tf.cast(tf.reduce_sum(tf.cast(pixels, tf.int32)), tf.float32)
            for _ in tf.range(rounds):
                total = total + self.step
            scores = tf.zeros([tf.shape(pixels)[0], 3]) + total / (total * 3.0)
            return {"probabilities": scores, "logits": scores}

    module = Slow()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.classify})
    return path
