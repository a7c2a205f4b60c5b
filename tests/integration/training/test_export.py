"""Exports: what a model server gets, normalisation folded away, answers checked after loading from disk."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from artifact_sync.errors import SettingsError, TrainingError
from artifact_sync.manifest import verify_manifest
from artifact_sync.records import GoldenExamples, InputContract, RunRecord
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH, RunFolder
from training_cluster.config.tables import ExportTable, ModelTable
from training_cluster.exports import variant as variant_module
from training_cluster.exports.answers import answer_of_export, answer_of_model
from training_cluster.exports.bfloat16 import in_bfloat16
from training_cluster.exports.flat_graph import FlatGraph, flat_graph
from training_cluster.exports.folding import folded
from training_cluster.exports.graph_operations import SERVED_OPERATIONS, reachable_operations
from training_cluster.exports.run_export import ExportedRun, TrainedModel, export_run, refuse_unexportable
from training_cluster.networks.network import build_model
from validation.programs.model_scan import scan_export
from validation.programs.scan_graph import SERVING_OPERATIONS

_LABELS = ("ok", "scratch", "größe")
_GREY = InputContract(height=32, width=32, channels=1)
_COLOUR = InputContract(height=32, width=32, channels=3)


def _pixels(count: int, contract: InputContract = _GREY) -> np.ndarray:
    shape = (count, contract.height, contract.width, contract.channels)
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def _model(architecture: str, contract: InputContract = _GREY, **named: Any) -> keras.Model:
    """Return a network whose normalisations have something to do, as after training."""
    keras.utils.set_random_seed(5)
    table = ModelTable(architecture=architecture, widths=(8, 8), dense_units=16, dropout=0.5, width_multiplier=0.35)
    model = build_model(table, contract=contract, class_count=3, **named)
    _stir(model)
    return model


def _stir(model: keras.Model) -> None:
    chance = np.random.default_rng(11)
    for variable in model.variables:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(chance.uniform(0.7, 1.4, variable.shape))
        elif variable.path.endswith(("beta", "moving_mean")):
            variable.assign(chance.normal(0, 0.3, variable.shape))


def _export(
    model: keras.Model, folder: RunFolder, contract: InputContract = _GREY, **table: Any
) -> tuple[ExportedRun, list[str]]:
    said: list[str] = []
    batches = [(_pixels(20, contract), np.zeros(20, np.int64))]
    trained = TrainedModel(model, "parts", contract, _LABELS, validation=lambda: iter(batches))
    return export_run(trained, folder=folder, table=ExportTable(**table), report=said.append), said


def _record(folder: RunFolder, exported: ExportedRun) -> RunRecord:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    return RunRecord(
        run_id=folder.run_id,
        model="parts",
        trained_by="ada",
        started_at=now,
        finished_at=now,
        code_commit="c0ffee",
        code_dirty=False,
        data_manifest_sha256="1" * 64,
        config={},
        config_sha256="2" * 64,
        seed=1,
        is_deterministic=True,
        environment=exported.notes,
        hardware={},
        metrics={"steps": 9.0, "validation_accuracy": 0.5, "validation_loss": 0.1, **exported.metrics},
        labels=_LABELS,
        input_contract=_GREY,
    )


def _operations(graph: FlatGraph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes.values())


def _answers(graph: FlatGraph, pixels: np.ndarray) -> np.ndarray:
    @tf.function
    def logits(given: Any) -> Any:
        return tf.graph_util.import_graph_def(
            graph.definition(), {graph.pixels: given}, return_elements=[f"{graph.logits}:0"]
        )

    return logits(tf.constant(pixels))[0].numpy()


@pytest.mark.parametrize(
    ("architecture", "layers"), [("small-cnn", 0), ("small-cnn-batchnorm", 2), ("mobilenet-v2", 52)]
)
def test_a_network_is_exported_with_its_own_answers_and_passes_the_gates_scan(
    tmp_path: Path, architecture: str, layers: int
) -> None:
    folder = RunFolder(tmp_path / "run-1")
    model = _model(architecture, _COLOUR)
    exported, _ = _export(model, folder, _COLOUR)
    loaded = tf.saved_model.load(str(folder.export)).signatures["serving_default"]
    pixels = _pixels(5, _COLOUR)
    answer = loaded(pixels=tf.constant(pixels))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in answer.items()} == {
        "probabilities": (tf.float32, (5, 3)),
        "logits": (tf.float32, (5, 3)),
    }
    np.testing.assert_allclose(answer["logits"], model(pixels, training=False), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(answer["probabilities"].numpy().sum(axis=1), 1, atol=1e-5)
    scan_export(folder.export, contract=_COLOUR, classes=len(_LABELS))

    assert exported.metrics["export_folded_layers"] == layers
    assert exported.metrics["export_parity_difference"] <= 1e-4
    assert exported.metrics["export_parity_examples"] == 20
    assert all(exported.metrics[f"export_speedup_batch_{size}"] > 0 for size in (1, 8, 32))
    assert exported.notes == {}
    # Each weight is stored once and nothing of a normalisation but an offset; the rest is the graph of objects.
    normalised = ("gamma", "moving_mean", "moving_variance")
    weights = [one for one in model.variables if "seed" not in one.path and not one.path.endswith(normalised)]
    stored = next((folder.export / "variables").glob("variables.data*")).stat().st_size
    weights_bytes = sum(weight.numpy().nbytes for weight in weights)
    assert weights_bytes * 0.99 <= stored <= weights_bytes + 60_000


def test_all_that_scales_and_shifts_channels_is_folded_and_nothing_else() -> None:
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    stage = keras.layers.Rescaling(1 / 255.0)(pixels)
    stage = keras.layers.Conv2D(4, 3, use_bias=True, name="with_bias")(stage)
    stage = keras.layers.BatchNormalization()(stage)
    stage = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="by_channel")(stage)
    stage = keras.layers.BatchNormalization(scale=False)(stage)
    stage = keras.layers.Conv2D(8, 1, name="read_twice")(stage)
    stage = keras.layers.Add()([stage, keras.layers.BatchNormalization()(stage)])
    shared = keras.layers.Conv2D(8, 1, name="shared")
    stage = shared(shared(stage))
    stage = keras.layers.BatchNormalization()(stage)
    stage = keras.layers.Conv2D(5, 1, name="fused")(stage)
    one = tf.constant([0.5, 2.0, 1.0, 1.5, 3.0])
    stage = keras.layers.Lambda(
        lambda x: tf.compat.v1.nn.fused_batch_norm(x, one, one, mean=one, variance=one, is_training=False)[0]
    )(stage)
    stage = keras.layers.GlobalAveragePooling2D()(stage)
    stage = keras.layers.Dense(6, name="hidden")(stage)
    stage = keras.layers.Lambda(lambda x: (1.0 - x) / tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))(stage)
    model = keras.Model(pixels, keras.layers.Dense(3, name="scores")(keras.layers.Activation("relu")(stage)))
    _stir(model)

    graph = flat_graph(model, contract=_COLOUR)
    small, layers = folded(graph)
    # with_bias, by_channel, fused and dense take something in; read_twice and shared cannot.
    assert layers == 4
    assert _operations(graph)["FusedBatchNormV3"] == 1
    assert _operations(small)["FusedBatchNormV3"] == 0
    # The scaling of the pixels, and the normalisations behind read_twice and shared.
    assert _operations(small)["Mul"] == 3
    batch = _pixels(6, _COLOUR)
    expected = model(batch, training=False)
    np.testing.assert_allclose(_answers(graph, batch), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(_answers(small, batch), expected, rtol=1e-4, atol=1e-4)

    halved = in_bfloat16(small)
    kinds = {node.name: node.attr["T"].type for node in halved.nodes.values() if node.op in ("Conv2D", "MatMul")}
    assert Counter(kinds.values()) == {tf.bfloat16.as_datatype_enum: 6, tf.float32.as_datatype_enum: 1}
    assert kinds["MatMul_" + str(max(int(name.split("_")[1]) for name in kinds if "MatMul" in name))] == 1
    np.testing.assert_allclose(_answers(halved, batch), expected, rtol=0.05, atol=0.05)


def _in_groups(groups: int) -> keras.Model:
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    stage = keras.layers.Conv2D(8, 3, strides=2)(keras.layers.Rescaling(1 / 255.0)(pixels))
    stage = keras.layers.Conv2D(16, 5, padding="same", groups=groups, name="grouped")(stage)
    stage = keras.layers.BatchNormalization()(stage)
    stage = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("gelu")(stage))
    model = keras.Model(pixels, keras.layers.Dense(3)(stage))
    _stir(model)
    return model


def test_channels_that_are_convolved_on_their_own_need_no_xla() -> None:
    model = _in_groups(8)
    small, layers = folded(flat_graph(model, contract=_COLOUR))
    assert layers == 1
    assert _operations(small)["DepthwiseConv2dNative"] == 1
    assert not any("Call" in operation for operation in _operations(small))
    batch = _pixels(6, _COLOUR)
    np.testing.assert_allclose(_answers(small, batch), model(batch, training=False), rtol=1e-4, atol=1e-4)


def test_convolutions_in_groups_of_several_channels_are_refused() -> None:
    with pytest.raises(TrainingError, match="convolves 8 channels in groups of 4"):
        refuse_unexportable(_in_groups(2), contract=_COLOUR)
    refuse_unexportable(_in_groups(8), contract=_COLOUR)


def test_the_exporters_list_of_operations_is_within_the_gates() -> None:
    assert SERVED_OPERATIONS <= SERVING_OPERATIONS


def test_labels_golden_examples_and_warm_up_lie_beside_the_model(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    _export(_model("small-cnn"), folder)
    extra = folder.export / "assets.extra"
    assert json.loads((extra / "labels.json").read_text(encoding="utf-8")) == list(_LABELS)

    golden, pixels = _golden(folder)
    assert golden.tolerance == 1e-3
    np.testing.assert_array_equal(pixels, _pixels(20)[:8])
    replayed = answer_of_export(folder.export, contract=_GREY)(pixels)
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


def _golden(folder: RunFolder) -> tuple[GoldenExamples, np.ndarray]:
    golden = GoldenExamples.from_json((folder.export / GOLDEN_EXAMPLES_PATH).read_bytes())
    pixels = np.stack([np.frombuffer(base64.b64decode(one.pixels_base64), np.uint8) for one in golden.examples])
    return golden, pixels.reshape(-1, golden.height, golden.width, golden.channels)


def test_the_same_model_gives_the_same_weights_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _export(_model("small-cnn-batchnorm"), RunFolder(tmp_path / name))
    weights = "export/variables/variables.data-00000-of-00001"
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "two" / weights).read_bytes()


def test_a_model_may_be_exported_as_it_stands(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    model = _model("small-cnn-batchnorm")
    exported, _ = _export(model, folder, is_folded=False)
    assert set(exported.metrics) == {"export_bytes", "export_parity_difference", "export_parity_examples"}
    assert "Rsqrt" in reachable_operations(folder.export, signature_name="serving_default")
    scan_export(folder.export, contract=_GREY, classes=len(_LABELS))


def test_the_bfloat16_variant_is_a_run_of_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    model = _model("small-cnn-batchnorm")
    left = folder.variants / "run-1-bfloat16" / "half"
    left.mkdir(parents=True)
    exported, _ = _export(model, folder, variants=("bfloat16",))
    exported.describe_variants(_record(folder, exported))

    variant = RunFolder(folder.variants / "run-1-bfloat16")
    assert sorted(path.name for path in variant.path.iterdir()) == ["export", "manifest.json", "run.json"]
    verify_manifest(variant.export, variant.read_manifest())
    run = variant.read_run()
    assert run.run_id == "run-1-bfloat16"
    assert run.metrics["steps"] == 9
    # Of the run only what is about the training; accuracy and export are the variant's own.
    assert run.metrics["export_bytes"] < exported.metrics["export_bytes"]
    assert run.metrics["export_same_label_share"] == 1
    assert run.metrics["validation_accuracy"] != 0.5
    assert "validation_loss" not in run.metrics
    assert exported.metrics["export_bfloat16_speedup_batch_8"] == run.metrics["export_speedup_batch_8"]

    scan_export(variant.export, contract=_GREY, classes=len(_LABELS))
    golden, pixels = _golden(variant)
    assert golden.tolerance == 0.05
    answer = answer_of_export(variant.export, contract=_GREY)
    assert np.abs(answer(pixels) - np.array([one.scores for one in golden.examples])).max() <= 1e-3
    difference = np.abs(answer(_pixels(20)) - answer_of_model(model)(_pixels(20))).max()
    assert 0 < difference == pytest.approx(run.metrics["export_parity_difference"], abs=0.01)


def test_a_variant_that_answers_otherwise_is_left_out_and_the_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant_module, "BFLOAT16_TOLERANCE", 0.0)
    folder = RunFolder(tmp_path / "run-1")
    exported, said = _export(_model("small-cnn"), folder, variants=("bfloat16",))
    assert (folder.export / "saved_model.pb").is_file()
    assert list(folder.variants.iterdir()) == []
    assert exported.variants == ()
    assert exported.notes["export_bfloat16"].startswith("refused: of 20 validation pictures 100.00% keep their label")
    assert said[-2].startswith("the variant bfloat16 is left out: of 20 validation pictures")


def test_a_run_whose_variant_would_have_too_long_a_name_is_exported_without(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / ("r" * 60))
    exported, _ = _export(_model("small-cnn"), folder, variants=("bfloat16",))
    assert (folder.export / "saved_model.pb").is_file()
    assert "is no run id, it is too long" in exported.notes["export_bfloat16"]


def test_a_model_that_was_trained_in_16_bits_is_exported_in_32(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    model = _model("small-cnn-batchnorm", number_format="bfloat16")
    before = answer_of_model(model)(_pixels(20))
    exported, _ = _export(model, folder)
    assert exported.notes["export_number_format"] == "float32, trained in mixed precision"
    served = answer_of_export(folder.export, contract=_GREY)(_pixels(20))
    assert 1e-6 < np.abs(served - before).max() < 0.05
    # The model goes on as it was.
    np.testing.assert_array_equal(answer_of_model(model)(_pixels(20)), before)


def test_a_model_with_operations_that_hosts_refuse_is_not_exported(tmp_path: Path) -> None:
    pixels = keras.Input((32, 32, 1), dtype="uint8", name="pixels")
    encoded = keras.layers.Lambda(lambda x: tf.cast(tf.io.decode_raw(tf.strings.as_string(x), tf.uint8), tf.float32))
    logits = keras.layers.Lambda(lambda x: tf.reshape(x, [-1, 1024])[:, :3])(encoded(pixels))
    for is_folded in (True, False):
        with pytest.raises(TrainingError, match="uses the operations AsString, DecodeRaw"):
            _export(keras.Model(pixels, logits), RunFolder(tmp_path / "run-1"), is_folded=is_folded)
    assert not (tmp_path / "run-1" / "export").exists()


def test_an_export_whose_answers_are_no_numbers_is_refused(tmp_path: Path) -> None:
    model = _model("small-cnn")
    # In the last layer: a maximum with 0 would hide it.
    model.get_layer("logits").bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(TrainingError, match="its probabilities differ by up to nan"):
        _export(model, RunFolder(tmp_path / "run-1"))
    assert not (tmp_path / "run-1" / "export").exists()


def test_what_an_interrupted_export_left_is_replaced(tmp_path: Path) -> None:
    for leftover in ("export", ".tmp-export"):
        (tmp_path / "run-1" / leftover).mkdir(parents=True)
        (tmp_path / "run-1" / leftover / "half").write_bytes(b"x")
    _export(_model("small-cnn"), RunFolder(tmp_path / "run-1"))
    assert [path.name for path in (tmp_path / "run-1").iterdir()] == ["export"]
    assert not (tmp_path / "run-1" / "export" / "half").exists()


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
