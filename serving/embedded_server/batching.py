"""The parameters of batching, as TensorFlow Serving reads them from a text file.

Its place in the flow: the server reads one file at its start; with per-model batching each load reads
`batching_params.pbtxt` in the version's directory. The queues work by them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from serving.embedded_server.status import invalid_argument, not_found
from serving.protos import tfs_pb2

PER_MODEL_FILE = "batching_params.pbtxt"

_MAX_BATCH_SIZE = 1000
_MAX_ENQUEUED_BATCHES = 10


@dataclass(frozen=True)
class BatchingParameters:
    """How requests for one model are put together.

    Attributes:
        max_batch_size: the most rows (dimension 0) that one request may have.
        batch_timeout_micros: how long a batch that is not full waits for more.
        max_enqueued_batches: how many may wait; then requests are refused.
        num_batch_threads: how many batches run at once, of all models together.
        thread_pool_name: the name of these threads in metrics.
        allowed_batch_sizes: sizes to which batches are padded, rising; () for any.
        pad_variable_length_inputs: whether inputs of different shapes are padded to one.
        execution_batch_size: the most rows of one batch.
        is_splitting: whether a request larger than a batch is cut into several.
    """

    max_batch_size: int = _MAX_BATCH_SIZE
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = _MAX_ENQUEUED_BATCHES
    num_batch_threads: int = 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    execution_batch_size: int = _MAX_BATCH_SIZE
    is_splitting: bool = False

    def padded_size(self, rows: int) -> int:
        """Return the allowed size that a batch of `rows` is brought to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Read a text file with a BatchingParameters message.

    Raises:
        StatusError: NOT_FOUND: there is none; INVALID_ARGUMENT: it is not such a message, or TensorFlow
            Serving refuses its values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        message = text_format.Parse(text, tfs_pb2.BatchingParameters())
    except OSError as error:
        raise not_found(f"{path}; {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
    return parameters_of(message)


def read_model_parameters(version_path: Path) -> BatchingParameters | None:
    """Return what a version says of its own batching; None: it says nothing and is not batched.

    Raises:
        StatusError: as `read_batching_parameters`.
    """
    path = version_path / PER_MODEL_FILE
    return read_batching_parameters(path) if path.is_file() else None


def parameters_of(message: tfs_pb2.BatchingParameters) -> BatchingParameters:
    """Return the parameters of a message, with TensorFlow Serving's defaults.

    Raises:
        StatusError: INVALID_ARGUMENT: TensorFlow Serving refuses the values.
    """

    def value(name: str, default: int) -> int:
        return int(getattr(message, name).value) if message.HasField(name) else default

    largest = value("max_batch_size", _MAX_BATCH_SIZE)
    is_splitting = message.enable_large_batch_splitting.value
    parameters = BatchingParameters(
        max_batch_size=largest,
        batch_timeout_micros=value("batch_timeout_micros", 0),
        max_enqueued_batches=value("max_enqueued_batches", _MAX_ENQUEUED_BATCHES),
        num_batch_threads=value("num_batch_threads", _cpus()),
        thread_pool_name=message.thread_pool_name.value or "batch_threads",
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        # Without splitting the real server does not look at the field.
        execution_batch_size=value("max_execution_batch_size", largest) if is_splitting else largest,
        is_splitting=is_splitting,
    )
    _check(parameters)
    return parameters


def _check(parameters: BatchingParameters) -> None:
    sizes, largest = parameters.allowed_batch_sizes, parameters.max_batch_size
    if sizes and sizes[-1] != largest:
        raise invalid_argument(
            "Last entry in allowed_batch_sizes must match max_batch_size; "
            f"last entry was {sizes[-1]}; expected {largest}"
        )
    if any(size < 1 for size in sizes) or list(sizes) != sorted(set(sizes)):
        raise invalid_argument(f"allowed_batch_sizes must be positive and rise; they are {list(sizes)}")
    refusals: tuple[tuple[str, int, int, str], ...] = (
        ("num_batch_threads", parameters.num_batch_threads, 1, "positive"),
        ("input_batch_size_limit", largest, 1, "positive"),
        ("max_execution_batch_size", parameters.execution_batch_size, 1, "positive"),
        ("batch_timeout_micros", parameters.batch_timeout_micros, 0, "non-negative"),
        ("max_enqueued_batches", parameters.max_enqueued_batches, 1, "positive"),
    )
    for name, found, least, word in refusals:
        if found < least:
            raise invalid_argument(f"{name} must be {word}; was {found}")
    if parameters.execution_batch_size > largest:
        raise invalid_argument(
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
            f"max_execution_batch_size; they are {largest} and {parameters.execution_batch_size}"
        )


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
