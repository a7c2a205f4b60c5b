"""A SavedModel in memory, executed by TensorFlow's C library.

Its place in the flow: the lifecycle loads one for each version; predict runs it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from serving.embedded_server.native_tensors import delete_input, new_tensor, to_array
from serving.embedded_server.status import Code, StatusError, failed_precondition, not_found
from serving.embedded_server.tensorflow_library import Output, Pointer, TensorFlowLibrary, tensorflow_library
from serving.protos import runtime_pb2, tfs_pb2


class Session:
    """One loaded SavedModel; `run` is safe to call from several threads, `close` comes after the last."""

    def __init__(self, library: TensorFlowLibrary, *, graph: Any, session: Any, meta_graph: bytes) -> None:
        self._library = library
        self._graph = graph
        self._session = session
        parsed = runtime_pb2.MetaGraph.FromString(meta_graph)
        self._restores_variables = bool(parsed.saver_def.restore_op_name)
        # A copy: the graph itself, with its constants, would stay in memory as unknown fields.
        self._signature_defs = {
            key: tfs_pb2.SignatureDef.FromString(signature.SerializeToString())
            for key, signature in parsed.signature_def.items()
        }
        self._outputs: dict[str, Output] = {}

    @property
    def signature_defs(self) -> Mapping[str, tfs_pb2.SignatureDef]:
        """Every signature by its key, __saved_model_init_op of TensorFlow 2 among them."""
        return self._signature_defs

    @property
    def restores_variables(self) -> bool:
        """Whether the graph reads its variables from files."""
        return self._restores_variables

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], fetches: list[str], *, timeout_seconds: float | None
    ) -> list[npt.NDArray[Any]]:
        """Run the graph.

        Args:
            feeds: arrays by tensor name ("serving_default_pixels:0"); shapes are for the graph to judge.
            fetches: tensor names.
            timeout_seconds: when to give up; None for never.

        Returns:
            arrays in the order of `fetches`.

        Raises:
            StatusError: TensorFlow's own code and message.
        """
        library = self._library
        inputs = (Output * len(feeds))(*map(self._output, feeds))
        outputs = (Output * len(fetches))(*map(self._output, fetches))
        results = (Pointer * len(fetches))()
        with contextlib.ExitStack() as stack:
            values = (Pointer * len(feeds))()
            for index, array in enumerate(feeds.values()):
                values[index] = new_tensor(library, array)
                stack.callback(delete_input, library, values[index])
            options = stack.enter_context(_run_options(library, timeout_seconds))
            status = stack.enter_context(_status(library))
            library.session_run(
                *(self._session, options),
                *(inputs, values, len(feeds)),
                *(outputs, results, len(fetches)),
                *(None, 0, None, status),
            )
            for tensor in results:
                if tensor:
                    stack.callback(library.delete_tensor, tensor)
            library.check(status)
            return [to_array(library, tensor) for tensor in results]

    def close(self) -> None:
        """Give the model's memory back, to the operating system too."""
        with _status(self._library) as status:
            self._library.close_session(self._session, status)
            self._library.delete_session(self._session, status)
        self._library.delete_graph(self._graph)
        self._outputs.clear()
        with contextlib.suppress(OSError, AttributeError):
            # Only glibc has it; without it the allocator keeps what a model has used.
            ctypes.CDLL(None).malloc_trim(0)

    def _output(self, name: str) -> Output:
        output = self._outputs.get(name)
        if output is None:
            operation_name, _, index = name.partition(":")
            operation = self._library.operation_by_name(self._graph, operation_name.encode())
            if not operation:
                raise StatusError(Code.INVALID_ARGUMENT, f"Tensor {name} is not in the graph")
            output = self._outputs[name] = Output(operation, int(index or 0))
        return output


def load_session(path: Path, *, tags: tuple[str, ...], intra_op_threads: int, inter_op_threads: int) -> Session:
    """Load the SavedModel at `path`.

    Raises:
        StatusError: it is not a SavedModel, not complete, or damaged.
    """
    _check_is_saved_model(path)
    library = tensorflow_library()
    tag_array = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    graph = library.new_graph()
    meta_graph = library.new_buffer()
    try:
        with _status(library) as status, _session_options(library, intra_op_threads, inter_op_threads) as options:
            native = library.load_session_from_saved_model(
                *(options, None, str(path).encode()),
                *(tag_array, len(tags), graph, meta_graph, status),
            )
            library.check(status)
        content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
    except StatusError:
        library.delete_graph(graph)
        raise
    finally:
        library.delete_buffer(meta_graph)
    session = Session(library, graph=graph, session=native, meta_graph=content)
    if session.restores_variables and not (path / "variables/variables.index").is_file():
        # The library loads it with every variable empty, and each request would fail.
        session.close()
        raise failed_precondition(
            f"{path} is not complete: variables/variables.index is missing. Copy the version again, as a whole."
        )
    return session


def start_threads(*, intra_op_threads: int, inter_op_threads: int) -> None:
    """Make TensorFlow start its threads now, so that they do not inherit the priority of a loading thread."""
    library = tensorflow_library()
    graph = library.new_graph()
    with _status(library) as status, _session_options(library, intra_op_threads, inter_op_threads) as options:
        session = library.new_session(graph, options, status)
        library.check(status)
        library.delete_session(session, status)
    library.delete_graph(graph)


def _check_is_saved_model(path: Path) -> None:
    if (path / "export.meta").exists():
        raise StatusError(Code.UNIMPLEMENTED, "Session Bundle is deprecated and removed.")
    if not (path / "saved_model.pb").is_file() and not (path / "saved_model.pbtxt").is_file():
        raise not_found(
            "Specified file path does not appear to contain a SavedModel bundle "
            f"(should have a file called `saved_model.pb`)\nSpecified file path: {path}"
        )


@contextlib.contextmanager
def _session_options(library: TensorFlowLibrary, intra_op_threads: int, inter_op_threads: int) -> Iterator[Any]:
    config = runtime_pb2.SessionConfig(
        intra_op_parallelism_threads=intra_op_threads, inter_op_parallelism_threads=inter_op_threads
    ).SerializeToString()
    options = library.new_session_options()
    try:
        with _status(library) as status:
            library.set_config(options, config, len(config), status)
            library.check(status)
        yield options
    finally:
        library.delete_session_options(options)


@contextlib.contextmanager
def _status(library: TensorFlowLibrary) -> Iterator[Any]:
    status = library.new_status()
    try:
        yield status
    finally:
        library.delete_status(status)


@contextlib.contextmanager
def _run_options(library: TensorFlowLibrary, timeout_seconds: float | None) -> Iterator[Any]:
    if timeout_seconds is None:
        yield None
        return
    timeout = max(1, int(timeout_seconds * 1000))
    content = runtime_pb2.RunOptions(timeout_in_ms=timeout).SerializeToString()
    options = library.new_buffer_from_string(content, len(content))
    try:
        yield options
    finally:
        library.delete_buffer(options)
