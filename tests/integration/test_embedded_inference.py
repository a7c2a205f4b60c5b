"""TensorFlow models behind Classify, Regress, MultiInference and warm-up; tensors as TensorFlow itself writes them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.embedded_server.catalogue import ModelVersion
from serving.embedded_server.example_methods import CLASSIFY, REGRESS
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.multi_inference import multi_inference
from serving.embedded_server.predict import predict
from serving.embedded_server.session import load_session
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.warm_up import warm_up
from serving.embedded_server.wire_tensors import to_array, to_tensor
from serving.protos import tfs_pb2
from serving.warm_up_records import WARM_UP_PATH, write_warm_up_requests

CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"
NUMPY_TYPES = {"bfloat16": ml_dtypes.bfloat16, "bool": np.bool_, "string": object}


LISTS = st.one_of(
    st.lists(st.floats(width=32), max_size=3).map(
        lambda values: tfs_pb2.Feature(float_list=tfs_pb2.FloatList(value=values))
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(
        lambda values: tfs_pb2.Feature(int64_list=tfs_pb2.Int64List(value=values))
    ),
    st.lists(st.binary(max_size=9), max_size=3).map(
        lambda values: tfs_pb2.Feature(bytes_list=tfs_pb2.BytesList(value=values))
    ),
    st.just(tfs_pb2.Feature()),
)
EXAMPLES = st.dictionaries(st.sampled_from(["x", "x2", "", "\u00e9"]), LISTS, max_size=3).map(
    lambda features: tfs_pb2.Example(features=tfs_pb2.Features(feature=features))
)
INPUTS = st.one_of(
    st.lists(EXAMPLES, max_size=4).map(lambda found: input_of(*found)),
    st.builds(tfs_pb2.ExampleListWithContext, examples=st.lists(EXAMPLES, max_size=4), context=EXAMPLES).map(
        lambda found: tfs_pb2.Input(example_list_with_context=found)
    ),
    st.just(tfs_pb2.Input()),
)


@pytest.fixture(scope="module")
def models(repository: Path) -> ModuleType:
    """The module tests/serving_models.py."""
    spec = importlib.util.spec_from_file_location("serving_models", repository / "tests/serving_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelVersion]:
    """Return a loaded version of a model of that module, by its name there."""
    entries: dict[str, ModelVersion] = {}

    def load(name: str, *arguments: Any) -> ModelVersion:
        if name not in entries:
            path = getattr(models, name)(tmp_path_factory.mktemp(name) / "3", *arguments)
            entries[name] = ModelVersion(name, 3, path)
            entries[name].loaded = load_session(path, tags=("serve",), intra_op_threads=1, inter_op_threads=2)
        return entries[name]

    return load


@pytest.fixture(scope="module")
def half(served: Callable[..., ModelVersion]) -> ModelVersion:
    return served("half_plus_two")


def example(**features: float) -> tfs_pb2.Example:
    found = tfs_pb2.Example()
    for name, value in features.items():
        found.features.feature[name].float_list.value.append(value)
    return found


def input_of(*examples: tfs_pb2.Example) -> tfs_pb2.Input:
    return tfs_pb2.Input(example_list=tfs_pb2.ExampleList(examples=examples))


def classification(entry: ModelVersion, name: str, request_input: tfs_pb2.Input) -> list[list[tuple[str, float]]]:
    spec = tfs_pb2.ModelSpec(name=entry.model, signature_name=name)
    request = tfs_pb2.ClassificationRequest(model_spec=spec, input=request_input)
    answer = CLASSIFY.answer(entry, request, timeout_seconds=60.0, is_method_name_checked=True)
    return [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications]


def regression(entry: ModelVersion, name: str, request_input: tfs_pb2.Input) -> list[float]:
    spec = tfs_pb2.ModelSpec(name=entry.model, signature_name=name)
    request = tfs_pb2.RegressionRequest(model_spec=spec, input=request_input)
    answer = REGRESS.answer(entry, request, timeout_seconds=60.0, is_method_name_checked=True)
    return [each.value for each in answer.result.regressions]


def prediction(entry: ModelVersion, name: str = "", **inputs: np.ndarray) -> dict[str, np.ndarray]:
    request = tfs_pb2.PredictRequest(model_spec=tfs_pb2.ModelSpec(name=entry.model, signature_name=name))
    for alias, array in inputs.items():
        to_tensor(array, request.inputs[alias])
    answer = predict(entry, request, timeout_seconds=60.0)
    return {alias: to_array(tensor, alias=alias) for alias, tensor in answer.outputs.items()}


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


class TestMethods:
    examples = (example(x=2.0), example(x=-4.0, x2=4.0))

    def test_regressions(self, half: ModelVersion) -> None:
        assert regression(half, "regress_x_to_y", input_of(*self.examples)) == [3.0, 0.0]
        assert regression(half, "regress_x_to_y2", input_of(*self.examples)) == [4.0, 1.0]
        assert regression(half, "regress_x2_to_y3", input_of(*self.examples)) == [3.0, 5.0]

    def test_classifications(self, half: ModelVersion) -> None:
        two = input_of(*self.examples)
        assert classification(half, "classify_x_to_y", two) == [[("", 3.0)], [("", 0.0)]]
        assert classification(half, "classify_x2_to_y3", two) == [
            [("y3", 3.0), ("minus", -3.0)],
            [("y3", 5.0), ("minus", -5.0)],
        ]
        assert classification(half, "classify_x_to_sign", two) == [[("positive", 0.0)], [("negative", 0.0)]]

    def test_a_context_gives_what_an_example_lacks(self, half: ModelVersion) -> None:
        request_input = tfs_pb2.Input()
        request_input.example_list_with_context.context.CopyFrom(example(x=10.0, x2=20.0))
        request_input.example_list_with_context.examples.extend([example(), example(x=2.0), example(x2=2.0)])
        assert regression(half, "regress_x_to_y", request_input) == [7.0, 3.0, 7.0]
        assert regression(half, "regress_x2_to_y3", request_input) == [13.0, 13.0, 4.0]

    def test_all_of_them_at_once(self, half: ModelVersion) -> None:
        request = tfs_pb2.MultiInferenceRequest(input=input_of(*self.examples))
        names = {
            "regress_x_to_y": REGRESS_METHOD,
            "classify_x2_to_y3": CLASSIFY_METHOD,
            "regress_x_to_y2": REGRESS_METHOD,
        }
        for name, method in names.items():
            request.tasks.add(model_spec=tfs_pb2.ModelSpec(name="m", signature_name=name), method_name=method)
        first, second, third = multi_inference(half, request, timeout_seconds=60.0).results
        assert [each.value for each in first.regression_result.regressions] == [3.0, 0.0]
        assert [row.classes[1].score for row in second.classification_result.classifications] == [-3.0, -5.0]
        assert [each.value for each in third.regression_result.regressions] == [4.0, 1.0]
        assert [each.model_spec.signature_name for each in (first, second, third)] == list(names)

    def test_predict_takes_the_signatures_of_the_others(self, half: ModelVersion) -> None:
        serialized = np.array([each.SerializeToString() for each in self.examples], dtype=object)
        assert prediction(half, "regress_x_to_y", inputs=serialized)["outputs"].tolist() == [[3.0], [0.0]]

    def test_a_great_many_examples(self, half: ModelVersion) -> None:
        many = input_of(*[example(x=float(number)) for number in range(50_000)])
        assert regression(half, "regress_x_to_y", many)[-2:] == [49_998 / 2 + 2, 49_999 / 2 + 2]


class TestRefusals:
    @pytest.mark.parametrize(
        "features",
        [
            {},
            {"x": tfs_pb2.Feature(int64_list=tfs_pb2.Int64List(value=[2]))},
            {"x": tfs_pb2.Feature(bytes_list=tfs_pb2.BytesList(value=[b"2"]))},
            {"x": tfs_pb2.Feature(float_list=tfs_pb2.FloatList(value=[1.0, 2.0]))},
            {"x": tfs_pb2.Feature()},
        ],
        ids=["none", "integer", "bytes", "two", "empty"],
    )
    def test_features_that_the_graph_does_not_take(
        self, half: ModelVersion, features: dict[str, tfs_pb2.Feature]
    ) -> None:
        wrong = tfs_pb2.Example(features=tfs_pb2.Features(feature=features))
        for good in ((), (example(x=1.0),)):
            with pytest.raises(StatusError, match=r"Feature: x|Key: x") as caught:
                regression(half, "regress_x_to_y", input_of(*good, wrong))
            assert caught.value.code is Code.INVALID_ARGUMENT
        assert regression(half, "regress_x_to_y", input_of(example(x=2.0))) == [3.0]

    def test_a_run_that_takes_too_long(self, served: Callable[..., ModelVersion]) -> None:
        request = tfs_pb2.PredictRequest(model_spec=tfs_pb2.ModelSpec(name="m"))
        to_tensor(floats(1.0), request.inputs["x"])
        with pytest.raises(StatusError) as caught:
            predict(served("endless"), request, timeout_seconds=0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED

    @settings(deadline=None, max_examples=150)
    @given(data=st.data())
    def test_whatever_is_sent_is_answered_or_refused(self, half: ModelVersion, data: st.DataObject) -> None:
        names = st.sampled_from(["", "none", *half.loaded.signature_defs])
        methods = st.sampled_from([CLASSIFY_METHOD, REGRESS_METHOD, "", "x"])
        request_input = data.draw(INPUTS)
        spec = tfs_pb2.ModelSpec(name="m", signature_name=data.draw(names))
        classify_request = tfs_pb2.ClassificationRequest(model_spec=spec, input=request_input)
        regress_request = tfs_pb2.RegressionRequest(model_spec=spec, input=request_input)
        inference_request = tfs_pb2.MultiInferenceRequest(input=request_input)
        for name, method in data.draw(st.lists(st.tuples(names, methods), max_size=3)):
            inference_request.tasks.add(model_spec=tfs_pb2.ModelSpec(name="m", signature_name=name), method_name=method)
        outcomes = {
            outcome(lambda: CLASSIFY.answer(half, classify_request, timeout_seconds=60.0)),
            outcome(lambda: REGRESS.answer(half, regress_request, timeout_seconds=60.0)),
            outcome(lambda: multi_inference(half, inference_request, timeout_seconds=60.0)),
        }
        assert outcomes <= {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED"}


def outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except StatusError as error:
        return error.code.name
    return "OK"


class TestWarmUp:
    def test_requests_of_every_method_run_in_the_graph(
        self, half: ModelVersion, served: Callable[..., ModelVersion], tmp_path: Path
    ) -> None:
        spec = tfs_pb2.ModelSpec(name="any", signature_name="regress_x_to_y")
        predict_request = tfs_pb2.PredictRequest()
        to_tensor(floats(1.0), predict_request.inputs["x"])
        regress_request = tfs_pb2.RegressionRequest(model_spec=spec, input=input_of(example(x=1.0)))
        write_warm_up_requests(tmp_path / WARM_UP_PATH, [predict_request, regress_request])
        metrics = Metrics()
        assert warm_up(half.loaded, tmp_path, iterations=2, metrics=metrics) == 2
        assert f'model_path="{tmp_path}",status="OK"' in metrics.text()
        regress_request.input.CopyFrom(input_of(example(z=1.0)))
        write_warm_up_requests(tmp_path / WARM_UP_PATH, [regress_request])
        with pytest.raises(StatusError, match="Feature: x") as caught:
            warm_up(half.loaded, tmp_path, iterations=1)
        assert caught.value.code is Code.INVALID_ARGUMENT

    def test_each_iteration_is_a_run(self, served: Callable[..., ModelVersion], tmp_path: Path) -> None:
        counter = served("counter")
        spec = tfs_pb2.ModelSpec(signature_name="incr_counter")
        write_warm_up_requests(tmp_path / WARM_UP_PATH, [tfs_pb2.PredictRequest(model_spec=spec)] * 2)
        assert prediction(counter, "reset_counter")["output"] == 0.0
        warm_up(counter.loaded, tmp_path, iterations=3)
        assert prediction(counter, "get_counter")["output"] == 6.0

    def test_tensorflow_reads_the_file(self, tmp_path: Path) -> None:
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        spec = tfs_pb2.ModelSpec(name="m", signature_name="s")
        requests = [tfs_pb2.PredictRequest(model_spec=spec), tfs_pb2.ClassificationRequest(model_spec=spec)]
        write_warm_up_requests(tmp_path / "file", requests)
        logs = [
            prediction_log_pb2.PredictionLog.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(tmp_path / "file"))
        ]
        assert [log.WhichOneof("log_type") for log in logs] == ["predict_log", "classify_log"]
        assert logs[1].classify_log.request.model_spec.signature_name == "s"


def some_values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name == "string":
        return np.resize(np.array([b"", b"short", b"\x00\xff", b"long " * 100], dtype=object), shape)
    return np.resize(np.arange(7), shape).astype(NUMPY_TYPES.get(name, name))


def type_names(repository: Path) -> list[str]:
    spec = importlib.util.spec_from_file_location("serving_models", repository / "tests/serving_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.TYPES)


@pytest.mark.parametrize("name", type_names(Path(__file__).parents[2]))
class TestTypes:
    @pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
    def test_a_tensor_comes_back_from_the_graph_as_it_went(
        self, served: Callable[..., ModelVersion], name: str, shape: tuple[int, ...]
    ) -> None:
        array = some_values(name, shape)
        back = prediction(served("many_types"), name, x=array)["y"]
        assert (back.dtype, back.shape, back.tolist()) == (array.dtype, array.shape, array.tolist())

    @pytest.mark.parametrize("as_content", [False, True])
    def test_tensorflow_reads_what_is_written(self, name: str, as_content: bool) -> None:
        import tensorflow as tf
        from tensorflow.core.framework import tensor_pb2

        array = some_values(name, (2, 3))
        tensor = tfs_pb2.Tensor()
        to_tensor(array, tensor, as_content=as_content)
        serialized = tensor.SerializeToString()
        in_python = tf.make_ndarray(tensor_pb2.TensorProto.FromString(serialized))
        in_cpp = tf.io.parse_tensor(serialized, tf.as_dtype(name)).numpy()
        for found in (in_python, in_cpp):
            assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())

    def test_what_tensorflow_writes_is_read(self, name: str) -> None:
        import tensorflow as tf

        array = some_values(name, (2, 3))
        in_cpp = tf.io.serialize_tensor(tf.constant(array, tf.as_dtype(name))).numpy()
        in_python = tf.make_tensor_proto(array, dtype=tf.as_dtype(name)).SerializeToString()
        for serialized in (in_cpp, in_python):
            found = to_array(tfs_pb2.Tensor.FromString(serialized), alias="x")
            assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())


def test_quantised_types_are_said_to_be_unsupported(models: ModuleType, served: Callable[..., ModelVersion]) -> None:
    entry = served("many_types")
    for name in models.QUANTISED_TYPES:
        request = tfs_pb2.PredictRequest(model_spec=tfs_pb2.ModelSpec(name="m", signature_name=name))
        request.inputs["x"].CopyFrom(tfs_pb2.Tensor(dtype=f"DT_{name.upper()}", int_val=[1]))
        with pytest.raises(StatusError, match=f"Tensors of type {name} are not supported") as caught:
            predict(entry, request, timeout_seconds=60.0)
        assert caught.value.code is Code.UNIMPLEMENTED


class TestModels:
    """What the test models say of themselves, for the tests that rest on them."""

    def test_half_plus_three(self, served: Callable[..., ModelVersion]) -> None:
        assert prediction(served("half_plus_three"), x=floats(1.0, 2.0, 5.0))["y"].tolist() == [3.5, 4.0, 5.5]

    def test_matrix_half_plus_two(self, served: Callable[..., ModelVersion]) -> None:
        found = prediction(served("matrix_half_plus_two"), x=np.ones((3, 2, 2), np.float32))["y"]
        assert found.tolist() == np.full((3, 2, 2), 2.5).tolist()

    def test_strings(self, served: Callable[..., ModelVersion]) -> None:
        texts = np.array([b"a", b"\xff\x00"], dtype=object)
        found = prediction(served("strings"), text=texts)
        assert found["echo"].tolist() == found["echo_bytes"].tolist() == texts.tolist()
        assert found["length"].tolist() == [1, 2]

    def test_wide(self, served: Callable[..., ModelVersion]) -> None:
        found = prediction(served("wide"), x=np.array([[1, 2, 3], [4, 5, 6]], np.float32))
        assert (found["total"].tolist(), found["width"].tolist()) == ([6.0, 15.0], [3, 3])

    def test_the_counter_begins_at_zero_because_its_init_op_ran(self, models: ModuleType, tmp_path: Path) -> None:
        path = models.counter(tmp_path / "1")
        entry = ModelVersion("counter", 1, path)
        entry.loaded = load_session(path, tags=("serve",), intra_op_threads=1, inter_op_threads=1)
        delta = np.array(2.5, np.float32)
        assert prediction(entry, "get_counter")["output"] == 0.0
        assert prediction(entry, "incr_counter")["output"] == 1.0
        assert prediction(entry, "incr_counter_by", delta=delta)["output"] == 3.5
        assert prediction(entry, "get_counter")["output"].shape == ()
        entry.loaded.close()
