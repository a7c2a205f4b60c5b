"""Classify, Regress and MultiInference: which signatures and answers are accepted, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.embedded_server.catalogue import ModelVersion
from serving.embedded_server.example_methods import CLASSIFY, REGRESS
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.multi_inference import first_model_spec, multi_inference
from serving.embedded_server.status import Code, StatusError
from serving.protos import tfs_pb2

CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"
KINDS = {"classes": tfs_pb2.DT_STRING}


class ArithmeticModel:
    """A graph of Python functions: from the Examples that were fed to an array, by tensor name."""

    def __init__(self, signatures: Mapping[str, tfs_pb2.SignatureDef], **tensors: Callable[[list[Any]], Any]) -> None:
        self.signature_defs = signatures
        self.runs: list[tuple[list[str], list[str], float | None]] = []
        self.fed: list[bytes] = []
        self._tensors = tensors

    def run(self, feeds: Mapping[str, Any], fetches: list[str], *, timeout_seconds: float | None) -> list[Any]:
        (self.fed,) = (array.tolist() for array in feeds.values())
        self.runs.append((list(feeds), fetches, timeout_seconds))
        examples = [tfs_pb2.Example.FromString(serialized) for serialized in self.fed]
        return [self._tensors[name](examples) for name in fetches]

    def submit(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


def signature(method: str, outputs: Mapping[str, str], inputs: tuple[str, ...] = ("inputs",)) -> tfs_pb2.SignatureDef:
    """Return a signature of string inputs named examples, examples1 ..., and outputs by tensor name."""
    found = tfs_pb2.SignatureDef(method_name=method)
    for index, alias in enumerate(inputs):
        found.inputs[alias].name = f"examples{index or ''}"
    for alias, name in outputs.items():
        found.outputs[alias].CopyFrom(tfs_pb2.TensorInfo(name=name, dtype=KINDS.get(alias, tfs_pb2.DT_FLOAT)))
    return found


def values_of(examples: list[tfs_pb2.Example], feature: str = "x") -> np.ndarray:
    return np.array([example.features.feature[feature].float_list.value for example in examples], np.float32)


def halves(examples: list[tfs_pb2.Example]) -> np.ndarray:
    return values_of(examples) / 2


def names_of(examples: list[tfs_pb2.Example]) -> np.ndarray:
    return np.array([[b"low", "hoch\u00e9".encode()]] * len(examples), dtype=object)


def model_of(signatures: Mapping[str, tfs_pb2.SignatureDef], **tensors: Any) -> ModelVersion:
    entry = ModelVersion("m", 7, Path("/models/m/7"))
    given = {name: (lambda _, array=array: array) for name, array in tensors.items() if not callable(array)}
    entry.loaded = ArithmeticModel(signatures, **{**tensors, **given})
    return entry


def example(**features: float) -> tfs_pb2.Example:
    found = tfs_pb2.Example()
    for name, value in features.items():
        found.features.feature[name].float_list.value.append(value)
    return found


def input_of(*examples: tfs_pb2.Example, context: tfs_pb2.Example | None = None) -> tfs_pb2.Input:
    if context is None:
        return tfs_pb2.Input(example_list=tfs_pb2.ExampleList(examples=examples))
    return tfs_pb2.Input(example_list_with_context=tfs_pb2.ExampleListWithContext(examples=examples, context=context))


TWO = input_of(example(x=2.0), example(x=-4.0))


def classification(
    entry: ModelVersion, name: str = "", request_input: tfs_pb2.Input = TWO, **options: Any
) -> tfs_pb2.ClassificationResponse:
    spec = tfs_pb2.ModelSpec(name="m", signature_name=name)
    request = tfs_pb2.ClassificationRequest(model_spec=spec, input=request_input)
    return CLASSIFY.answer(entry, request, **{"timeout_seconds": None, **options})


def regression(
    entry: ModelVersion, name: str = "", request_input: tfs_pb2.Input = TWO, **options: Any
) -> tfs_pb2.RegressionResponse:
    spec = tfs_pb2.ModelSpec(name="m", signature_name=name)
    request = tfs_pb2.RegressionRequest(model_spec=spec, input=request_input)
    return REGRESS.answer(entry, request, **{"timeout_seconds": None, **options})


def inference(
    entry: ModelVersion, *tasks: tuple[str, str], model: str = "m", request_input: tfs_pb2.Input = TWO, **options: Any
) -> tfs_pb2.MultiInferenceResponse:
    request = tfs_pb2.MultiInferenceRequest(input=request_input)
    for name, method in tasks:
        spec = tfs_pb2.ModelSpec(name=model, signature_name=name)
        request.tasks.add(model_spec=spec, method_name=method)
    return multi_inference(entry, request, **{"timeout_seconds": None, **options})


def refusal(call: Callable[[], object]) -> tuple[Code, str]:
    with pytest.raises(StatusError) as caught:
        call()
    return caught.value.code, caught.value.message


class TestExamples:
    entry = model_of({"serving_default": signature(REGRESS_METHOD, {"outputs": "y"})}, y=halves)

    def test_each_is_fed_as_it_was_sent(self) -> None:
        regression(self.entry)
        assert [tfs_pb2.Example.FromString(fed) for fed in self.entry.loaded.fed] == list(TWO.example_list.examples)

    def test_a_context_is_part_of_each_and_its_own_features_win(self) -> None:
        context = example(x=100.0, other=1.0)
        answer = regression(self.entry, "", input_of(example(x=2.0), example(), context=context))
        assert [each.value for each in answer.result.regressions] == [1.0, 50.0]
        other = [tfs_pb2.Example.FromString(fed).features.feature["other"] for fed in self.entry.loaded.fed]
        assert [feature.float_list.value[:] for feature in other] == [[1.0], [1.0]]

    @pytest.mark.parametrize(
        "nothing", [tfs_pb2.Input(), input_of(), input_of(context=example(x=1.0))], ids=["unset", "list", "context"]
    )
    def test_none_are_refused_by_every_method(self, nothing: tfs_pb2.Input) -> None:
        entry = model_of(
            {"c": signature(CLASSIFY_METHOD, {"scores": "y"}), "r": signature(REGRESS_METHOD, {"outputs": "y"})}
        )
        expected = (Code.INVALID_ARGUMENT, "Input is empty.")
        assert refusal(lambda: classification(entry, "c", nothing)) == expected
        assert refusal(lambda: regression(entry, "r", nothing)) == expected
        assert refusal(lambda: inference(entry, ("c", CLASSIFY_METHOD), request_input=nothing)) == expected


class TestClassify:
    def test_classes_and_scores_stand_side_by_side(self) -> None:
        scores = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
        entry = model_of({"s": signature(CLASSIFY_METHOD, {"scores": "p", "classes": "c"})}, p=scores, c=names_of)
        answer = classification(entry, "s", timeout_seconds=2.5)
        assert [[(c.label, c.score) for c in each.classes] for each in answer.result.classifications] == [
            [("low", 0.25), ("hoch\u00e9", 0.75)],
            [("low", 1.0), ("hoch\u00e9", 0.0)],
        ]
        assert entry.loaded.runs == [(["examples"], ["c", "p"], 2.5)]

    @pytest.mark.parametrize(
        ("outputs", "expected"),
        [
            ({"scores": "p"}, [("", 0.5), ("", 2.0)]),
            ({"classes": "c"}, [("low", 0.0), ("hoch\u00e9", 0.0)]),
            ({"classes": "c", "else": "p"}, [("low", 0.0), ("hoch\u00e9", 0.0)]),
        ],
    )
    def test_one_of_them_will_do(self, outputs: dict[str, str], expected: list[tuple[str, float]]) -> None:
        scores = np.array([[0.5, 2.0]] * 2, np.float32)
        entry = model_of({"s": signature(CLASSIFY_METHOD, outputs)}, p=scores, c=names_of)
        for each in classification(entry, "s").result.classifications:
            assert [(c.label, c.score) for c in each.classes] == expected

    def test_no_classes_at_all_are_an_empty_answer_for_each_example(self) -> None:
        entry = model_of({"s": signature(CLASSIFY_METHOD, {"scores": "p"})}, p=np.zeros((2, 0), np.float32))
        assert [len(each.classes) for each in classification(entry, "s").result.classifications] == [0, 0]

    def test_the_answer_says_who_gave_it_and_by_which_signature(self) -> None:
        named = {name: signature(CLASSIFY_METHOD, {"scores": "p"}) for name in ("serving_default", "other")}
        entry = model_of(named, p=values_of)
        for asked, answered in (("", "serving_default"), ("other", "other")):
            spec = classification(entry, asked).model_spec
            assert (spec.name, spec.version.value, spec.signature_name) == ("m", 7, answered)

    @pytest.mark.parametrize(
        ("inputs", "outputs", "message"),
        [
            (("inputs", "more"), {"scores": "p"}, "Expected one input Tensor."),
            ((), {"scores": "p"}, "Expected one input Tensor."),
            (("inputs",), {}, "Expected one or two output Tensors, found 0"),
            (("inputs",), {"scores": "p", "a": "a", "b": "b"}, "Expected one or two output Tensors, found 3"),
            (("pixels",), {"scores": "p"}, "No classification inputs found in SignatureDef: inputs {"),
            (
                ("inputs",),
                {"logits": "p"},
                'Expected classification signature outputs to contain at least one of "classes" or "scores". '
                "Signature was: inputs {",
            ),
        ],
    )
    def test_signatures_of_another_form(self, inputs: tuple[str, ...], outputs: dict[str, str], message: str) -> None:
        entry = model_of({"s": signature(CLASSIFY_METHOD, outputs, inputs)})
        # With no Examples: the signature is looked at first.
        code, found = refusal(lambda: classification(entry, "s", tfs_pb2.Input()))
        assert code is Code.INVALID_ARGUMENT
        assert found.startswith(message)

    @pytest.mark.parametrize("asked", ["none", ""])
    def test_signatures_that_are_not_there(self, asked: str) -> None:
        expected = f"No signature was found with the name: {asked or 'serving_default'}"
        assert refusal(lambda: classification(model_of({}), asked)) == (Code.INVALID_ARGUMENT, expected)

    def test_the_name_of_the_method_counts_only_where_it_is_checked(self) -> None:
        entry = model_of({"s": signature("mine", {"scores": "p"})}, p=values_of)
        assert len(classification(entry, "s").result.classifications) == 2
        assert refusal(lambda: classification(entry, "s", is_method_name_checked=True)) == (
            Code.INVALID_ARGUMENT,
            "Expected classification signature method_name to be tensorflow/serving/classify. Was: mine",
        )

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"p": np.zeros(2, np.float32)}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
            ({"p": np.zeros((2, 2, 3), np.float32)}, "Expected Tensor shape: [batch_size num_classes] but got [2,2,3]"),
            ({"p": np.zeros((2, 2), np.float64)}, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
            ({"p": np.zeros((3, 2), np.float32)}, "Expected scores output batch size of 2. Got: 3"),
            ({"c": np.array(b"one", dtype=object)}, "Expected Tensor shape: [batch_size num_classes] but got []"),
            ({"c": np.zeros((2, 2), np.int64)}, "Expected classes Tensor of DT_STRING. Got: DT_INT64"),
            ({"c": np.array([[b"a", b"b"]], dtype=object)}, "Expected classes output batch size of 2. Got: 1"),
            (
                {"p": np.zeros((2, 3), np.float32)},
                "Tensors class and score should match in dim_size(1). Got 2 vs. 3",
            ),
            (
                {"c": np.array([[b"a", b"\xff"]] * 2, dtype=object)},
                "Expected classes Tensor of UTF-8 text. Got: b'\\xff'; use Predict, which answers with bytes",
            ),
        ],
    )
    def test_answers_of_another_shape_or_type(self, tensors: dict[str, np.ndarray], message: str) -> None:
        usual = {"p": np.zeros((2, 2), np.float32), "c": names_of}
        entry = model_of({"s": signature(CLASSIFY_METHOD, {"scores": "p", "classes": "c"})}, **{**usual, **tensors})
        assert refusal(lambda: classification(entry, "s")) == (Code.INVALID_ARGUMENT, message)


class TestRegress:
    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_a_value_for_each_example(self, shape: tuple[int, ...]) -> None:
        entry = model_of({"r": signature(REGRESS_METHOD, {"outputs": "y"})}, y=lambda each: halves(each).reshape(shape))
        answer = regression(entry, "r", timeout_seconds=1.5)
        assert [each.value for each in answer.result.regressions] == [1.0, -2.0]
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("m", 7)
        assert answer.model_spec.signature_name == "r"
        assert entry.loaded.runs == [(["examples"], ["y"], 1.5)]

    @pytest.mark.parametrize(
        ("inputs", "outputs", "message"),
        [
            (("inputs", "more"), {"outputs": "y"}, "Expected one input Tensor."),
            (("inputs",), {"outputs": "y", "more": "z"}, "Expected one output Tensor."),
            (("pixels",), {"outputs": "y"}, "No regression inputs found in SignatureDef: inputs {"),
            (("inputs",), {"scores": "y"}, "No regression outputs found in SignatureDef: inputs {"),
        ],
    )
    def test_signatures_of_another_form(self, inputs: tuple[str, ...], outputs: dict[str, str], message: str) -> None:
        entry = model_of({"s": signature(REGRESS_METHOD, outputs, inputs)})
        code, found = refusal(lambda: regression(entry, "s", tfs_pb2.Input()))
        assert code is Code.INVALID_ARGUMENT
        assert found.startswith(message)

    def test_signatures_that_are_not_there_or_not_of_the_method(self) -> None:
        entry = model_of({"s": signature(CLASSIFY_METHOD, {"outputs": "y"})}, y=halves)
        expected = "No signature was found with the name: none"
        assert refusal(lambda: regression(entry, "none")) == (Code.INVALID_ARGUMENT, expected)
        assert len(regression(entry, "s").result.regressions) == 2
        assert refusal(lambda: regression(entry, "s", is_method_name_checked=True)) == (
            Code.INVALID_ARGUMENT,
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/classify",
        )

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (
                np.zeros((), np.float32),
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []",
            ),
            (
                np.zeros((2, 2), np.float32),
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
            ),
            (np.zeros(3, np.float32), "Input batch size did not match output batch size: 2 vs. 3"),
            (np.zeros(2, np.float64), "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
            (np.array([b"1", b"2"], dtype=object), "Expected output Tensor of DT_FLOAT.  Got: DT_STRING"),
        ],
    )
    def test_answers_of_another_shape_or_type(self, array: np.ndarray, message: str) -> None:
        entry = model_of({"r": signature(REGRESS_METHOD, {"outputs": "y"})}, y=array)
        assert refusal(lambda: regression(entry, "r")) == (Code.INVALID_ARGUMENT, message)


SIGNATURES = {
    "serving_default": signature(REGRESS_METHOD, {"outputs": "y"}),
    "classes": signature(CLASSIFY_METHOD, {"scores": "y", "classes": "c"}),
    "scores": signature(CLASSIFY_METHOD, {"scores": "y"}),
    "others": signature(REGRESS_METHOD, {"outputs": "y"}),
}
SIGNATURES["others"].inputs["inputs"].name = "other_examples"


class TestMultiInference:
    @pytest.fixture
    def entry(self) -> ModelVersion:
        names = np.array([[b"only"]] * 2, dtype=object)
        return model_of(SIGNATURES, y=halves, c=names)

    def test_all_tasks_are_answered_in_their_order_by_one_run(self, entry: ModelVersion) -> None:
        tasks = [("scores", CLASSIFY_METHOD), ("", REGRESS_METHOD), ("classes", CLASSIFY_METHOD)]
        results = inference(entry, *tasks, timeout_seconds=3.0).results
        assert [each.WhichOneof("result") for each in results] == [
            *("classification_result", "regression_result", "classification_result")
        ]
        assert [each.value for each in results[1].regression_result.regressions] == [1.0, -2.0]
        labels = [
            [(c.label, c.score) for c in each.classes] for each in results[2].classification_result.classifications
        ]
        assert labels == [[("only", 1.0)], [("only", -2.0)]]
        specs = [(each.model_spec.name, each.model_spec.version.value) for each in results]
        assert specs == [("m", 7)] * 3
        assert [each.model_spec.signature_name for each in results] == ["scores", "serving_default", "classes"]
        assert entry.loaded.runs == [(["examples"], ["c", "y"], 3.0)]

    @pytest.mark.parametrize(
        ("tasks", "code", "message"),
        [
            ([("none", REGRESS_METHOD)], "INVALID_ARGUMENT", "Requested signature not found in model graph: none"),
            ([("", REGRESS_METHOD)] * 2, "INVALID_ARGUMENT", "Duplicate evaluation of signature: serving_default"),
            (
                [("", REGRESS_METHOD), ("serving_default", REGRESS_METHOD)],
                "INVALID_ARGUMENT",
                "Duplicate evaluation of signature: serving_default",
            ),
            (
                [("", "tensorflow/serving/predict")],
                "UNIMPLEMENTED",
                "Unsupported signature method_name: tensorflow/serving/predict",
            ),
            ([("scores", "")], "UNIMPLEMENTED", "Unsupported signature method_name: "),
            ([("classes", REGRESS_METHOD)], "INVALID_ARGUMENT", "Expected one output Tensor."),
            (
                [("", REGRESS_METHOD), ("others", REGRESS_METHOD)],
                "INVALID_ARGUMENT",
                "Input tensor must be the same for all Signatures.",
            ),
        ],
    )
    def test_tasks_that_are_refused(
        self, entry: ModelVersion, tasks: list[tuple[str, str]], code: str, message: str
    ) -> None:
        assert refusal(lambda: inference(entry, *tasks)) == (Code[code], message)
        assert entry.loaded.runs == []

    def test_models_without_a_name_or_of_two(self, entry: ModelVersion) -> None:
        expected = (Code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name.")
        assert refusal(lambda: inference(entry, ("", REGRESS_METHOD), model="")) == expected
        request = tfs_pb2.MultiInferenceRequest(input=TWO)
        for model in ("m", "n"):
            request.tasks.add(method_name=REGRESS_METHOD, model_spec=tfs_pb2.ModelSpec(name=model))
        assert refusal(lambda: multi_inference(entry, request, timeout_seconds=None)) == (
            Code.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        )

    def test_the_name_of_the_method_is_checked_where_it_is_asked_for(self) -> None:
        entry = model_of({"s": signature("mine", {"outputs": "y"})}, y=halves)
        assert len(inference(entry, ("s", REGRESS_METHOD)).results) == 1
        assert refusal(lambda: inference(entry, ("s", REGRESS_METHOD), is_method_name_checked=True)) == (
            Code.INVALID_ARGUMENT,
            "Expected regression signature method_name to be tensorflow/serving/regress. Was: mine",
        )

    def test_the_first_task_says_the_version(self) -> None:
        request = tfs_pb2.MultiInferenceRequest()
        assert first_model_spec(request) == tfs_pb2.ModelSpec()
        request.tasks.add(model_spec=tfs_pb2.ModelSpec(name="m", version_label="canary"))
        request.tasks.add(model_spec=tfs_pb2.ModelSpec(name="n"))
        assert first_model_spec(request).version_label == "canary"


def test_runs_are_counted_by_method_when_they_succeed() -> None:
    signatures = {"c": signature(CLASSIFY_METHOD, {"scores": "y"}), "r": signature(REGRESS_METHOD, {"outputs": "y"})}
    entry, metrics = model_of(signatures, y=halves), Metrics()
    classification(entry, "c", metrics=metrics)
    regression(entry, "r", metrics=metrics)
    inference(entry, ("r", REGRESS_METHOD), ("c", CLASSIFY_METHOD), metrics=metrics)
    refusal(lambda: regression(entry, "r", tfs_pb2.Input(), metrics=metrics))
    counted = re.findall(r"^:tensorflow:serving:runtime_latency_count(.*)$", metrics.text(), re.MULTILINE)
    assert sorted(counted) == [
        f'{{model_name="m",API="{api}",runtime="TF1"}} 1' for api in ("Classify", "MultiInference", "Regress")
    ]
