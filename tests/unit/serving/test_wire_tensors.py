"""Tensors on the wire: raw bytes and typed fields, bfloat16, strings, and whatever a client may send."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.embedded_server.dtypes import data_type_of, dtype_of
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.wire_tensors import to_array, to_tensor
from serving.protos import tfs_pb2

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [
    *(np.float32, np.float64, np.float16, np.int8, np.int16, np.int32, np.int64),
    *(np.uint8, np.uint16, np.uint32, np.uint64, np.bool_, np.complex64, np.complex128),
]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ANY_ARRAY = st.one_of(
    st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
    arrays.arrays(np.uint16, SHAPES).map(lambda array: array.view(BFLOAT16)),
    arrays.arrays(object, SHAPES, elements=st.binary(max_size=300)),
)
SIZES = st.one_of(st.integers(0, 5), st.sampled_from([-1, 2**31, 2**40, 2**62, -(2**63)]))
VALUES = {
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "string_val": st.binary(max_size=4),
    "scomplex_val": st.floats(width=32),
    "dcomplex_val": st.floats(),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "bool_val": st.booleans(),
    "half_val": st.integers(-(2**31), 2**31 - 1),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
}


@st.composite
def any_message(draw: st.DrawFn) -> tfs_pb2.Tensor:
    tensor = tfs_pb2.Tensor(dtype=draw(st.integers(-1, 40)), tensor_content=draw(st.binary(max_size=24)))
    tensor.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
    for size in draw(st.one_of(st.lists(SIZES, max_size=4), st.just([1] * 65))):
        tensor.tensor_shape.dim.add(size=size)
    for field in draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=3)):
        getattr(tensor, field).extend(draw(st.lists(VALUES[field], max_size=6)))
    return tensor


def tensor_of(array: np.ndarray, *, as_content: bool = False) -> tfs_pb2.Tensor:
    tensor = tfs_pb2.Tensor()
    to_tensor(array, tensor, as_content=as_content)
    return tensor


def refusal(tensor: tfs_pb2.Tensor) -> tuple[Code, str]:
    with pytest.raises(StatusError) as caught:
        to_array(tensor, alias="x")
    return caught.value.code, caught.value.message


@given(array=ANY_ARRAY, as_content=st.booleans())
def test_an_array_comes_back_from_the_wire_as_it_went(array: np.ndarray, as_content: bool) -> None:
    tensor = tfs_pb2.Tensor.FromString(tensor_of(array, as_content=as_content).SerializeToString())
    back = to_array(tensor, alias="x")
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tolist() == array.tolist() if array.dtype == object else back.tobytes() == array.tobytes()


@given(array=ANY_ARRAY)
def test_raw_bytes_are_the_array_itself_and_strings_stay_fields(array: np.ndarray) -> None:
    tensor = tensor_of(array, as_content=True)
    if array.dtype == object:
        assert (tensor.tensor_content, list(tensor.string_val)) == (b"", array.ravel().tolist())
    else:
        assert tensor.tensor_content == array.tobytes()
    fields = [field.name for field, _ in tensor.ListFields() if field.name.endswith("_val")]
    assert fields == ([] if array.dtype != object or not array.size else ["string_val"])


FIELDS = [
    *(("float32", "float_val"), ("float64", "double_val"), ("float16", "half_val"), (BFLOAT16, "half_val")),
    *((name, "int_val") for name in ("int8", "int16", "int32", "uint8", "uint16")),
    *(("int64", "int64_val"), ("uint32", "uint32_val"), ("uint64", "uint64_val"), ("bool", "bool_val")),
    *(("complex64", "scomplex_val"), ("complex128", "dcomplex_val")),
]


@pytest.mark.parametrize(("dtype", "field"), FIELDS)
def test_each_type_has_its_field(dtype: np.dtype | str, field: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
    tensor = tensor_of(array)
    assert [each.name for each, _ in tensor.ListFields() if each.name.endswith("_val")] == [field]
    assert [dim.size for dim in tensor.tensor_shape.dim] == [2, 3]
    assert to_array(tensor, alias="x").tolist() == array.tolist()


def test_arrays_that_are_not_contiguous_are_written_in_their_order() -> None:
    for dtype in (np.float32, np.int64, np.float16, BFLOAT16):
        array = np.arange(24).reshape(4, 6).astype(dtype)[::2, ::-1].T
        for as_content in (False, True):
            assert to_array(tensor_of(array, as_content=as_content), alias="x").tolist() == array.tolist()


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_BFLOAT16, half_val=[0x3FC0, 0xC000])
    tensor.tensor_shape.dim.add(size=2)
    array = to_array(tensor, alias="x")
    assert array.astype(np.float32).tolist() == [1.5, -2.0]
    assert data_type_of(array.dtype) == tfs_pb2.DT_BFLOAT16


@given(message=any_message())
def test_whatever_is_sent_is_an_array_or_a_refusal(message: tfs_pb2.Tensor) -> None:
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    try:
        array = to_array(message, alias="x")
    except StatusError as error:
        refused = error.code
    else:
        assert (array.shape, array.size) == (shape, math.prod(shape))
        assert array.dtype == dtype_of(message.dtype)
        return
    assert refused in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("shape", [(-1,), (-1, -1), (1, -1, -1), (1,) * 65])
def test_sizes_that_are_not_known_and_too_many_are_refused(shape: tuple[int, ...]) -> None:
    tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_FLOAT, float_val=[1.0])
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    assert refusal(tensor) == (Code.INVALID_ARGUMENT, "tensor parsing error: x")


@pytest.mark.parametrize("shape", [(0, 2**62), (2**62, 2**62, 0), (2**62, 0, 2**62, 4)])
def test_sizes_that_no_computer_has_are_refused_beside_a_zero_too(shape: tuple[int, ...]) -> None:
    tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_FLOAT)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    assert refusal(tensor) == (Code.INVALID_ARGUMENT, "tensor parsing error: x")


@pytest.mark.parametrize(
    ("count", "content"),
    [
        *((1, b"\x01"), (1, b"\x01ab"), (1, b"\xff" * 12), (1, b"\x80"), (1, b"\x00\x00\x00")),
        *((1, b"\xff\xff\x7f" + b"a" * 9), (2, b"\x00"), (0, b"\x00"), (2**40, b"\x00\x00")),
    ],
)
def test_strings_as_raw_bytes_have_to_be_whole(count: int, content: bytes) -> None:
    tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_STRING, tensor_content=content)
    tensor.tensor_shape.dim.add(size=count)
    assert refusal(tensor) == (Code.INVALID_ARGUMENT, "tensor parsing error: x")


def test_strings_as_raw_bytes_are_lengths_and_then_bytes() -> None:
    tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_STRING, tensor_content=b"\x01\x00\x82\x01" + b"a" + b"b" * 130)
    tensor.tensor_shape.dim.add(size=3)
    assert to_array(tensor, alias="x").tolist() == [b"a", b"", b"b" * 130]


def test_a_type_that_is_not_said_is_the_clients_fault_and_a_quantised_one_is_ours() -> None:
    assert refusal(tfs_pb2.Tensor()) == (Code.INVALID_ARGUMENT, "tensor parsing error: x")
    for name in ("qint8", "quint8", "qint16", "quint16", "qint32", "resource", "variant"):
        code, message = refusal(tfs_pb2.Tensor(dtype=f"DT_{name.upper()}"))
        assert code is Code.UNIMPLEMENTED
        assert message.startswith(f"Tensors of type {name} are not supported; export a signature that")
    assert refusal(tfs_pb2.Tensor(dtype=77))[1].startswith("Tensors of type 77 are not supported")
