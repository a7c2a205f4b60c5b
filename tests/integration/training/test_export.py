"""Exports: what a model server gets, weights stored once, answers checked after loading from disk."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from artifact_sync.errors import SettingsError, TrainingError
from artifact_sync.records import GoldenExamples, InputContract
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from training_cluster.config.tables import ModelTable
from training_cluster.exports import export as export_module
from training_cluster.exports.export import export_model, probabilities_of_export
from training_cluster.exports.graph_operations import SERVED_OPERATIONS, reachable_operations
from training_cluster.networks.network import ARCHITECTURES, build_model
from validation.programs.model_scan import scan_export
from validation.programs.scan_graph import SERVING_OPERATIONS

_LABELS = ("ok", "scratch", "größe")
_GREY = InputContract(height=32, width=32, channels=1)


def _pixels(count: int, contract: InputContract = _GREY) -> np.ndarray:
    shape = (count, contract.height, contract.width, contract.channels)
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def _exported(directory: Path, architecture: str, contract: InputContract = _GREY) -> tuple[keras.Model, Any]:
    keras.utils.set_random_seed(5)
    table = ModelTable(architecture=architecture, widths=(8, 8), dense_units=16, dropout=0.5, width_multiplier=0.35)
    model = build_model(table, contract=contract, class_count=3)
    report = export_model(
        model,
        export_dir=directory,
        contract=contract,
        labels=_LABELS,
        model_name="parts",
        sample_pixels=_pixels(20, contract),
    )
    return model, report


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_network_is_exported_with_its_own_answers_and_passes_the_gates_scan(
    tmp_path: Path, architecture: str
) -> None:
    contract = _GREY.model_copy(update={"channels": 3})
    model, report = _exported(tmp_path / "export", architecture, contract)
    loaded = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    pixels = _pixels(5, contract)
    answer = loaded(pixels=tf.constant(pixels))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in answer.items()} == {
        "probabilities": (tf.float32, (5, 3)),
        "logits": (tf.float32, (5, 3)),
    }
    np.testing.assert_allclose(answer["logits"], model(pixels, training=False), atol=1e-4)
    np.testing.assert_allclose(answer["probabilities"].numpy().sum(axis=1), 1, atol=1e-5)
    assert report.parity_difference <= 1e-4
    scan_export(tmp_path / "export", contract=contract, classes=len(_LABELS))
    # Each weight is stored once; the rest is the graph of objects.
    weights_bytes = sum(variable.numpy().nbytes for variable in model.variables if "seed" not in variable.path)
    stored = next((tmp_path / "export" / "variables").glob("variables.data*")).stat().st_size
    assert weights_bytes <= stored <= weights_bytes + 120_000


def test_the_exporters_list_of_operations_is_within_the_gates() -> None:
    assert SERVED_OPERATIONS <= SERVING_OPERATIONS


def test_labels_golden_examples_and_warm_up_lie_beside_the_model(tmp_path: Path) -> None:
    _exported(tmp_path / "export", "small-cnn")
    extra = tmp_path / "export" / "assets.extra"
    assert json.loads((extra / "labels.json").read_text(encoding="utf-8")) == list(_LABELS)

    golden = GoldenExamples.from_json((tmp_path / "export" / GOLDEN_EXAMPLES_PATH).read_bytes())
    assert len(golden.examples) == 8
    pixels = np.stack([np.frombuffer(base64.b64decode(one.pixels_base64), np.uint8) for one in golden.examples])
    pixels = pixels.reshape(-1, golden.height, golden.width, golden.channels)
    np.testing.assert_array_equal(pixels, _pixels(20)[:8])
    replayed = probabilities_of_export(tmp_path / "export", pixels, contract=_GREY)
    expected = np.array([one.scores for one in golden.examples])
    assert np.abs(replayed - expected).max() <= golden.tolerance

    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(extra / "tf_serving_warmup_requests"))
    ]
    requests = [log.predict_log.request for log in logs]
    assert {(request.model_spec.name, request.model_spec.signature_name) for request in requests} == {
        ("parts", "serving_default")
    }
    assert [tf.make_ndarray(request.inputs["pixels"]).shape for request in requests] == [
        (count, 32, 32, 1) for count in (1, 8, 32)
    ]


def test_the_same_model_gives_the_same_weights_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _exported(tmp_path / name, "small-cnn-batchnorm")
    data = [(tmp_path / name / "variables" / "variables.data-00000-of-00001").read_bytes() for name in ("one", "two")]
    assert data[0] == data[1]


def test_a_model_with_operations_that_hosts_refuse_is_not_exported(tmp_path: Path) -> None:
    pixels = keras.Input((32, 32, 1), dtype="uint8", name="pixels")
    encoded = keras.layers.Lambda(lambda x: tf.cast(tf.io.decode_raw(tf.strings.as_string(x), tf.uint8), tf.float32))
    logits = keras.layers.Lambda(lambda x: tf.reshape(x, [-1, 1024])[:, :3])(encoded(pixels))
    with pytest.raises(TrainingError, match="uses the operations AsString, DecodeRaw"):
        export_model(
            keras.Model(pixels, logits),
            export_dir=tmp_path / "export",
            contract=_GREY,
            labels=_LABELS,
            model_name="parts",
            sample_pixels=_pixels(4),
        )
    assert not (tmp_path / "export").exists()


def test_an_export_that_answers_otherwise_than_the_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers_of_another_model(*_arguments: Any, **_named: Any) -> np.ndarray:
        return np.full((20, 3), np.nan, np.float32)

    monkeypatch.setattr(export_module, "probabilities_of_export", answers_of_another_model)
    with pytest.raises(TrainingError, match="its probabilities differ by up to nan"):
        _exported(tmp_path / "export", "small-cnn")
    assert not (tmp_path / "export").exists()


def test_what_an_interrupted_export_left_is_replaced(tmp_path: Path) -> None:
    for leftover in ("export", ".tmp-export"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "half").write_bytes(b"x")
    _exported(tmp_path / "export", "small-cnn")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert not (tmp_path / "export" / "half").exists()


def test_operations_hidden_in_nested_functions_are_seen(tmp_path: Path) -> None:
    module = tf.Module()

    @tf.function
    def inner(pixels: Any) -> Any:
        return tf.strings.length(tf.strings.as_string(pixels))

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.uint8, name="pixels")])
    def outer(pixels: Any) -> dict[str, Any]:
        return {"out": tf.cond(tf.shape(pixels)[0] > 0, lambda: inner(pixels), lambda: tf.zeros_like(pixels, tf.int32))}

    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": outer.get_concrete_function()})
    assert {"AsString", "StringLength"} <= reachable_operations(tmp_path, signature_name="serving_default")


def test_pictures_that_a_network_cannot_take_are_refused() -> None:
    with pytest.raises(SettingsError, match="mobilenet-v2 cannot take"):
        build_model(
            ModelTable(architecture="mobilenet-v2"),
            contract=InputContract(height=8, width=8, channels=3),
            class_count=3,
        )
