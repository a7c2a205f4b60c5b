"""tf.Examples of a request: fed to the graph serialized, as one tensor of strings.

Its place in the flow: Classify, Regress and MultiInference turn their input into feeds here and run
the graph once; what comes out is read by inference_outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.embedded_server.catalogue import LoadedModel, ModelVersion
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.status import invalid_argument
from serving.protos import tfs_pb2

OnRun = Callable[[float], None]
"""Told how many microseconds a run took, when it has succeeded."""


@dataclass(frozen=True)
class ExampleTensors:
    """The names of the tensors that take serialized Examples, and that answer."""

    input_name: str
    output_names: Sequence[str]


@dataclass(frozen=True)
class ExampleOutputs:
    """What the graph made of a request's Examples: how many they were, and arrays by tensor name."""

    count: int
    tensors: Mapping[str, npt.NDArray[Any]]


def run_counter(metrics: Metrics | None, entry: ModelVersion, api: str) -> OnRun | None:
    """Return what counts a version's runs under a method's name; None where nothing is counted."""
    if metrics is None:
        return None
    return lambda microseconds: metrics.runtime(
        model=entry.model, version=entry.version, api=api, microseconds=microseconds
    )


def run_on_examples(
    model: LoadedModel,
    request_input: tfs_pb2.Input,
    *,
    tensors: ExampleTensors,
    timeout_seconds: float | None,
    on_run: OnRun | None,
) -> ExampleOutputs:
    """Run the graph once on the Examples of an input.

    Args:
        model: a loaded version.
        request_input: the Examples.
        tensors: where they go in, and what is wanted.
        timeout_seconds: when to give up; None for never.
        on_run: is told the time that the run took.

    Raises:
        StatusError: there are no Examples, or the graph fails.
    """
    examples = _serialized_examples(request_input)
    started = time.perf_counter()
    arrays = model.run({tensors.input_name: examples}, list(tensors.output_names), timeout_seconds=timeout_seconds)
    if on_run is not None:
        on_run((time.perf_counter() - started) * 1e6)
    return ExampleOutputs(count=len(examples), tensors=dict(zip(tensors.output_names, arrays, strict=True)))


def example_count(request_input: tfs_pb2.Input) -> int:
    """Return how many Examples an input has."""
    kind = request_input.WhichOneof("kind")
    return len(getattr(request_input, kind).examples) if kind is not None else 0


def _serialized_examples(request_input: tfs_pb2.Input) -> npt.NDArray[Any]:
    # Two messages written one after the other are read as one, in which the later one's features win:
    # that is how a context's features come to each Example.
    context = b""
    if request_input.WhichOneof("kind") == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
        examples = request_input.example_list_with_context.examples
    else:
        examples = request_input.example_list.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(examples), dtype=object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array
