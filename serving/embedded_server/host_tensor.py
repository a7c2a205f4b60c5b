"""A tensor's values in this process's memory, as the C library lays them out.

Its place in the flow: a request's bytes become one of these without being touched, several of them
become one input of TensorFlow, and what TensorFlow answers is cut into them again. NumPy appears
only at the edges that compute with values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import data_type_of, dtype_of
from serving.protos import tfs_pb2


class HostTensor(NamedTuple):
    """One tensor; immutable.

    Attributes:
        data_type: a DataType.
        shape: its dimensions.
        content: the values in row-major order; strings are a list of bytes objects.
    """

    data_type: int
    shape: tuple[int, ...]
    content: bytes | list[bytes]

    def rows(self, start: int, count: int) -> HostTensor:
        """Return a part of dimension 0."""
        row_length = len(self.content) // self.shape[0] if self.shape[0] else 0
        content = self.content[start * row_length : (start + count) * row_length]
        return HostTensor(self.data_type, (count, *self.shape[1:]), content)


def from_array(array: npt.NDArray[Any]) -> HostTensor:
    """Return an array's values; an array of objects holds bytes."""
    data_type = data_type_of(array.dtype)
    content = array.ravel().tolist() if data_type == tfs_pb2.DT_STRING else array.tobytes()
    return HostTensor(int(data_type), array.shape, content)


def to_array(tensor: HostTensor) -> npt.NDArray[Any]:
    """Return a tensor's values, read-only; strings are objects (bytes).

    Raises:
        StatusError: UNIMPLEMENTED: NumPy does not know the type.
    """
    dtype = dtype_of(tensor.data_type)
    if isinstance(tensor.content, list):
        # The None keeps NumPy from making an array of fixed-width text.
        return np.array([*tensor.content, None], dtype=object)[:-1].reshape(tensor.shape)
    return np.frombuffer(tensor.content, dtype=dtype).reshape(tensor.shape)


def concatenated(parts: list[HostTensor]) -> HostTensor:
    """Return parts of one type, equal but for dimension 0, as one tensor."""
    first = parts[0]
    if len(parts) == 1:
        return first
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    if isinstance(first.content, list):
        return HostTensor(first.data_type, shape, [value for part in parts for value in part.content])  # type: ignore[misc]
    return HostTensor(first.data_type, shape, b"".join(part.content for part in parts))  # type: ignore[misc]
