"""REST's JSON and addresses: what comes in, what goes out, and the words of every refusal."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.embedded_server.dense_values import DenseError, dense_array, exact_array
from serving.embedded_server.rest_examples import classification_request, regression_request
from serving.embedded_server.rest_input import parse_body, to_arrays
from serving.embedded_server.rest_json import shown
from serving.embedded_server.rest_output import classification_body, error_body, predict_body, regression_body
from serving.embedded_server.rest_paths import RestTarget, parse_target
from serving.embedded_server.status import Code, StatusError
from serving.protos import tfs_pb2


def signature(**inputs: int) -> dict[str, tfs_pb2.TensorInfo]:
    return {name: tfs_pb2.TensorInfo(name=f"{name}:0", dtype=dtype) for name, dtype in inputs.items()}


def arrays_of(body: object, **inputs: int) -> dict[str, np.ndarray]:
    return to_arrays(parse_body(json.dumps(body).encode()), signature(**inputs)).arrays


class TestRestInput:
    def test_a_list_of_values_is_a_batch_of_the_one_input(self) -> None:
        found = arrays_of({"instances": [[1, 2], [3, 4]]}, x=tfs_pb2.DT_UINT8)["x"]
        assert found.dtype == np.uint8
        assert found.tolist() == [[1, 2], [3, 4]]

    def test_objects_name_their_inputs(self) -> None:
        found = arrays_of(
            {"instances": [{"a": 1, "b": [1.5]}, {"a": 2, "b": [2.5]}]}, a=tfs_pb2.DT_INT64, b=tfs_pb2.DT_FLOAT
        )
        assert (found["a"].tolist(), found["b"].tolist()) == ([1, 2], [[1.5], [2.5]])

    def test_columns_need_no_batch_and_extra_names_are_ignored(self) -> None:
        assert arrays_of({"inputs": 7}, x=tfs_pb2.DT_INT32)["x"].shape == ()
        assert arrays_of({"inputs": {"x": [1], "y": 2}}, x=tfs_pb2.DT_INT32)["x"].tolist() == [1]

    def test_strings_may_be_text_or_base64(self) -> None:
        found = arrays_of({"instances": ["é", {"b64": "aGVsbG8="}]}, x=tfs_pb2.DT_STRING)["x"]
        assert found.tolist() == ["é".encode(), b"hello"]

    def test_floats_take_any_number(self) -> None:
        body = b'{"instances": [1435774380, 1e39, -Infinity, NaN, 1e-60, 0.1], "unknown": null} trailing'
        found = to_arrays(parse_body(body), signature(x=tfs_pb2.DT_FLOAT)).arrays["x"]
        assert found[:3].tolist() == [1435774336.0, math.inf, -math.inf]
        assert math.isnan(found[3])
        assert found[4:].tolist() == [0.0, float(np.float32(0.1))]

    @pytest.mark.parametrize(
        ("body", "dtype", "message"),
        [
            ({"instances": [[1, 2], [1]]}, "DT_INT32", "element: 1 of 'instances' list. .*tensor size: 2 but got: 1"),
            ({"instances": [[1, 2], [[1, 2]]]}, "DT_INT32", r"Expecting shape \[2\] but got: \[1,2\]"),
            ({"instances": [{"x": 1}, [1]]}, "DT_INT32", "Expecting object but got list at item 1 of input list"),
            ({"instances": [[1], {"x": 1}]}, "DT_INT32", "Expecting value/list but got object at item 1"),
            ({"instances": [{"y": 1}]}, "DT_INT32", "element: 0 key: y of .* does not have named input: y"),
            ({"instances": [{"x": 1}, {}]}, "DT_INT32", "element: 1 of 'instances' list. .*keys must be equal to: x"),
            (
                {"instances": [{"x": "a"}]},
                "DT_INT32",
                "element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: ",
            ),
            ({"instances": [1, "a"]}, "DT_INT32", "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "),
            ({"instances": [[1], [[2]]]}, "DT_INT32", r"Expecting shape \[1\] but got: \[1,1\]"),
            ({"inputs": [[1], 2]}, "DT_INT32", "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. .*level: 2"),
            ({"inputs": [[1], [[2]]]}, "DT_INT32", "Encountered list at unexpected level: 2 expected < 2"),
            ({"inputs": [[1], [2, 3]]}, "DT_INT32", "list at unexpected size: 2 at level: 1 expected size: 1"),
            ({"inputs": [10**400]}, "DT_FLOAT", "Number too big to be stored in double."),
            ({"inputs": [2**63]}, "DT_INT64", "Type: Number is not of expected type: int64"),
            ({"inputs": [-1]}, "DT_UINT64", "JSON Value: -1 Type: Number is not of expected type: uint64"),
            ({"inputs": [None]}, "DT_FLOAT", "JSON Value: null Type: Null is not of expected type: float"),
            ({"inputs": [True]}, "DT_FLOAT", "JSON Value: true Type: True is not of expected type: float"),
            ({"inputs": [{"b64": "aa"}]}, "DT_FLOAT", "Type: Object is not of expected type: float"),
            ({"instances": 1}, "DT_FLOAT", "Expecting 'instances' to be an list/array"),
            ({"instances": []}, "DT_FLOAT", "No values in 'instances' array"),
            (
                {"instances": [1], "inputs": 1},
                "DT_FLOAT",
                "expecting only one of 'inputs' or 'instances' keys to exist",
            ),
            ({}, "DT_FLOAT", "Missing 'inputs' or 'instances' key"),
            ({"signature_name": 1}, "DT_FLOAT", "'signature_name' key must be a string value."),
            ([], "DT_FLOAT", r"JSON Value: \[\] Is not object"),
            ({"inputs": ["a"]}, "DT_FLOAT", 'JSON Value: "a" Type: String is not of expected type: float'),
            ({"inputs": [1.5]}, "DT_INT32", "JSON Value: 1.5 Type: Number is not of expected type: int32"),
            ({"inputs": [True]}, "DT_INT32", "is not of expected type: int32"),
            ({"inputs": [2**31]}, "DT_UINT8", "is not of expected type: uint8"),
            ({"inputs": [1]}, "DT_BOOL", "is not of expected type: bool"),
            ({"inputs": [1]}, "DT_STRING", "is not of expected type: string"),
            ({"inputs": [{"b64": "?"}]}, "DT_STRING", "Unable to base64 decode"),
            ({"inputs": [{"b64": "aa", "c": 1}]}, "DT_STRING", "not formatted correctly for base64 data"),
            ({"inputs": {"y": 1}}, "DT_INT32", "Missing named input: x in 'inputs' object."),
            ({"inputs": [1]}, "DT_HALF", "Conversion of JSON Value: 1 to type: half"),
        ],
    )
    def test_values_that_do_not_fit_are_refused_with_the_real_servers_words(
        self, body: object, dtype: str, message: str
    ) -> None:
        with pytest.raises(StatusError, match=message):
            arrays_of(body, x=tfs_pb2.DataType.Value(dtype))

    @pytest.mark.parametrize("dtype", ["DT_HALF", "DT_BFLOAT16", "DT_COMPLEX64", "DT_UINT16"])
    def test_types_without_a_json_form_are_unimplemented(self, dtype: str) -> None:
        with pytest.raises(StatusError) as caught:
            arrays_of({"inputs": [1]}, x=tfs_pb2.DataType.Value(dtype))
        assert caught.value.code is Code.UNIMPLEMENTED

    def test_several_inputs_need_names(self) -> None:
        inputs = {"a": tfs_pb2.DT_FLOAT, "b": tfs_pb2.DT_FLOAT}
        for body in ({"instances": [1]}, {"inputs": [1]}, {"instances": [{"b64": "aa"}]}):
            with pytest.raises(StatusError, match="as multiple input tensors required as per tensorinfo_map"):
                arrays_of(body, **inputs)

    def test_a_signature_without_inputs_is_refused(self) -> None:
        with pytest.raises(StatusError, match="Failed to get input map for signature: DEFAULT"):
            arrays_of({"inputs": {}})

    @pytest.mark.parametrize("key", ["instances", "inputs"])
    def test_a_hundred_thousand_brackets_in_the_values_are_refused_clearly(self, key: str) -> None:
        depth = 100_000
        body = f'{{"{key}": '.encode() + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(StatusError, match="Encountered list at unexpected level: 64 expected < 64"):
            to_arrays(parse_body(body), signature(x=tfs_pb2.DT_FLOAT))

    @given(
        value=st.recursive(
            st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.text(max_size=3) | st.none(),
            lambda inner: st.lists(inner, max_size=3) | st.lists(inner, min_size=2, max_size=2),
            max_leaves=8,
        ),
        data_type=st.sampled_from([1, 2, 3, 4, 6, 7, 9, 10, 22, 23]),
    )
    def test_the_quick_way_makes_what_the_exact_way_makes(self, value: object, data_type: int) -> None:
        try:
            quick = dense_array(value, data_type)
        except (DenseError, StatusError):
            return
        exact = exact_array(value, data_type)
        assert (quick.dtype, quick.shape) == (exact.dtype, exact.shape)
        assert quick.tolist() == exact.tolist() or np.array_equal(quick, exact, equal_nan=True)

    def test_a_value_is_shown_as_the_real_server_shows_it(self) -> None:
        assert shown({"a": [1, {"b": None}], "c": {}}) == (
            '{\n    "a": [\n        1,\n        {\n            "b": null\n        }\n    ],\n    "c": {}\n}'
        )

    def test_what_is_shown_of_a_value_is_cut(self) -> None:
        with pytest.raises(StatusError) as caught:
            arrays_of({"inputs": ["a" * 100_000]}, x=tfs_pb2.DT_FLOAT)
        assert len(caught.value.message) < 500

    def test_nesting_without_end_is_refused(self) -> None:
        for body in (b'{"instances": ' + b"[" * 100_000, b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}"):
            with pytest.raises(StatusError):
                to_arrays(parse_body(body), signature(x=tfs_pb2.DT_FLOAT))


class TestRestOutput:
    def test_rows_of_one_output_stand_on_one_line(self) -> None:
        outputs = {"y": np.array([3.0, 3.5], np.float32)}
        assert predict_body(outputs, layout="row") == '{\n    "predictions": [3.0, 3.5\n    ]\n}'

    def test_rows_of_several_outputs_are_objects(self) -> None:
        outputs = {"a": np.array([[1, 2]]), "b": np.array([True])}
        assert predict_body(outputs, layout="row") == (
            '{\n    "predictions": [\n        {\n            "a": [1, 2],\n            "b": true\n        }\n    ]\n}'
        )

    def test_columns_are_nested_lists(self) -> None:
        assert json.loads(predict_body({"y": np.eye(2, dtype=np.float32)}, layout="columnar")) == {
            "outputs": [[1.0, 0.0], [0.0, 1.0]]
        }

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (np.float32(9_000_000), "9e+06"),
            (np.float32(999_999), "999999.0"),
            (np.float32(0.00003), "3e-05"),
            (np.float32(1435774380), "1.43577434e+09"),
            (np.float32(-0.0), "-0.0"),
            (np.float32(0.2), "0.2"),
            (np.float32(math.nan), "NaN"),
            (np.float32(-math.inf), "-Infinity"),
            (np.float64(0.1), "0.1"),
            (np.float64(1 / 3), "0.33333333333333331"),
        ],
    )
    def test_decimals_are_written_as_the_real_server_writes_them(self, value: np.floating, text: str) -> None:
        body = predict_body({"y": np.array([value])}, layout="row")
        assert f"[{text}\n" in body

    @given(arrays.arrays(np.float32, (5,)))
    def test_every_float_reads_back_as_itself(self, values: np.ndarray) -> None:
        back = json.loads(predict_body({"y": values}, layout="row"))["predictions"]
        assert np.array_equal(np.array(back, np.float32), values, equal_nan=True)

    def test_bytes_are_base64_by_the_name_of_their_output(self) -> None:
        value = np.array([b"\xffhello"], dtype=object)
        assert json.loads(predict_body({"y_bytes": value}, layout="row"))["predictions"] == [{"b64": "/2hlbGxv"}]
        assert json.loads(predict_body({"y": np.array([b"hi"], object)}, layout="row"))["predictions"] == ["hi"]

    @pytest.mark.parametrize("layout", ["row", "columnar"])
    @pytest.mark.parametrize("shape", [(0,), (2, 0), (1, 3), (2, 2, 2), (3, 0, 2), (1, 1, 1, 1)])
    def test_every_shape_comes_back(self, shape: tuple[int, ...], layout: str) -> None:
        array = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        for outputs in ({"y": array}, {"y": array, "z": array}):
            found = next(iter(json.loads(predict_body(outputs, layout=layout)).values()))
            expected = array.tolist()
            if len(outputs) == 2:
                expected = (
                    [{"y": row, "z": row} for row in expected] if layout == "row" else {"y": expected, "z": expected}
                )
            assert found == expected

    def test_columns_are_laid_out_a_value_a_line(self) -> None:
        assert predict_body({"y": np.array([[1], [2]])}, layout="columnar") == (
            '{\n    "outputs": [\n        [\n            1\n        ],\n        [\n            2\n        ]\n    ]\n}'
        )

    def test_half_floats_are_written_as_floats(self) -> None:
        assert "[0.0999755859\n" in predict_body({"y": np.array([0.1], np.float16)}, layout="row")

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
            ({}, "Cannot convert empty tensor map to JSON"),
            ({"a": np.zeros(2), "b": np.zeros(3)}, "inconsistent batch size: 3 expecting: 2"),
            ({"a": np.float32(1).reshape(())}, "has no shape information"),
            ({"a": np.zeros(1, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
        ],
    )
    def test_outputs_that_make_no_rows_are_refused(self, outputs: dict[str, np.ndarray], message: str) -> None:
        with pytest.raises(StatusError, match=message):
            predict_body(outputs, layout="row")

    def test_an_error_is_json_whatever_it_says(self) -> None:
        message = 'key "a"\n\\ é'
        assert json.loads(error_body(message)) == {"error": message}


class TestRestExamples:
    def test_features_take_the_type_of_their_values(self) -> None:
        body = {"examples": [{"f": [1.5, 2.0], "i": [1, True], "s": ["a", {"b64": "aGk="}], "one": 3, "none": []}]}
        request = classification_request(json.dumps(body).encode())
        (example,) = request.input.example_list.examples
        features = example.features.feature
        assert list(features["f"].float_list.value) == [1.5, 2.0]
        assert list(features["i"].int64_list.value) == [1, 1]
        assert list(features["s"].bytes_list.value) == [b"a", b"hi"]
        assert list(features["one"].int64_list.value) == [3]
        assert features["none"].WhichOneof("kind") is None

    def test_context_and_signature(self) -> None:
        body = {"signature_name": "s", "context": {"c": 1}, "examples": [{}, {"x": 1.0}]}
        request = regression_request(json.dumps(body).encode())
        assert request.model_spec.signature_name == "s"
        found = request.input.example_list_with_context
        assert list(found.context.features.feature["c"].int64_list.value) == [1]
        assert len(found.examples) == 2

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({}, "When method is classify, key 'examples' is expected and was not found"),
            ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
            ({"examples": []}, "'examples' value is an empty array"),
            ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
            ({"context": [], "examples": [{}]}, "Example must be JSON object but got JSON Array"),
            ({"examples": [{"f": [1, 1.5]}]}, "Unexpected element type in feature: f expecting type: int64"),
            ({"examples": [{"f": [1.5, "a"]}]}, "Unexpected element type in feature: f expecting type: float"),
            ({"examples": [{"f": ["a", True]}]}, "Unexpected element type in feature: f expecting type: bytes"),
            ({"examples": [{"f": None}]}, "Feature: f has element with unexpected JSON type: Null"),
            ({"examples": [{"f": [[1]]}]}, "Feature: f has element with unexpected JSON type: Array"),
            ({"examples": [{"f": {"x": 1}}]}, "Feature: f has element with unexpected JSON type: Object"),
            ({"examples": [{"f": 2**63}]}, "Feature: f has uint64 element. Only int64_t is supported."),
            ({"examples": [{"f": {"b64": "a"}}]}, "Unable to base64 decode"),
        ],
    )
    def test_what_makes_no_example_is_refused_in_the_real_servers_words(self, body: object, message: str) -> None:
        with pytest.raises(StatusError) as caught:
            classification_request(json.dumps(body).encode())
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert message in caught.value.message


class TestExampleAnswers:
    def test_a_classification_is_pairs_on_one_line(self) -> None:
        result = tfs_pb2.ClassificationResult()
        for label, score in (("a", 0.5), ('b"', 0.1)):
            result.classifications.add().classes.add(label=label, score=score)
        assert classification_body(result) == '{\n    "results": [[["a", 0.5]], [["b\\"", 0.1]]\n    ]\n}'

    def test_a_regression_is_a_list(self) -> None:
        result = tfs_pb2.RegressionResult()
        for value in (3.0, 0.25):
            result.regressions.add(value=value)
        assert regression_body(result) == '{\n    "results": [3.0, 0.25]\n}'

    def test_no_result_is_refused(self) -> None:
        with pytest.raises(StatusError, match="Cannot convert empty ClassificationResults to JSON"):
            classification_body(tfs_pb2.ClassificationResult())
        with pytest.raises(StatusError, match="Cannot convert empty RegressionResults to JSON"):
            regression_body(tfs_pb2.RegressionResult())


class TestRestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "target"),
        [
            ("GET", "/v1/models/m", RestTarget("status", "m")),
            ("GET", "/v1/models/m/versions/12", RestTarget("status", "m", 12)),
            ("GET", "/V1/MODELS/m/metadata", RestTarget("metadata", "m")),
            ("GET", "/v1/models/m/labels/a%20b/metadata", RestTarget("metadata", "m", None, "a b")),
            ("POST", "/v1/models/m%2F1:predict", RestTarget("predict", "m/1")),
            ("POST", "/v1/models/m/versions/3:classify", RestTarget("classify", "m", 3)),
            ("POST", "/v1/models/m/labels/stable:REGRESS", RestTarget("regress", "m", None, "stable")),
            ("GET", "/v1/models/m?x=1", RestTarget("status", "m?x=1")),
        ],
    )
    def test_addresses(self, method: str, path: str, target: RestTarget) -> None:
        assert parse_target(method, path) == target

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/models/m:predict"),
            ("POST", "/v1/models/m"),
            ("POST", "/v1/models/m/versions/x:predict"),
            ("GET", "/v1/models/m/labels/"),
            ("PUT", "/v1/models/m"),
        ],
    )
    def test_what_names_nothing_is_malformed(self, method: str, path: str) -> None:
        with pytest.raises(StatusError, match="Malformed request"):
            parse_target(method, path)
