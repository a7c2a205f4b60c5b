"""What an export carries beside the model: labels, golden examples, warm-up requests.

Its place in the flow: the export writes them under `assets.extra/`, the only folder of a SavedModel
that TensorFlow Serving leaves to others. Hosts replay the golden examples before a label moves; the
model server replays the warm-up requests before a version is AVAILABLE.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from artifact_sync.records import GoldenExample, GoldenExamples, InputContract
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from training_cluster.datasets.tfrecord import frame
from training_cluster.protobuf_wire import field, map_entry

LABELS_PATH = "assets.extra/labels.json"
WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"

_WARMUP_BATCHES = (1, 8, 32)


def write_labels(export_dir: Path, labels: tuple[str, ...]) -> None:
    """Write the labels as a JSON list in the order of the scores."""
    _write(export_dir / LABELS_PATH, json.dumps(list(labels), ensure_ascii=False).encode())


def write_golden_examples(
    export_dir: Path,
    pixels: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    *,
    contract: InputContract,
    tolerance: float,
) -> None:
    """Write pixels [n, height, width, channels] with the probabilities [n, classes] that the reloaded export gave."""
    examples = tuple(
        GoldenExample(
            pixels_base64=base64.b64encode(picture.tobytes()).decode(), scores=tuple(float(score) for score in scores)
        )
        for picture, scores in zip(pixels, probabilities, strict=True)
    )
    record = GoldenExamples(
        height=contract.height,
        width=contract.width,
        channels=contract.channels,
        tolerance=tolerance,
        examples=examples,
    )
    _write(export_dir / GOLDEN_EXAMPLES_PATH, record.to_json())


def write_warmup_requests(
    export_dir: Path, pixels: npt.NDArray[np.uint8], *, model_name: str, contract: InputContract
) -> None:
    """Write one PredictRequest for each usual batch size, made of `pixels` repeated."""
    spec = field(1, model_name.encode()) + field(3, contract.signature_name.encode())
    records = []
    for batch_size in _WARMUP_BATCHES:
        batch = np.resize(pixels, (batch_size, *pixels.shape[1:]))
        tensor = tf.make_tensor_proto(batch).SerializeToString(deterministic=True)
        # The messages PredictionLog.predict_log.request, PredictRequest.model_spec and .inputs.
        request = field(1, spec) + field(2, map_entry(contract.input_name.encode(), tensor))
        records.append(frame(field(6, field(1, request))))
    _write(export_dir / WARMUP_PATH, b"".join(records))


def _write(path: Path, data: bytes) -> None:
    # The export is synced as a whole before it gets its name.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
