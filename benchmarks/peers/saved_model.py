"""The SavedModel as every peer runs it: one thread inside an operation, so that runs go side by side."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def load(model: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 pixels [batch, height, width, channels] to probabilities."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    loaded = tf.saved_model.load(model)
    run = loaded.signatures["serving_default"]

    def predict(pixels: np.ndarray) -> np.ndarray:
        return next(iter(run(pixels=tf.constant(pixels)).values())).numpy()

    predict.loaded = loaded  # type: ignore[attr-defined]  # it owns the variables
    return predict
