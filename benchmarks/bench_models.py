"""The two SavedModels that the serving benchmarks ask: `python benchmarks/bench_models.py DIRECTORY`.

small-cnn takes 28x28x1 pixels and has 10 classes; mobilenet-v2 takes 224x224x3 and has 1,000. Both
take uint8 and have random weights: speed does not depend on what they have learnt.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # `serving` is the package, not the script beside this one

from serving.protos import tfs_pb2
from serving.warm_up_records import WARM_UP_PATH, write_warm_up_requests

SHAPES: Mapping[str, tuple[int, int, int]] = {"small-cnn": (28, 28, 1), "mobilenet-v2": (224, 224, 3)}
"""Height, width and channels of what each model takes."""


def ensure_models(directory: Path) -> dict[str, Path]:
    """Return the base path of each model, made in another process when it is not there yet."""
    if not all((directory / name / "1" / WARM_UP_PATH).exists() for name in SHAPES):
        subprocess.run([sys.executable, __file__, str(directory)], check=True, stderr=subprocess.DEVNULL)
    return {name: directory / name for name in SHAPES}


def predict_request(name: str, *, batch: int) -> tfs_pb2.PredictRequest:
    """Return a request with black pixels for a model that is served under its own name."""
    request = tfs_pb2.PredictRequest()
    request.model_spec.name = name
    tensor = request.inputs["pixels"]
    tensor.dtype = tfs_pb2.DT_UINT8
    for size in (batch, *SHAPES[name]):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = bytes(batch * math.prod(SHAPES[name]))
    return request


def _build(name: str) -> object:
    import keras

    shape = SHAPES[name]
    pixels = keras.Input(shape, dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    if name == "mobilenet-v2":
        network = keras.applications.MobileNetV2(input_shape=shape, weights=None)
        return keras.Model(pixels, network(scaled))
    hidden = keras.layers.Conv2D(16, 5, strides=2, activation="relu")(scaled)
    hidden = keras.layers.Conv2D(32, 3, activation="relu")(hidden)
    hidden = keras.layers.Flatten()(keras.layers.MaxPooling2D()(hidden))
    hidden = keras.layers.Dense(128, activation="relu")(hidden)
    return keras.Model(pixels, keras.layers.Dense(10, activation="softmax")(hidden))


def _export(name: str, path: Path) -> None:
    import tensorflow as tf

    model = _build(name)
    signature = tf.TensorSpec([None, *SHAPES[name]], tf.uint8, name="pixels")

    @tf.function(input_signature=[signature])
    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(pixels, training=False)}

    module = tf.Module()
    # The variables themselves: what Keras tracks under its own names is not restored by every loader.
    module.weights = [variable.value for variable in model.variables]
    temporary = path.with_name(".incoming")
    shutil.rmtree(temporary, ignore_errors=True)
    tf.saved_model.save(module, str(temporary), signatures={"serving_default": classify})
    # As Liftgate's exports have it: the first user's request finds everything prepared.
    (temporary / WARM_UP_PATH).parent.mkdir()
    write_warm_up_requests(temporary / WARM_UP_PATH, [predict_request(name, batch=batch) for batch in (1, 4, 8)])
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def main() -> None:
    """Export both models as version 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    for name in SHAPES:
        (directory / name).mkdir(parents=True, exist_ok=True)
        _export(name, directory / name / "1")


if __name__ == "__main__":
    main()
