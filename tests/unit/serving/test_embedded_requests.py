"""One request at a time: flags, tensors, REST's JSON and addresses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artifact_sync.errors import SettingsError
from serving.embedded_server.flags import NOT_HONOURED, Flags, flags_help, parse_flags
from serving.embedded_server.rest_input import parse_body, to_arrays
from serving.embedded_server.rest_output import error_body, predict_body
from serving.embedded_server.rest_paths import RestTarget, parse_target
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.wire_tensors import to_array, to_tensor
from serving.protos import tfs_pb2

DTYPES = [
    *(np.float32, np.float64, np.float16, np.int8, np.int16, np.int32, np.int64),
    *(np.uint8, np.uint16, np.uint32, np.uint64, np.bool_, np.complex64, np.complex128),
]
ANY_ARRAY = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


class TestFlags:
    def test_values_are_of_their_kind_and_the_rest_is_as_in_the_real_server(self) -> None:
        flags, notes = parse_flags(["--port=9000", "--model_name=m", "--enable_model_warmup=false", "--version"])
        assert flags == Flags(port=9000, model_name="m", enable_model_warmup=False, version=True)
        assert (Flags().port, Flags().max_num_load_retries, Flags().file_system_poll_wait_seconds) == (8500, 5, 1)
        assert notes == ()

    @pytest.mark.parametrize("name", NOT_HONOURED)
    def test_a_flag_that_does_nothing_here_is_taken_and_said_so(self, name: str) -> None:
        flags, notes = parse_flags([f"--{name}=1"])
        assert flags == Flags()
        assert notes == (f"--{name} has no effect: {NOT_HONOURED[name]}.",)

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("--modle_name=m", r"Unknown argument '--modle_name=m' refused. Did you mean --model_name\?"),
            ("--nonsense", "Unknown argument '--nonsense' refused. See --help"),
            ("port=1", "Unknown argument 'port=1' refused"),
            ("--port", "--port refused: it needs a value"),
            ("--port=high", "--port refused: 'high' is not a number"),
            ("--enable_model_warmup=perhaps", "neither true nor false"),
        ],
    )
    def test_what_is_unknown_or_unreadable_is_refused(self, argument: str, message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            parse_flags([argument])

    def test_help_lists_every_flag_and_says_what_listening_without_a_password_means(self) -> None:
        text = flags_help()
        assert all(f"--{name}" in text for name in (*Flags.__dataclass_fields__, *NOT_HONOURED))
        assert "whoever reaches the port can load models" in text


class TestTensors:
    @given(array=ANY_ARRAY)
    def test_an_array_comes_back_from_the_wire_as_it_went(self, array: np.ndarray) -> None:
        tensor = tfs_pb2.Tensor()
        to_tensor(array, tensor)
        back = to_array(tfs_pb2.Tensor.FromString(tensor.SerializeToString()), alias="x")
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert np.array_equal(back, array, equal_nan=array.dtype.kind in "fc")

    @given(array=ANY_ARRAY)
    def test_raw_bytes_and_typed_fields_mean_the_same(self, array: np.ndarray) -> None:
        tensor = tfs_pb2.Tensor()
        to_tensor(array, tensor)
        raw = tfs_pb2.Tensor(dtype=tensor.dtype, tensor_content=array.tobytes())
        raw.tensor_shape.CopyFrom(tensor.tensor_shape)
        assert to_array(raw, alias="x").tobytes() == to_array(tensor, alias="x").tobytes()

    def test_strings_travel_as_bytes(self) -> None:
        array = np.array([[b"a", b""], [b"\xff", b"text"]], dtype=object)
        tensor = tfs_pb2.Tensor()
        to_tensor(array, tensor)
        assert tensor.dtype == tfs_pb2.DT_STRING
        assert to_array(tensor, alias="x").tolist() == array.tolist()

    @pytest.mark.parametrize(
        ("values", "shape"),
        [
            ({"float_val": [1, 2, 3]}, [2]),
            ({"tensor_content": b"123"}, [1]),
            ({"tensor_content": b"12345678"}, [1]),
            ({"float_val": [1]}, [-1]),
        ],
    )
    def test_values_that_do_not_fit_their_shape_are_refused(self, values: dict[str, object], shape: list[int]) -> None:
        tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_FLOAT, **values)
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        with pytest.raises(StatusError, match="tensor parsing error: pixels") as caught:
            to_array(tensor, alias="pixels")
        assert caught.value.code is Code.INVALID_ARGUMENT

    def test_a_shape_of_terabytes_without_values_is_refused_before_memory_is_taken(self) -> None:
        tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_FLOAT, float_val=[1.0])
        for size in (1_000_000, 1_000_000, 1_000):
            tensor.tensor_shape.dim.add(size=size)
        with pytest.raises(StatusError) as caught:
            to_array(tensor, alias="pixels")
        assert caught.value.code is Code.RESOURCE_EXHAUSTED

    def test_types_that_numpy_has_not_are_said_to_be_unsupported(self) -> None:
        with pytest.raises(StatusError, match="qint8"):
            to_array(tfs_pb2.Tensor(dtype=tfs_pb2.DT_QINT8), alias="x")


def signature(**inputs: int) -> dict[str, tfs_pb2.TensorInfo]:
    return {name: tfs_pb2.TensorInfo(name=f"{name}:0", dtype=dtype) for name, dtype in inputs.items()}


def arrays_of(body: object, **inputs: int) -> dict[str, np.ndarray]:
    return to_arrays(parse_body(json.dumps(body).encode()), signature(**inputs))


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
        body = b'{"instances": [1435774380, 1e400, -Infinity, NaN, 1e-60, 0.1], "unknown": null} trailing'
        found = to_arrays(parse_body(body), signature(x=tfs_pb2.DT_FLOAT))["x"]
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
            ({"instances": [{"y": 1}]}, "DT_INT32", "keys must be equal to: x"),
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

    def test_what_is_shown_of_a_value_is_cut(self) -> None:
        with pytest.raises(StatusError) as caught:
            arrays_of({"inputs": ["a" * 100_000]}, x=tfs_pb2.DT_FLOAT)
        assert len(caught.value.message) < 500

    def test_nesting_without_end_is_refused(self) -> None:
        for body in (b'{"instances": ' + b"[" * 500_000, b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}"):
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

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
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
