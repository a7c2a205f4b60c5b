"""Classify and Regress by REST: tf.Examples as JSON."""

from __future__ import annotations

from typing import Any

import pytest


def ask(client: Any, model: str, verb: str, signature: str, examples: Any, **more: Any) -> Any:
    body = {"signature_name": signature, "examples": examples, **more}
    answer = client.rest(f"/v1/models/{model}:{verb}", body)
    assert answer.code == 200, answer
    assert answer.headers["content-type"] == "application/json"
    (key,) = answer.json
    assert key == "results"
    return answer.json[key]


class TestClassify:
    def test_scores_without_classes(self, standing: Any) -> None:
        found = ask(standing, "half_plus_two", "classify", "classify_x_to_y", [{"x": 2.0}, {"x": 20.0}])
        assert found == [[["", 3.0]], [["", 12.0]]]

    def test_classes_with_scores(self, standing: Any) -> None:
        found = ask(standing, "half_plus_two", "classify", "classify_x2_to_y3", [{"x": 2.0, "x2": 4.0}])
        assert found == [[["y3", 5.0], ["minus", -5.0]]]

    def test_a_version_and_a_label_stand_in_the_path(self, standing: Any) -> None:
        body = {"signature_name": "classify_x_to_y", "examples": [{"x": 10.0}]}
        answer = standing.rest("/v1/models/half_plus_two/versions/123:classify", body)
        assert (answer.code, answer.json) == (200, {"results": [[["", 7.0]]]})
        missing = standing.rest_refused("/v1/models/half_plus_two/versions/9:classify", body)
        assert (missing.code, missing.error) == (404, "Servable not found for request: Specific(half_plus_two, 9)")


class TestRegress:
    def test_one_value_for_each_example(self, standing: Any) -> None:
        found = ask(standing, "half_plus_two", "regress", "regress_x_to_y", [{"x": 2.0}, {"x": 80.0}])
        assert found == [3.0, 42.0]

    def test_a_version_stands_in_the_path(self, standing: Any) -> None:
        body = {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}
        answer = standing.rest("/v1/models/half_plus_two/versions/123:regress", body)
        assert (answer.code, answer.json) == (200, {"results": [42.0]})


class TestFeatures:
    @pytest.mark.parametrize(
        ("example", "scores"),
        [
            ({"age": 7}, [7.0, 0.0]),
            ({"age": True}, [1.0, 0.0]),
            ({"age": [7]}, [7.0, 0.0]),
            ({"weight": 1.5}, [0.0, 1.5]),
            ({"weight": 15e-1, "age": -3}, [-3.0, 1.5]),
            ({}, [0.0, 0.0]),
            ({"unknown": "to the model"}, [0.0, 0.0]),
        ],
    )
    def test_the_kind_of_a_feature_is_that_of_its_value(
        self, standing: Any, example: dict[str, Any], scores: list[float]
    ) -> None:
        found = ask(standing, "features", "classify", "size", [example])
        assert found == [[["old", scores[0]], ["heavy", scores[1]]]]

    @pytest.mark.parametrize(("value", "name"), [("anna", "anna"), ({"b64": "YW5uYQ=="}, "anna"), (["grün"], "grün")])
    def test_strings_and_base64(self, standing: Any, value: Any, name: str) -> None:
        (((label, _),),) = ask(standing, "features", "classify", "names", [{"name": value}])
        assert label == name

    def test_a_context_belongs_to_each_example(self, standing: Any) -> None:
        found = ask(standing, "features", "regress", "years", [{}, {"age": 2}], context={"age": 1})
        assert found == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("example", "message"),
        [
            ({"age": [1, 1.5]}, "Unexpected element type in feature: age expecting type: int64"),
            ({"age": [1, "a"]}, "Unexpected element type in feature: age expecting type: int64"),
            ({"age": None}, "Feature: age has element with unexpected JSON type: Null"),
            ({"age": [[1]]}, "Feature: age has element with unexpected JSON type: Array"),
            ({"age": {"deep": 1}}, "Feature: age has element with unexpected JSON type: Object"),
            ({"age": 2**63}, "Only int64_t is supported."),
            # A float where the graph wants an integer, and the other way round: TensorFlow's own refusal.
            ({"age": 1.5}, ""),
            ({"weight": 1}, ""),
        ],
    )
    def test_what_is_no_feature(self, standing: Any, example: dict[str, Any], message: str) -> None:
        answer = standing.rest_refused(
            "/v1/models/features:classify", {"signature_name": "size", "examples": [example]}
        )
        assert answer.code == 400
        assert message in answer.error


class TestRefusals:
    @pytest.mark.parametrize("verb", ["classify", "regress"])
    def test_examples_are_needed(self, standing: Any, verb: str) -> None:
        answer = standing.rest_refused(f"/v1/models/features:{verb}", {"signature_name": "size"})
        assert answer.code == 400
        assert "When method is classify, key 'examples' is expected and was not found" in answer.error

    @pytest.mark.parametrize("verb", ["classify", "regress"])
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("", "JSON Parse error: The document is empty"),
            ("nonsense", "JSON Parse error: "),
            ('{"signature_name": 5, "examples": [{}]}', "'signature_name' key must be a string value."),
            ('{"signature_name": "none", "examples": [{}]}', "No signature was found with the name: none"),
            ('{"signature_name": "size", "examples": 5}', ""),
            ('{"signature_name": "size", "examples": [5]}', ""),
            ('{"signature_name": "size", "examples": []}', ""),
        ],
    )
    def test_documents_that_are_wrong(self, standing: Any, verb: str, body: str, message: str) -> None:
        answer = standing.rest_refused(f"/v1/models/features:{verb}", body)
        assert answer.code == 400
        assert message in answer.error

    @pytest.mark.parametrize("verb", ["classify", "regress"])
    def test_a_model_that_is_not_there(self, standing: Any, verb: str) -> None:
        answer = standing.rest_refused(f"/v1/models/nobody:{verb}", {"examples": [{"x": 1.0}]})
        assert (answer.code, answer.error) == (404, "Servable not found for request: Latest(nobody)")

    def test_a_signature_of_the_other_kind(self, standing: Any) -> None:
        body = {"signature_name": "serving_default", "examples": [{"x": 1.0}]}
        answer = standing.rest_refused("/v1/models/half_plus_two:classify", body)
        assert answer.code == 400
        assert "No classification inputs found in SignatureDef: " in answer.error
