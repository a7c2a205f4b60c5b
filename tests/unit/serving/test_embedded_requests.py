"""One request at a time: flags and tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artifact_sync.errors import SettingsError
from serving.embedded_server.flags import NOT_HONOURED, Flags, flags_help, parse_flags
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
