"""Requests put together and run by TensorFlow, and Predict from message to message."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.embedded_server.batching import BatchingParameters
from serving.embedded_server.catalogue import Catalogue, ModelVersion
from serving.embedded_server.executor import ExecutedModel, open_model
from serving.embedded_server.predict import predict, start_predict
from serving.embedded_server.session import load_session
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage
from serving.embedded_server.wire_tensors import to_array, to_tensor
from serving.embedded_server.worker_pool import WorkerPool
from serving.protos import tfs_pb2

TYPES = ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
TYPES += ["bool", "complex64", "complex128"]
SMALL = BatchingParameters(max_batch_size=8, execution_batch_size=8, max_enqueued_batches=4)
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a signature for each type that answers its input, and some that are awkward in batches."""
    import tensorflow as tf

    module = tf.Module()
    module.table = tf.Variable(tf.range(10.0))

    def add(name: str, function: Any, specification: Any) -> None:
        setattr(module, name, tf.function(lambda x: {"y": function(x)}, input_signature=[specification]))

    for name in [*TYPES, "string"]:
        add(name, tf.identity, tf.TensorSpec(None, tf.as_dtype(name), name="x"))
    add("pick", lambda x: tf.gather(module.table, x), tf.TensorSpec([None], tf.int32, name="x"))
    add("total", tf.reduce_sum, tf.TensorSpec([None], tf.float32, name="x"))
    add("first", lambda x: x[:1], tf.TensorSpec([None], tf.float32, name="x"))
    add("pixels", lambda x: tf.cast(x, tf.float32) * 2.0, tf.TensorSpec([None, 2, 2], tf.uint8, name="x"))
    add("mean", lambda x: tf.reduce_mean(x, 1), tf.TensorSpec([None, None], tf.float32, name="x"))

    def count(x: Any) -> Any:
        for _ in tf.range(x[0]):
            module.table.assign_add(tf.zeros([10]))
        return x

    add("count", count, tf.TensorSpec([None], tf.int32, name="x"))
    module.both = tf.function(
        lambda a, b: {"sum": a + b, "difference": a - b},
        input_signature=[tf.TensorSpec([None], tf.float32, name=name) for name in "ab"],
    )
    awkward = ["pick", "total", "first", "pixels", "mean", "count", "both"]
    signatures = {name: getattr(module, name) for name in [*TYPES, "string", *awkward]}
    found = tmp_path_factory.mktemp("rows") / "1"
    tf.saved_model.save(module, str(found), signatures=signatures)
    return found


class Counts:
    """What Metrics is told, as it is told."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []

    def batch(self, **found: Any) -> None:
        self.batches.append(found)

    def runtime(self, **found: Any) -> None:
        assert found["api"] == "Predict"


class Bench:
    """A loaded version, its pool, and a brake that lets requests gather in the queue."""

    def __init__(self, path: Path, batching: BatchingParameters | None, *, threads: int = 1) -> None:
        self.pool = WorkerPool(threads)
        self.pool.start()
        self.metrics = Counts()
        self._path, self._threads = path, threads
        self.model = self.open(batching)

    def open(self, batching: BatchingParameters | None) -> ExecutedModel:
        session = load_session(self._path, tags=("serve",), intra_op_threads=1, inter_op_threads=2)
        return open_model(session, batching=batching, pool=self.pool, metrics=self.metrics, model="rows", version=7)

    def gather(self, signature: str, *inputs: np.ndarray, timeout_seconds: float | None = None) -> list[Any]:
        """Submit all while no thread is free, then let them run; return arrays or errors in order."""
        brake = threading.Event()
        for _ in range(self._threads):
            self.pool.put(lambda: brake.wait(PATIENCE_SECONDS))
        answers: list[Any] = [None] * len(inputs)
        done: SimpleQueue[int] = SimpleQueue()
        definition = self.model.signature_defs[signature]

        def take(number: int, answer: Any) -> None:
            answers[number] = answer if isinstance(answer, StatusError) else answer[0]
            done.put(number)

        for number, array in enumerate(inputs):
            self.model.submit(
                {definition.inputs["x"].name: array},
                [definition.outputs["y"].name],
                timeout_seconds=timeout_seconds,
                done=lambda answer, number=number: take(number, answer),
            )
        brake.set()
        for _ in inputs:
            done.get(timeout=PATIENCE_SECONDS)
        return answers

    def close(self) -> None:
        self.pool.stop()
        self.model.close()


@pytest.fixture
def bench(path: Path) -> Iterator[Bench]:
    found = Bench(path, SMALL)
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared(path: Path) -> Iterator[Bench]:
    found = Bench(path, SMALL, threads=2)
    yield found
    found.close()


def texts(errors: Sequence[Any]) -> set[str]:
    assert all(isinstance(error, StatusError) for error in errors)
    return {str(error) for error in errors}


def test_requests_that_wait_run_together_and_each_gets_its_own_rows(bench: Bench) -> None:
    inputs = [np.full((rows, 3), number, np.float32) for number, rows in enumerate([1, 2, 3, 1, 1])]
    for array, answer in zip(inputs, bench.gather("float32", *inputs), strict=True):
        assert np.array_equal(answer, array)
    (batch,) = bench.metrics.batches
    assert (batch["batch_size"], batch["padding"], batch["input_sizes"]) == (8, 0, [1, 2, 3, 1, 1])
    assert len(batch["queuing_microseconds"]) == 5


@pytest.mark.parametrize("name", TYPES)
def test_every_type_goes_through_a_batch(shared: Bench, name: str) -> None:
    inputs = [np.resize(np.arange(5), (rows, 2)).astype(name) for rows in (1, 3, 0)]
    for array, answer in zip(inputs, shared.gather(name, *inputs), strict=True):
        assert (answer.dtype, answer.shape) == (array.dtype, array.shape)
        assert np.array_equal(answer, array)


def test_strings_go_through_a_batch(bench: Bench) -> None:
    inputs = [np.array([b"a", b"long " * 100], dtype=object), np.array([b""], dtype=object)]
    assert [answer.tolist() for answer in bench.gather("string", *inputs)] == [array.tolist() for array in inputs]
    assert len(bench.metrics.batches) == 1


def test_a_batch_is_padded_to_an_allowed_size_and_cut_again(path: Path) -> None:
    bench = Bench(path, BatchingParameters(max_batch_size=8, execution_batch_size=8, allowed_batch_sizes=(4, 8)))
    inputs = [np.array([1.0], np.float32), np.array([2.0, 3.0], np.float32)]
    assert [answer.tolist() for answer in bench.gather("float32", *inputs)] == [[1.0], [2.0, 3.0]]
    assert [(batch["batch_size"], batch["padding"]) for batch in bench.metrics.batches] == [(4, 1)]
    bench.close()


def test_a_large_request_is_cut_into_batches_and_put_together_again(path: Path) -> None:
    cut = BatchingParameters(max_batch_size=100, execution_batch_size=4, is_splitting=True)
    bench = Bench(path, cut, threads=2)
    inputs = [np.arange(3, dtype=np.int64), np.arange(30, dtype=np.int64)]
    for array, answer in zip(inputs, bench.gather("int64", *inputs), strict=True):
        assert np.array_equal(answer, array)
    assert len(bench.metrics.batches) == 9
    bench.close()


def test_a_batch_that_fails_fails_its_own_requests_with_tensorflows_words(bench: Bench) -> None:
    good, bad = np.array([1, 2], np.int32), np.array([99], np.int32)
    errors = bench.gather("pick", good, bad)
    assert len(texts(errors)) == 1
    assert "indices[2] = 99 is not in [0, 10)" in errors[0].message
    assert errors[0].code is Code.INVALID_ARGUMENT
    (answer,) = bench.gather("pick", good)
    assert answer.tolist() == [1.0, 2.0]


def test_a_request_of_another_shape_or_type_disturbs_nobody(bench: Bench) -> None:
    good = np.full((1, 2, 2), 7, np.uint8)
    wrong = [np.zeros((1, 3, 3), np.uint8), np.zeros((1, 2, 2), np.float32), np.zeros((1, 4), np.uint8)]
    first, *errors, last = bench.gather("pixels", good, *wrong, good)
    assert (first == 14).all()
    assert (last == 14).all()
    assert not isinstance(errors[0], StatusError), "TensorFlow multiplies pictures of any size"
    assert "Expects arg[0] to be uint8 but float is provided" in errors[1].message
    assert bench.metrics.batches[0]["input_sizes"] == [1, 1]


@pytest.mark.parametrize(
    ("signature", "array", "message"),
    [
        ("float32", np.float32(1.0).reshape(()), "Batching Run() input tensors must have at least one dimension"),
        ("total", np.ones(2, np.float32), "Batched output tensor has 0 dimensions"),
        ("first", np.ones(2, np.float32), "Batched output tensor's 0th dimension does not equal the sum"),
        ("float32", np.ones(9, np.float32), "Task size 9 is larger than maximum input batch size 8"),
    ],
)
def test_what_cannot_be_batched_is_refused_with_the_real_servers_words(
    shared: Bench, signature: str, array: np.ndarray, message: str
) -> None:
    (error,) = shared.gather(signature, array)
    assert message in error.message


def test_inputs_of_different_lengths_are_refused(shared: Bench) -> None:
    definition = shared.model.signature_defs["both"]
    feeds = {definition.inputs["a"].name: np.ones(2, np.float32), definition.inputs["b"].name: np.ones(3, np.float32)}
    with pytest.raises(StatusError, match="input tensors must have equal 0th-dimension size"):
        shared.model.run(feeds, [definition.outputs["sum"].name], timeout_seconds=None)
    with pytest.raises(StatusError, match=r"Batching Run\(\) must have at least one input tensor"):
        shared.model.run({}, [definition.outputs["sum"].name], timeout_seconds=None)


def test_shapes_are_padded_where_the_operator_wants_it(path: Path) -> None:
    bench = Bench(path, BatchingParameters(pad_variable_length_inputs=True))
    inputs = [np.array([[1.0, 2.0, 3.0]], np.float32), np.array([[5.0]], np.float32)]
    # The real server's rule: the padding is the request's own first value.
    assert [answer.tolist() for answer in bench.gather("mean", *inputs)] == [[2.0], [5.0]]
    assert len(bench.metrics.batches) == 1
    bench.close()


def test_a_request_whose_time_ran_out_in_the_queue_is_not_run(bench: Bench) -> None:
    answers = bench.gather("float32", np.ones(1, np.float32), timeout_seconds=-1.0)
    assert texts(answers) == {"RESOURCE_EXHAUSTED: Run() timeout exceeded while waiting in batching queue"}
    assert bench.metrics.batches == []


@pytest.mark.parametrize("batching", [None, SMALL])
def test_a_run_that_takes_too_long_is_ended_at_its_deadline(path: Path, batching: BatchingParameters | None) -> None:
    bench = Bench(path, batching)
    (error,) = bench.gather("count", np.array([500_000_000], np.int32), timeout_seconds=0.2)
    assert error.code is Code.DEADLINE_EXCEEDED
    (answer,) = bench.gather("count", np.array([2], np.int32), timeout_seconds=PATIENCE_SECONDS)
    assert answer.tolist() == [2]
    bench.close()


def test_without_batching_a_late_request_is_not_begun(path: Path) -> None:
    bench = Bench(path, None)
    answers = bench.gather("float32", np.ones(1, np.float32), timeout_seconds=-1.0)
    assert texts(answers) == {"DEADLINE_EXCEEDED: Deadline exceeded while waiting for a free thread"}
    bench.close()


def test_many_clients_and_two_versions_in_one_pool_all_get_their_own_answers(path: Path) -> None:
    bench = Bench(path, BatchingParameters(max_batch_size=8, execution_batch_size=8), threads=2)
    models = [bench.model, bench.open(SMALL), bench.open(None)]
    wrong: list[Any] = []

    def ask(number: int) -> None:
        model = models[number % 3]
        definition = model.signature_defs["int64"]
        array = np.full((1 + number % 3, 2), number, np.int64)
        for _ in range(100):
            try:
                feeds, fetches = {definition.inputs["x"].name: array}, [definition.outputs["y"].name]
                (answer,) = model.run(feeds, fetches, timeout_seconds=None)
                if not np.array_equal(answer, array):
                    wrong.append((number, answer))
            except StatusError as error:
                if error.code is not Code.UNAVAILABLE:
                    wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    bench.close()
    for model in models[1:]:
        model.close()


class Plain:
    """A version without plans, as the ones of other tests are: only what the protocol says."""

    def __init__(self, model: ExecutedModel) -> None:
        self.signature_defs, self.run, self.submit = model.signature_defs, model.run, model.submit
        self.close = model.close


def serve(model: Any) -> tuple[Catalogue, ModelVersion]:
    catalogue = Catalogue()
    entry = ModelVersion("rows", 7, Path("/nowhere"), stage=Stage.READY, loaded=model)
    catalogue.versions("rows")[7] = entry
    return catalogue, entry


def answer_of(model: Any, request: tfs_pb2.PredictRequest, **options: Any) -> Any:
    catalogue, entry = serve(model)
    replies: SimpleQueue[Any] = SimpleQueue()
    start_predict(catalogue, request, timeout_seconds=None, reply=replies.put, metrics=Counts(), **options)
    reply = replies.get(timeout=PATIENCE_SECONDS)
    assert entry.requests == 0
    assert replies.empty()
    return reply


def ask(signature: str, **inputs: np.ndarray) -> tfs_pb2.PredictRequest:
    request = tfs_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "rows", signature
    for alias, array in inputs.items():
        to_tensor(array, request.inputs[alias])
    return request


ANY_ARRAY = st.sampled_from(TYPES).flatmap(
    lambda name: arrays.arrays(name, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)


@pytest.fixture(scope="module")
def versions(path: Path) -> Iterator[list[ExecutedModel]]:
    benches = [Bench(path, None), Bench(path, BatchingParameters())]
    yield [bench.model for bench in benches]
    for bench in benches:
        bench.close()


class TestPredict:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(array=ANY_ARRAY, is_raw=st.booleans(), is_tensor_content=st.booleans())
    def test_the_short_way_the_long_way_and_the_way_that_waits_give_one_answer(
        self, versions: list[ExecutedModel], array: np.ndarray, is_raw: bool, is_tensor_content: bool
    ) -> None:
        request = ask(array.dtype.name, x=array)
        if is_raw:
            dims = request.inputs["x"].tensor_shape
            raw = tfs_pb2.Tensor(dtype=request.inputs["x"].dtype, tensor_shape=dims, tensor_content=array.tobytes())
            request.inputs["x"].CopyFrom(raw)
        found = [
            answer_of(model, request, is_tensor_content=is_tensor_content)
            for version in versions
            for model in (version, Plain(version))
        ]
        _, entry = serve(versions[0])
        found.append(predict(entry, request, timeout_seconds=None, is_tensor_content=is_tensor_content))
        assert all(response == found[0] for response in found)
        output = found[0].outputs["y"]
        assert bool(output.tensor_content) == (is_tensor_content and array.size > 0)
        assert np.array_equal(to_array(output, alias="y"), array, equal_nan=array.dtype.kind in "fc")
        spec = found[0].model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("rows", 7, array.dtype.name)

    def test_several_inputs_in_any_order_and_a_filter(self, versions: list[ExecutedModel]) -> None:
        one, two = np.array([1.0], np.float32), np.array([2.0], np.float32)
        for model in (*versions, *map(Plain, versions)):
            for request in (ask("both", a=one, b=two), ask("both", b=two, a=one)):
                outputs = answer_of(model, request).outputs
                assert {alias: list(tensor.float_val) for alias, tensor in outputs.items()} == {
                    "sum": [3.0],
                    "difference": [-1.0],
                }
            request.output_filter.append("sum")
            assert list(answer_of(model, request).outputs) == ["sum"]

    @pytest.mark.parametrize(
        ("request_made", "code", "message"),
        [
            (ask("nobody"), Code.FAILED_PRECONDITION, 'Serving signature key "nobody" not found.'),
            (
                ask("both", a=np.ones(1, np.float32)),
                Code.INVALID_ARGUMENT,
                "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. "
                "Missing but required: {b}.",
            ),
            (
                ask("both", a=np.ones(1, np.float32), c=np.ones(1, np.float32)),
                Code.INVALID_ARGUMENT,
                "input tensor alias not found in signature: c",
            ),
            (ask("pixels", x=np.zeros((1, 2, 2), np.float32)), Code.INVALID_ARGUMENT, "Expects arg[0] to be uint8"),
            (ask("pick", x=np.array([[99]], np.int32)), Code.INVALID_ARGUMENT, "is not in [0, 10)"),
        ],
    )
    def test_what_is_wrong_is_answered_in_the_same_words_by_every_way(
        self, versions: list[ExecutedModel], request_made: tfs_pb2.PredictRequest, code: Code, message: str
    ) -> None:
        for model in (*versions, *map(Plain, versions)):
            error = answer_of(model, request_made)
            assert error.code is code
            assert message in error.message

    @pytest.mark.parametrize("sizes", [(-1,), (2**40, 2**40, 0), (0, 2**62, 2**62), (2**31, 2**31, 2**31), (1,) * 300])
    def test_shapes_over_which_tensorflow_would_end_the_process_are_refused(
        self, versions: list[ExecutedModel], sizes: tuple[int, ...]
    ) -> None:
        request = ask("uint8", x=np.zeros(1, np.uint8))
        tensor = request.inputs["x"]
        tensor.Clear()
        tensor.dtype = tfs_pb2.DT_UINT8
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        for model in (*versions, *map(Plain, versions)):
            error = answer_of(model, request)
            assert isinstance(error, StatusError)
            assert error.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)

    def test_not_a_number_is_passed_through(self, versions: list[ExecutedModel]) -> None:
        array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
        for model in versions:
            response = answer_of(model, ask("float32", x=array))
            assert to_array(response.outputs["y"], alias="y").tobytes() == array.tobytes()

    def test_a_request_for_nobody_is_refused_and_takes_no_version(self, versions: list[ExecutedModel]) -> None:
        catalogue, _ = serve(versions[0])
        replies: list[Any] = []
        for request in (tfs_pb2.PredictRequest(), tfs_pb2.PredictRequest(model_spec=tfs_pb2.ModelSpec(name="no"))):
            start_predict(catalogue, request, timeout_seconds=None, reply=replies.append, metrics=Counts())
        assert [str(reply) for reply in replies] == [
            "INVALID_ARGUMENT: Missing ModelSpec",
            "NOT_FOUND: Servable not found for request: Latest(no)",
        ]
