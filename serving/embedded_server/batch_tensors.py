"""The inputs of a batch from its tasks', and its tasks' outputs from the batch's.

Its place in the flow: the executor calls both, before and after TensorFlow runs a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.embedded_server.host_tensor import HostTensor, from_array, to_array
from serving.embedded_server.run_task import RunTask
from serving.embedded_server.status import failed_precondition, invalid_argument

_MAX_PADDED_RANK = 6


def merged_inputs(tasks: Sequence[RunTask], *, padding: int, is_padding_shapes: bool) -> list[list[HostTensor]]:
    """Return, for each input, the parts that make the batch's.

    Args:
        tasks: in their order.
        padding: how many rows to add, copies of a row that is there.
        is_padding_shapes: whether the tasks' shapes differ and are to be brought to the largest.

    Raises:
        StatusError: INVALID_ARGUMENT: shapes that cannot be padded.
    """
    inputs = [list(parts) for parts in zip(*[task.tensors for task in tasks], strict=True)]
    if is_padding_shapes:
        inputs = [_of_one_shape(parts) for parts in inputs]
    if padding:
        for parts in inputs:
            # The last task's first row; an empty task has none to copy.
            last = next((part for part in reversed(parts) if part.shape[0]), None)
            if last is not None:
                data_type, shape, content = last.rows(0, 1)
                parts.append(HostTensor(data_type, (padding, *shape[1:]), content * padding))
    return inputs


def split_outputs(outputs: Sequence[HostTensor], row_counts: Sequence[int], *, rows: int) -> list[list[HostTensor]]:
    """Return each task's part of the outputs.

    Args:
        outputs: of the batch.
        row_counts: each task's rows.
        rows: the batch's, with padding.

    Raises:
        StatusError: FAILED_PRECONDITION: an output is not made of rows.
    """
    answers: list[list[HostTensor]] = [[] for _ in row_counts]
    for data_type, shape, content in outputs:
        if not shape:
            raise failed_precondition("Batched output tensor has 0 dimensions")
        if shape[0] != rows:
            raise failed_precondition(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors"
            )
        row_length = len(content) // rows if rows else 0
        start = 0
        for answer, count in zip(answers, row_counts, strict=True):
            end = start + count * row_length
            answer.append(HostTensor(data_type, (count, *shape[1:]), content[start:end]))
            start = end
    return answers


def _of_one_shape(parts: list[HostTensor]) -> list[HostTensor]:
    shapes = [part.shape[1:] for part in parts]
    largest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    return [part if shape == largest else _padded(part, largest) for part, shape in zip(parts, shapes, strict=True)]


def _padded(part: HostTensor, largest: tuple[int, ...]) -> HostTensor:
    """Return a tensor grown to the largest shape with copies of its own first value, as TensorFlow Serving does."""
    if len(part.shape) > _MAX_PADDED_RANK:
        raise invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
    array: npt.NDArray[Any] = to_array(part)
    if not array.size:
        raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
    padded = np.full((part.shape[0], *largest), array.ravel()[0], dtype=array.dtype)
    padded[tuple(slice(size) for size in array.shape)] = array
    return from_array(padded)
