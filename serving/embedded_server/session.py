"""A SavedModel in memory, executed by TensorFlow's C library.

Its place in the flow: the lifecycle loads one for each version; the executor runs it.

One thread inside an operation is the default, and a run stays in the thread that asks for it (see
run_options). Measured on two cores, CPU a picture: the small CNN 63 us against 257 us with two
threads inside an operation, MobileNetV2 6.5 ms against 13.3 ms alone and 6.3 ms against 8.2 ms in
batches of 8, and alone it is also the quicker one (6.5 ms against 8.9 ms): at this size threads
spend their time on waiting for each other. Large models on many cores want more: the flag
--tensorflow_intra_op_parallelism is for them. TensorFlow has one pool of such threads for a whole
process, made by the first session, so that it cannot be chosen for each model.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from serving.embedded_server.graph_runs import GraphRuns
from serving.embedded_server.host_tensor import HostTensor, from_array, to_array
from serving.embedded_server.run_plan import RunPlan
from serving.embedded_server.status import Code, StatusError, failed_precondition, not_found
from serving.embedded_server.tensorflow_library import Output, TensorFlowLibrary, tensorflow_library
from serving.protos import runtime_pb2, tfs_pb2

_MAX_PLANS = 256


class Session:
    """One loaded SavedModel; runs are safe from several threads, `close` comes after the last."""

    def __init__(
        self, library: TensorFlowLibrary, *, graph: Any, session: Any, meta_graph: bytes, is_in_callers_thread: bool
    ) -> None:
        self._library = library
        self._graph = graph
        self._session = session
        self._runs = GraphRuns(library, session, is_in_callers_thread=is_in_callers_thread)
        parsed = runtime_pb2.MetaGraph.FromString(meta_graph)
        self._restores_variables = bool(parsed.saver_def.restore_op_name)
        # A copy: the graph itself, with its constants, would stay in memory as unknown fields.
        self._signature_defs = {
            key: tfs_pb2.SignatureDef.FromString(signature.SerializeToString())
            for key, signature in parsed.signature_def.items()
        }
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], RunPlan] = {}

    @property
    def signature_defs(self) -> Mapping[str, tfs_pb2.SignatureDef]:
        """Every signature by its key, __saved_model_init_op of TensorFlow 2 among them."""
        return self._signature_defs

    @property
    def restores_variables(self) -> bool:
        """Whether the graph reads its variables from files."""
        return self._restores_variables

    def plan(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> RunPlan:
        """Return the plan for tensor names such as "serving_default_pixels:0".

        Raises:
            StatusError: INVALID_ARGUMENT: the graph has no such tensor.
        """
        found = self._plans.get((feeds, fetches))
        if found is None:
            found = RunPlan([self._output(name) for name in feeds], [self._output(name) for name in fetches])
            # Clients may ask for outputs in any order; what they think of may not fill the memory.
            if len(self._plans) < _MAX_PLANS:
                found = self._plans.setdefault((feeds, fetches), found)
        return found

    def execute(
        self, plan: RunPlan, feeds: Sequence[Sequence[HostTensor]], *, timeout_seconds: float | None
    ) -> list[HostTensor]:
        """Run the graph.

        Args:
            plan: what is fed and fetched.
            feeds: for each input the parts that make it, one after another in dimension 0; shapes are for the
                graph to judge.
            timeout_seconds: when to give up; None for never.

        Returns:
            the outputs in the plan's order.

        Raises:
            StatusError: TensorFlow's own code and message.
        """
        return self._runs.execute(plan, feeds, timeout_seconds=timeout_seconds)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], fetches: Sequence[str], *, timeout_seconds: float | None
    ) -> list[npt.NDArray[Any]]:
        """Run the graph with arrays by tensor name, and return arrays in the order of `fetches`.

        Raises:
            StatusError: TensorFlow's own code and message.
        """
        plan = self.plan(tuple(feeds), tuple(fetches))
        tensors = [[from_array(array)] for array in feeds.values()]
        return [to_array(tensor) for tensor in self.execute(plan, tensors, timeout_seconds=timeout_seconds)]

    def close(self) -> None:
        """Give the model's memory back, to the operating system too."""
        with _status(self._library) as status:
            self._library.close_session(self._session, status)
            self._library.delete_session(self._session, status)
        self._library.delete_graph(self._graph)
        self._runs.close()
        self._plans.clear()
        with contextlib.suppress(OSError, AttributeError):
            # Only glibc has it; without it the allocator keeps what a model has used.
            ctypes.CDLL(None).malloc_trim(0)

    def _output(self, name: str) -> Output:
        operation_name, _, index = name.partition(":")
        operation = self._library.operation_by_name(self._graph, operation_name.encode())
        if not operation:
            raise StatusError(Code.INVALID_ARGUMENT, f"Tensor {name} is not in the graph")
        return Output(operation, int(index or 0))


def load_session(
    path: Path,
    *,
    tags: tuple[str, ...],
    intra_op_threads: int,
    inter_op_threads: int,
    is_in_callers_thread: bool = True,
) -> Session:
    """Load the SavedModel at `path`.

    Args:
        path: the version's directory.
        tags: which of its graphs.
        intra_op_threads: threads inside an operation; what the process's first session says holds for all.
        inter_op_threads: operations at once, in runs that do not stay in the caller's thread.
        is_in_callers_thread: whether runs stay there, where their time allows it.

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
    session = Session(
        library, graph=graph, session=native, meta_graph=content, is_in_callers_thread=is_in_callers_thread
    )
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
