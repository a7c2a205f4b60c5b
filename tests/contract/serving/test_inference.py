"""Classify, Regress and MultiInference over tf.Examples, by TensorFlow Serving's rules."""

from __future__ import annotations

from typing import Any

import pytest
from client_lab import example


def classes_of(response: Any) -> list[list[tuple[str, float]]]:
    return [[(entry.label, entry.score) for entry in row.classes] for row in response.result.classifications]


def values_of(response: Any) -> list[float]:
    return [entry.value for entry in response.result.regressions]


class TestClassify:
    def test_scores_without_classes(self, standing: Any) -> None:
        response = standing.classify("half_plus_two", [example(x=2.0), example(x=4.0)], signature="classify_x_to_y")
        assert classes_of(response) == [[("", 3.0)], [("", 4.0)]]

    def test_classes_with_scores(self, standing: Any) -> None:
        response = standing.classify("half_plus_two", [example(x=2.0, x2=4.0)], signature="classify_x2_to_y3")
        assert classes_of(response) == [[("y3", 5.0), ("minus", -5.0)]]

    def test_classes_without_scores(self, standing: Any) -> None:
        examples = [example(x=2.0), example(x=-2.0)]
        response = standing.classify("half_plus_two", examples, signature="classify_x_to_sign")
        assert classes_of(response) == [[("positive", 0.0)], [("negative", 0.0)]]

    def test_every_kind_of_feature(self, standing: Any) -> None:
        examples = [example(age=7, weight=1.5), example(name=b"x"), example()]
        response = standing.classify("features", examples, signature="size")
        assert classes_of(response) == [
            [("old", 7.0), ("heavy", 1.5)],
            [("old", 0.0), ("heavy", 0.0)],
            [("old", 0.0), ("heavy", 0.0)],
        ]
        names = standing.classify("features", [example(name=b"anna"), example(age=1)], signature="names")
        assert classes_of(names) == [[("anna", 0.0)], [("", 0.0)]]

    def test_a_context_belongs_to_each_example_which_may_override_it(self, standing: Any) -> None:
        examples = [example(age=7), example(age=8, weight=2.5)]
        response = standing.classify("features", examples, context=example(weight=1.5), signature="size")
        assert classes_of(response) == [[("old", 7.0), ("heavy", 1.5)], [("old", 8.0), ("heavy", 2.5)]]

    def test_the_model_spec_says_who_answered(self, standing: Any) -> None:
        spec = standing.classify("half_plus_two", [example(x=2.0)], signature="classify_x_to_y").model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "classify_x_to_y")


class TestRegress:
    @pytest.mark.parametrize(
        ("signature", "value"), [("regress_x_to_y", 3.0), ("regress_x_to_y2", 4.0), ("regress_x2_to_y3", 5.0)]
    )
    def test_one_column(self, standing: Any, signature: str, value: float) -> None:
        response = standing.regress("half_plus_two", [example(x=2.0, x2=4.0)] * 2, signature=signature)
        assert values_of(response) == [value, value]
        spec = response.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, signature)

    def test_no_column(self, standing: Any) -> None:
        response = standing.regress("features", [example(weight=1.5), example()], signature="weights")
        assert values_of(response) == [1.5, 0.0]

    def test_a_context_belongs_to_each_example(self, standing: Any) -> None:
        response = standing.regress("features", [example(), example(age=2)], context=example(age=1), signature="years")
        assert values_of(response) == [1.0, 2.0]


class TestMultiInference:
    TASKS = (("half_plus_two", "regress_x_to_y", "regress"), ("half_plus_two", "classify_x_to_y", "classify"))

    def test_one_run_answers_all_tasks_in_their_order(self, standing: Any) -> None:
        response = standing.multi_inference(self.TASKS, [example(x=2.0), example(x=4.0)])
        regressed, classified = response.results
        assert [entry.value for entry in regressed.regression_result.regressions] == [3.0, 4.0]
        rows = classified.classification_result.classifications
        assert [[(entry.label, entry.score) for entry in row.classes] for row in rows] == [[("", 3.0)], [("", 4.0)]]
        for result, (model, signature, _) in zip(response.results, self.TASKS, strict=True):
            spec = result.model_spec
            assert (spec.name, spec.signature_name, spec.version.value) == (model, signature, 123)

    @pytest.mark.parametrize(
        ("tasks", "code", "message"),
        [
            ([("", "regress_x_to_y", "regress")], "INVALID_ARGUMENT", ""),
            (
                [TASKS[0], ("", "classify_x_to_y", "classify")],
                "INVALID_ARGUMENT",
                "Found ModelSpec with an empty model name.",
            ),
            (
                [TASKS[0], ("features", "years", "regress")],
                "INVALID_ARGUMENT",
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ),
            ([TASKS[0], TASKS[0]], "INVALID_ARGUMENT", "Duplicate evaluation of signature: regress_x_to_y"),
            (
                [("half_plus_two", "none", "regress")],
                "INVALID_ARGUMENT",
                "Requested signature not found in model graph: none",
            ),
            (
                [("half_plus_two", "serving_default", "predict")],
                "UNIMPLEMENTED",
                "Unsupported signature method_name: tensorflow/serving/predict",
            ),
            ([("nobody", "none", "regress")], "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        ],
    )
    def test_refusals(self, standing: Any, tasks: list[tuple[str, str, str]], code: str, message: str) -> None:
        found = standing.refused(lambda: standing.multi_inference(tasks, [example(x=2.0)]))
        assert found[0] == code
        assert message in found[1]

    def test_no_examples(self, standing: Any) -> None:
        found = standing.refused(lambda: standing.multi_inference(self.TASKS))
        assert found[0] == "INVALID_ARGUMENT"


class TestRefusals:
    @pytest.mark.parametrize("method", ["classify", "regress"])
    @pytest.mark.parametrize(
        ("model", "spec", "code", "message"),
        [
            ("", {}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
            ("nobody", {}, "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
            ("features", {"version": 9}, "NOT_FOUND", "Servable not found for request: Specific(features, 9)"),
            ("features", {"label": "none"}, "INVALID_ARGUMENT", "Unrecognized servable version label: none"),
            ("features", {"signature": "none"}, "INVALID_ARGUMENT", "No signature was found with the name: none"),
        ],
    )
    def test_a_choice_that_is_not_there(
        self, standing: Any, method: str, model: str, spec: dict[str, Any], code: str, message: str
    ) -> None:
        call = getattr(standing, method)
        found = standing.refused(lambda: call(model, [example(x=2.0)], **spec))
        assert found == (code, message)

    @pytest.mark.parametrize(("method", "signature"), [("classify", "classify_x_to_y"), ("regress", "regress_x_to_y")])
    def test_no_examples(self, standing: Any, method: str, signature: str) -> None:
        call = getattr(standing, method)
        for context in (None, example(x=2.0)):
            found = standing.refused(
                lambda context=context: call("half_plus_two", context=context, signature=signature)
            )
            assert found == ("INVALID_ARGUMENT", "Input is empty.")

    def test_no_model_spec(self, standing: Any) -> None:
        from tensorflow_serving.apis import classification_pb2, regression_pb2

        for call, request in (
            (standing.prediction.Classify, classification_pb2.ClassificationRequest()),
            (standing.prediction.Regress, regression_pb2.RegressionRequest()),
        ):
            found = standing.refused(lambda call=call, request=request: call(request, timeout=60))
            assert found == ("INVALID_ARGUMENT", "Missing ModelSpec")

    @pytest.mark.parametrize(
        ("model", "signature", "message"),
        [
            ("pair", "serving_default", "Expected one input Tensor."),
            ("features", "classify_three_outputs", "Expected one or two output Tensors, found 3"),
            ("half_plus_two", "serving_default", "No classification inputs found in SignatureDef: "),
            (
                "features",
                "classify_no_scores",
                'Expected classification signature outputs to contain at least one of "classes" or "scores".',
            ),
            ("features", "classify_flat", "Expected Tensor shape: [batch_size num_classes] but got "),
        ],
    )
    def test_what_is_no_classification(self, standing: Any, model: str, signature: str, message: str) -> None:
        found = standing.refused(lambda: standing.classify(model, [example()], signature=signature))
        assert found[0] == "INVALID_ARGUMENT"
        assert message in found[1]

    @pytest.mark.parametrize(
        ("model", "signature", "message"),
        [
            ("pair", "serving_default", "Expected one input Tensor."),
            ("features", "regress_two_outputs", "Expected one output Tensor."),
            ("half_plus_two", "serving_default", "No regression inputs found in SignatureDef: "),
            ("features", "regress_other_output", "No regression outputs found"),
            (
                "features",
                "regress_two_columns",
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got ",
            ),
        ],
    )
    def test_what_is_no_regression(self, standing: Any, model: str, signature: str, message: str) -> None:
        found = standing.refused(lambda: standing.regress(model, [example()], signature=signature))
        assert found[0] == "INVALID_ARGUMENT"
        assert message in found[1]

    def test_an_example_that_the_graph_cannot_parse(self, standing: Any) -> None:
        wrong_kind = standing.refused(lambda: standing.regress("features", [example(age=1.5)], signature="years"))
        assert wrong_kind[0] == "INVALID_ARGUMENT"
        missing = standing.refused(lambda: standing.regress("half_plus_two", [example()], signature="regress_x_to_y"))
        assert missing[0] == "INVALID_ARGUMENT"
        assert "Feature: x" in missing[1]


class TestNameOfTheMethod:
    """A signature's method_name is looked at only where --enable_signature_method_name_check is on."""

    @pytest.mark.parametrize(("method", "signature"), [("classify", "regress_others"), ("regress", "classify_x_to_y")])
    def test_it_is_not_what_is_refused_without_the_flag(self, standing: Any, method: str, signature: str) -> None:
        call = getattr(standing, method)
        found = standing.refused(lambda: call("half_plus_two", [example(x=2.0)], signature=signature))
        assert "method_name to be" not in found[1]

    @pytest.mark.parametrize(
        ("method", "kind", "signature", "was"),
        [
            ("classify", "classification", "regress_x_to_y", "tensorflow/serving/regress"),
            ("regress", "regression", "classify_x_to_y", "tensorflow/serving/classify"),
            ("classify", "classification", "serving_default", "tensorflow/serving/predict"),
        ],
    )
    def test_it_is_refused_with_the_flag(self, optioned: Any, method: str, kind: str, signature: str, was: str) -> None:
        call = getattr(optioned, method)
        found = optioned.refused(lambda: call("half_plus_two", [example(x=2.0)], signature=signature))
        assert found[0] == "INVALID_ARGUMENT"
        expected = f"Expected {kind} signature method_name to be tensorflow/serving/{method}. Was: {was}"
        assert found[1].startswith(expected)

    def test_the_right_one_is_answered_with_the_flag(self, optioned: Any) -> None:
        regressed = optioned.regress("half_plus_two", [example(x=2.0)], signature="regress_x_to_y")
        assert values_of(regressed) == [3.0]
        classified = optioned.classify("half_plus_two", [example(x=2.0)], signature="classify_x_to_y")
        assert classes_of(classified) == [[("", 3.0)]]
