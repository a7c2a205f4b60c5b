"""Predict by REST: rows and columns, values and their kinds, the layout of answers."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest

INTEGER_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int8": (-128, 127),
    "int16": (-32768, 32767),
    "uint8": (0, 255),
}


def predictions(client: Any, model: str, body: Any) -> Any:
    answer = client.rest_predict(model, body)
    assert answer.code == 200, answer
    assert answer.headers["content-type"] == "application/json"
    (key,) = answer.json
    assert key == "predictions"
    return answer.json[key]


def echo(client: Any, kind: str, values: str) -> str:
    """Return the text between the brackets of what the echo of this type makes of these values."""
    answer = client.rest_predict("many_types", f'{{"signature_name": "{kind}", "inputs": [{values}]}}')
    assert answer.code == 200, answer
    text: str = answer.text
    return "".join(text.partition("[")[2].rpartition("]")[0].split())


def refusal(client: Any, model: str, body: Any) -> str:
    answer = client.rest_refused(f"/v1/models/{model}:predict", body)
    assert answer.code == 400, answer
    assert answer.headers["content-type"] == "application/json"
    message: str = answer.error
    return message


class TestLayout:
    """Byte for byte, so that nobody who reads the real server's answers by other means than JSON is surprised."""

    def test_rows_of_one_output_stand_on_one_line(self, standing: Any) -> None:
        answer = standing.rest_predict("half_plus_two", {"instances": [2.0, 3.0]})
        assert answer.text == '{\n    "predictions": [3.0, 3.5\n    ]\n}'

    def test_an_error(self, standing: Any) -> None:
        answer = standing.rest_predict("half_plus_two", "")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json == {"error": "JSON Parse error: The document is empty"}

    def test_status_and_metadata_are_indented_by_one(self, standing: Any) -> None:
        status = standing.rest("/v1/models/half_plus_two")
        assert status.text.startswith(
            '{\n "model_version_status": [\n  {\n   "version": "123",\n   "state": "AVAILABLE",'
        )
        assert status.json == {
            "model_version_status": [
                {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        }
        metadata = standing.rest("/v1/models/half_plus_two/metadata")
        assert metadata.json["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}


class TestRows:
    def test_values(self, standing: Any) -> None:
        assert predictions(standing, "half_plus_two", {"instances": [2.0, 3.0, 4.0]}) == [3.0, 3.5, 4.0]

    def test_rows_of_several_values(self, standing: Any) -> None:
        assert predictions(standing, "half_plus_two", {"instances": [[1.0, 2.0], [3.0, 4.0]]}) == [
            [2.5, 3.0],
            [3.5, 4.0],
        ]

    def test_matrices(self, standing: Any) -> None:
        matrix = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
        assert predictions(standing, "matrix", {"instances": matrix}) == [
            [[2.5, 3.0], [3.5, 4.0]],
            [[4.5, 5.0], [5.5, 6.0]],
        ]

    def test_one_named_input(self, standing: Any) -> None:
        assert predictions(standing, "half_plus_two", {"instances": [{"x": 2.0}, {"x": 3.0}]}) == [3.0, 3.5]

    def test_several_inputs_and_outputs(self, standing: Any) -> None:
        found = predictions(standing, "pair", {"instances": [{"a": 3.0, "b": 1.0}, {"b": 2.0, "a": 5.0}]})
        assert found == [{"sum": 4.0, "difference": 2.0}, {"sum": 7.0, "difference": 3.0}]

    def test_a_signature_is_named(self, standing: Any) -> None:
        body = {"signature_name": "serving_default", "instances": [2.0]}
        assert predictions(standing, "half_plus_two", body) == [3.0]
        assert predictions(standing, "many_types", {"signature_name": "int32", "instances": [7]}) == [7]

    def test_grpc_and_rest_say_the_same(self, standing: Any) -> None:
        import client_lab
        import numpy as np

        values = np.random.default_rng(11).normal(size=100).astype(np.float32)
        by_rest = np.array(predictions(standing, "half_plus_two", {"instances": values.tolist()}), np.float32)
        by_grpc = client_lab.numbers(standing.predict(inputs={"x": values}), "y")
        assert by_rest.tolist() == by_grpc

    @pytest.mark.parametrize(
        ("signature", "body", "message"),
        [
            ("scalar", {"instances": [{"a": 1.0}]}, "has no shape information"),
            ("uneven", {"instances": [{"a": 1.0}, {"a": 2.0}]}, "inconsistent batch size"),
        ],
    )
    def test_outputs_that_are_no_rows(self, standing: Any, signature: str, body: Any, message: str) -> None:
        assert message in refusal(standing, "pair", {"signature_name": signature, **body})

    def test_outputs_that_have_no_json(self, standing: Any) -> None:
        body = {"signature_name": "complex", "instances": [1.0]}
        assert "Failed to write JSON value for tensor type: complex64" in refusal(standing, "pair", body)

    @pytest.mark.parametrize(
        ("model", "body", "message"),
        [
            ("half_plus_two", '{"instances": 1}', "Expecting 'instances' to be an list/array"),
            ("half_plus_two", '{"instances": {"x": 1}}', "Expecting 'instances' to be an list/array"),
            ("half_plus_two", '{"instances": []}', "No values in 'instances' array"),
            ("half_plus_two", '{"instances": [[1, 2], [1]]}', "Expecting tensor size: 2 but got: 1"),
            ("half_plus_two", '{"instances": [[1, 2], [1, 2, 3]]}', "Expecting tensor size: 2 but got: 3"),
            ("half_plus_two", '{"instances": [[1, 2], [[1, 2]]]}', "Expecting shape [2] but got: [1,2]"),
            (
                "half_plus_two",
                '{"instances": [{"x": 1}, [1]]}',
                "Expecting object but got list at item 1 of input list",
            ),
            (
                "half_plus_two",
                '{"instances": [[1], {"x": 1}]}',
                "Expecting value/list but got object at item 1 of input list",
            ),
            ("half_plus_two", '{"instances": [{"z": 1}]}', "does not have named input: z"),
            ("pair", '{"instances": [{"a": 1}]}', "keys must be equal to: a,b"),
            ("pair", '{"instances": [{"a": 1, "b": 2, "c": 3}]}', "does not have named input: c"),
            ("half_plus_two", '{"instances": ["a"]}', 'JSON Value: "a" Type: String is not of expected type: float'),
            ("half_plus_two", '{"instances": [null]}', "is not of expected type: float"),
            ("half_plus_two", '{"instances": [true]}', "is not of expected type: float"),
        ],
    )
    def test_rows_that_do_not_fit(self, standing: Any, model: str, body: str, message: str) -> None:
        assert message in refusal(standing, model, body)

    def test_an_error_in_an_object_says_which(self, standing: Any) -> None:
        message = refusal(standing, "half_plus_two", '{"instances": [{"x": 1}, {"x": "a"}]}')
        start = "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
        assert message.startswith(start)


class TestColumns:
    def outputs(self, client: Any, model: str, body: Any) -> Any:
        answer = client.rest_predict(model, body)
        assert answer.code == 200, answer
        (key,) = answer.json
        assert key == "outputs"
        return answer.json[key]

    def test_one_input_bare_or_named(self, standing: Any) -> None:
        assert self.outputs(standing, "half_plus_two", {"inputs": [2.0, 3.0]}) == [3.0, 3.5]
        assert self.outputs(standing, "half_plus_two", {"inputs": {"x": [2.0, 3.0]}}) == [3.0, 3.5]

    def test_one_value(self, standing: Any) -> None:
        assert self.outputs(standing, "half_plus_two", {"inputs": 2.0}) == 3.0

    def test_several_inputs_and_outputs_and_keys_that_are_nothing_to_it(self, standing: Any) -> None:
        body = {"inputs": {"a": [3.0, 5.0], "b": [1.0, 2.0], "more": "?"}}
        assert self.outputs(standing, "pair", body) == {"sum": [4.0, 7.0], "difference": [2.0, 3.0]}

    def test_outputs_need_no_common_rows(self, standing: Any) -> None:
        scalar = {"signature_name": "scalar", "inputs": {"a": [1.0, 2.0]}}
        assert self.outputs(standing, "pair", scalar) == 3.0
        uneven = {"signature_name": "uneven", "inputs": {"a": [1.0, 2.0]}}
        assert self.outputs(standing, "pair", uneven) == {"first": [1.0], "all": [1.0, 2.0]}

    @pytest.mark.parametrize(
        ("model", "body", "message"),
        [
            ("half_plus_two", '{"inputs": {"z": 1}}', "Missing named input: x in 'inputs' object."),
            ("pair", '{"inputs": {"a": 1}}', "Missing named input: b in 'inputs' object."),
            ("half_plus_two", '{"inputs": ["a"]}', "is not of expected type: float"),
        ],
    )
    def test_columns_that_do_not_fit(self, standing: Any, model: str, body: str, message: str) -> None:
        assert message in refusal(standing, model, body)

    def test_uneven_lists(self, standing: Any) -> None:
        assert refusal(standing, "half_plus_two", '{"inputs": [[1, 2], [1]]}')


class TestDocument:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("", "JSON Parse error: The document is empty"),
            ("instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
            ('{"instances": [1', "JSON Parse error: "),
            ("[1]", "Is not object"),
            ("1", "Is not object"),
            ("{}", "Missing 'inputs' or 'instances' key"),
            (
                '{"instances": [1], "inputs": 1}',
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
            ),
            ('{"signature_name": 5, "instances": [1]}', "'signature_name' key must be a string value."),
            (
                '{"signature_name": "none", "instances": [1]}',
                'Serving signature name: "none" not found in signature def',
            ),
        ],
    )
    def test_refusals(self, standing: Any, body: str, message: str) -> None:
        assert message in refusal(standing, "half_plus_two", body)

    def test_what_it_does_not_know_it_does_not_look_at(self, standing: Any) -> None:
        body = {"instances": [2.0], "comment": {"deep": [1, [2, "x"]]}}
        assert predictions(standing, "half_plus_two", body) == [3.0]

    def test_what_follows_the_document_is_not_looked_at(self, standing: Any) -> None:
        assert predictions(standing, "half_plus_two", '{"instances": [2.0]} and more') == [3.0]

    def test_json_in_a_message_is_cut(self, standing: Any) -> None:
        message = refusal(standing, "half_plus_two", {"instances": ["long" * 1000]})
        assert "is not of expected type: float" in message
        assert len(message) < 600


class TestNumbers:
    @pytest.mark.parametrize(
        ("given", "answered"),
        [
            ("1", "1.0"),
            ("-0.0", "-0.0"),
            ("0.1", "0.1"),
            ("1435774380", "1.43577434e+09"),
            ("9000000", "9e+06"),
            ("999999", "999999.0"),
            ("0.00003", "3e-05"),
            ("1e-50", "0.0"),
            ("1e50", "Infinity"),
            ("-1e50", "-Infinity"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
            ("Inf", "Infinity"),
            ("-Inf", "-Infinity"),
            ("16777217", "16777216.0"),
        ],
    )
    def test_float(self, standing: Any, given: str, answered: str) -> None:
        found = echo(standing, "float32", given)
        # The forms that are given are the documented ones; where only the value is, the value decides.
        if answered == "16777216.0":
            assert float(found) == 16777216.0
        else:
            assert found == answered

    @pytest.mark.parametrize("given", ["0.1", "1e300", "-2.2250738585072014e-308", "9007199254740993", "3"])
    def test_double_comes_back_as_itself(self, standing: Any, given: str) -> None:
        assert float(echo(standing, "float64", given)) == float(given)

    @pytest.mark.parametrize("kind", ["float32", "float64"])
    def test_floats_are_seen_to_be_floats(self, standing: Any, kind: str) -> None:
        assert echo(standing, kind, "1, 100") == "1.0,100.0"

    @pytest.mark.parametrize("kind", INTEGER_RANGES)
    def test_integers_are_exact_to_their_ends(self, standing: Any, kind: str) -> None:
        low, high = INTEGER_RANGES[kind]
        assert echo(standing, kind, f"{low}, {high}") == f"{low},{high}"

    @pytest.mark.parametrize(
        ("kind", "given"),
        [
            *((kind, value) for kind in INTEGER_RANGES for value in ("1.5", "1e2", '"1"', "true", "NaN")),
            ("int32", str(2**31)),
            ("uint8", str(2**31)),
            ("int64", str(2**63)),
            ("uint32", str(2**32)),
            ("uint32", "-1"),
            ("uint64", str(2**64)),
            ("uint64", "-1"),
        ],
    )
    def test_what_is_no_integer_of_that_kind(self, standing: Any, kind: str, given: str) -> None:
        body = f'{{"signature_name": "{kind}", "inputs": [{given}]}}'
        message = refusal(standing, "many_types", body)
        assert "is not of expected type: " in message or "out of range" in message or "too" in message.lower()

    def test_booleans(self, standing: Any) -> None:
        assert echo(standing, "bool", "true, false") == "true,false"
        for value in ("1", '"true"', "null"):
            body = f'{{"signature_name": "bool", "inputs": [{value}]}}'
            assert "is not of expected type: bool" in refusal(standing, "many_types", body)

    def test_nan_and_infinities_in_rows(self, standing: Any) -> None:
        found = predictions(standing, "half_plus_two", '{"instances": [NaN, Infinity, -Infinity, -1e-400]}')
        assert math.isnan(found[0])
        assert found[1:] == [math.inf, -math.inf, 2.0]


class TestStrings:
    def test_text_goes_and_comes_as_it_is(self, standing: Any) -> None:
        texts = ["", "plain", 'quote " and \\', "grün ☃ \U0001f600", "line\nbreak\ttab"]
        found = predictions(standing, "strings", {"instances": texts})
        assert [row["echo"] for row in found] == texts
        assert [base64.b64decode(row["echo_bytes"]["b64"]).decode() for row in found] == texts
        assert [row["length"] for row in found] == [len(text.encode()) for text in texts]

    def test_bytes_go_as_base64(self, standing: Any) -> None:
        body = {"instances": [{"b64": base64.b64encode(b"\x00\xff").decode()}, {"b64": ""}]}
        found = predictions(standing, "strings", {"instances": [{"text": value} for value in body["instances"]]})
        assert [row["length"] for row in found] == [2, 0]
        assert found[0]["echo_bytes"] == {"b64": "AP8="}

    def test_bytes_need_no_name_where_there_is_one_input(self, standing: Any) -> None:
        found = predictions(standing, "strings", {"instances": [{"b64": "AP8="}, {"b64": "YQ=="}]})
        assert [row["length"] for row in found] == [2, 1]

    def test_bytes_in_columns(self, standing: Any) -> None:
        answer = standing.rest_predict("strings", {"inputs": {"text": [{"b64": "YQ=="}, "b"]}})
        assert (answer.code, answer.json["outputs"]["echo"]) == (200, ["a", "b"])

    @pytest.mark.parametrize("value", [1, None, True, {"b65": "YQ=="}, {"b64": 1}, {"b64": "YQ==", "more": 1}])
    def test_what_is_no_string(self, standing: Any, value: Any) -> None:
        assert refusal(standing, "strings", {"inputs": {"text": [value]}})

    def test_what_is_no_base64(self, standing: Any) -> None:
        assert "Unable to base64 decode" in refusal(standing, "strings", {"inputs": {"text": [{"b64": "*?!"}]}})
