"""Request batching: what runs together, with which padding, and how what does not fit is refused."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import client_lab
import numpy as np
import pytest
import server_lab

# Long enough that four requests sent at once meet in one batch on a busy machine; a full batch does not wait.
PATIENT = "batch_timeout_micros { value: 3000000 }"
FOUR_ROWS = f"""
    max_batch_size {{ value: 4 }}
    {PATIENT}
    max_enqueued_batches {{ value: 100 }}
    num_batch_threads {{ value: 2 }}
    allowed_batch_sizes: 2
    allowed_batch_sizes: 4
    thread_pool_name {{ value: "shared" }}
"""
PADDED_AND_SPLIT = f"""
    max_batch_size {{ value: 16 }}
    max_execution_batch_size {{ value: 4 }}
    enable_large_batch_splitting {{ value: true }}
    {PATIENT}
    max_enqueued_batches {{ value: 100 }}
    num_batch_threads {{ value: 2 }}
    pad_variable_length_inputs: true
"""
SHORT_QUEUE = """
    max_batch_size { value: 1 }
    batch_timeout_micros { value: 0 }
    max_enqueued_batches { value: 1 }
    num_batch_threads { value: 1 }
"""
FLAGS = ("--model_config_file={directory}/models", "--enable_batching=true")


@contextlib.contextmanager
def batching(command: Any, config: str, parameters: str | None, *flags: str, good_rows: int = 1) -> Iterator[Any]:
    files = {"models": config}
    if parameters is not None:
        files["batching"] = parameters
        flags = (*flags, "--batching_parameters_file={directory}/batching")
    with (
        server_lab.started(command, *FLAGS, *flags, files=files) as server,
        server_lab.open_channel(server.target) as channel,
    ):
        yield client_lab.Client(rest_port=server.rest_port, channel=channel, good_rows=good_rows)


@pytest.fixture(scope="module")
def four(command: Any, zoo_config_without_labels: str) -> Iterator[Any]:
    """Batches of at most four rows that wait for company; good requests fill one."""
    with batching(command, zoo_config_without_labels, FOUR_ROWS, good_rows=4) as client:
        yield client


@pytest.fixture(scope="module")
def splitting(command: Any, zoo_config_without_labels: str) -> Iterator[Any]:
    """Requests of up to sixteen rows are run four at a time, ragged ones padded."""
    with batching(command, zoo_config_without_labels, PADDED_AND_SPLIT, good_rows=4) as client:
        yield client


def at_once(*calls: Any) -> list[Any]:
    """Make calls at the same time; return answers, and of refused ones (code, details)."""

    def guarded(call: Any) -> Any:
        import grpc

        try:
            return call()
        except grpc.RpcError as error:
            return error.code().name, error.details()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(guarded, calls))


def outputs(response: Any, *names: str) -> tuple[Any, ...]:
    return tuple(client_lab.numbers(response, name) for name in names)


class TestTogether:
    def test_rows_of_several_requests_run_together_and_each_gets_its_own(self, four: Any) -> None:
        answers = at_once(*(lambda v=v: four.predict("sizes", {"x": [v]}) for v in (1.0, 10.0, 100.0, 1000.0)))
        assert [outputs(answer, "y") for answer in answers] == [([v + 1],) for v in (1.0, 10.0, 100.0, 1000.0)]
        assert [outputs(answer, "rows", "total") for answer in answers] == [([4], [1111.0])] * 4

    def test_requests_of_several_rows(self, four: Any) -> None:
        answers = at_once(
            lambda: four.predict("sizes", {"x": [1.0, 2.0, 3.0]}), lambda: four.predict("sizes", {"x": [7.0]})
        )
        assert [outputs(answer, "y")[0] for answer in answers] == [[2.0, 3.0, 4.0], [8.0]]
        assert outputs(answers[1], "rows", "total") == ([4], [13.0])

    def test_a_request_that_fills_a_batch_does_not_wait(self, four: Any) -> None:
        for _ in range(3):
            assert outputs(four.predict("sizes", {"x": [1.0] * 4}), "rows") == ([4, 4, 4, 4],)

    def test_other_outputs_and_other_versions_are_other_batches(self, four: Any) -> None:
        answers = at_once(
            *(lambda: four.predict("sizes", {"x": [1.0, 2.0]}, output_filter=["rows"]) for _ in range(2)),
            *(lambda: four.predict("sizes", {"x": [1.0, 2.0]}, output_filter=["total"]) for _ in range(2)),
            *(lambda v=v: four.predict("plus", {"x": [0.0, 0.0]}, version=v) for v in (1, 1, 2, 2)),
        )
        assert [outputs(answer, "rows")[0] for answer in answers[:2]] == [[4, 4]] * 2
        assert [outputs(answer, "total")[0] for answer in answers[2:4]] == [[6.0, 6.0]] * 2
        assert [outputs(answer, "y")[0] for answer in answers[4:]] == [[1.0] * 2] * 2 + [[2.0] * 2] * 2

    def test_rest_goes_the_same_way(self, four: Any) -> None:
        answers = at_once(*(lambda: four.rest_predict("sizes", {"instances": [1.0, 2.0]}) for _ in range(2)))
        for answer in answers:
            assert answer.code == 200
            assert answer.json["predictions"] == [
                {"y": 2.0, "rows": 4, "total": 6.0},
                {"y": 3.0, "rows": 4, "total": 6.0},
            ]

    @pytest.mark.parametrize(("method", "signature"), [("regress", "count"), ("classify", "count_classes")])
    def test_examples_go_the_same_way(self, four: Any, method: str, signature: str) -> None:
        call = getattr(four, method)
        examples = [client_lab.example(x=1.0)] * 2
        for answer in at_once(*(lambda: call("sizes", examples, signature=signature) for _ in range(2))):
            if method == "regress":
                assert [entry.value for entry in answer.result.regressions] == [4.0, 4.0]
            else:
                assert [row.classes[0].score for row in answer.result.classifications] == [4.0, 4.0]

    def test_the_model_spec_is_that_of_each_request(self, four: Any) -> None:
        answers = at_once(*(lambda s=s: four.predict("plus", {"x": [0.0] * 2}, **s) for s in ({}, {"version": 3})))
        assert {answer.model_spec.version.value for answer in answers} == {3}
        assert {answer.model_spec.signature_name for answer in answers} == {"serving_default"}


class TestSizes:
    @pytest.mark.parametrize(("given", "run"), [(1, 2), (2, 2), (3, 4), (4, 4)])
    def test_a_batch_is_padded_to_an_allowed_size_with_its_last_requests_first_row(
        self, four: Any, given: int, run: int
    ) -> None:
        values = [float(10**n) for n in range(given)]
        response = four.predict("sizes", {"x": values})
        padding = (run - given) * values[0]
        assert outputs(response, "y", "rows", "total") == (
            [value + 1 for value in values],
            [run] * given,
            [sum(values) + padding] * given,
        )

    def test_a_request_larger_than_a_batch_is_refused(self, four: Any) -> None:
        found = four.refused(lambda: four.predict("sizes", {"x": [1.0] * 5}))
        assert found == ("INVALID_ARGUMENT", "Task size 5 is larger than maximum input batch size 4")
        answer = four.rest_refused("/v1/models/sizes:predict", {"instances": [1.0] * 5})
        assert (answer.code, answer.error) == (400, "Task size 5 is larger than maximum input batch size 4")

    def test_a_large_request_is_split_where_that_is_on(self, splitting: Any) -> None:
        values = [float(n) for n in range(12)]
        response = splitting.predict("sizes", {"x": values})
        y, rows, total = outputs(response, "y", "rows", "total")
        assert y == [value + 1 for value in values]
        assert rows == [4] * 12
        assert total == [6.0] * 4 + [22.0] * 4 + [38.0] * 4

    def test_even_there_a_request_can_be_too_large(self, splitting: Any) -> None:
        code, message = splitting.refused(lambda: splitting.predict("sizes", {"x": [1.0] * 17}))
        assert code == "INVALID_ARGUMENT"
        assert message.startswith("Task size 17 is larger than maximum input batch size 16")

    def test_the_last_allowed_size_must_be_the_largest(self, command: Any, zoo: Path) -> None:
        wrong = FOUR_ROWS.replace("max_batch_size { value: 4 }", "max_batch_size { value: 8 }")
        flags = (
            "--model_name=plus",
            f"--model_base_path={zoo / 'plus'}",
            *FLAGS[1:],
            "--batching_parameters_file={directory}/batching",
            "--max_num_load_retries=0",
        )
        message = "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8"
        # Whether a server without its only model ends or goes on is its own matter; the load fails with that message.
        with server_lab.launched(command, *flags, files={"batching": wrong}) as server:
            client_lab.Client.until(lambda: message in server.log, lambda: server.log[-3000:])


class TestWhatDoesNotFit:
    def test_inputs_without_rows(self, four: Any) -> None:
        found = four.refused(lambda: four.predict("sizes", {"x": np.float32(1.0)}))
        assert found == ("INVALID_ARGUMENT", "Batching Run() input tensors must have at least one dimension")

    def test_inputs_of_different_numbers_of_rows(self, four: Any) -> None:
        found = four.refused(lambda: four.predict("sizes", {"a": [1.0], "b": [1.0, 2.0]}, signature="two"))
        assert found == ("INVALID_ARGUMENT", "Batching Run() input tensors must have equal 0th-dimension size")

    def test_outputs_without_rows(self, four: Any) -> None:
        code, message = four.refused(lambda: four.predict("sizes", {"x": [1.0] * 4}, signature="scalar_output"))
        assert code == "FAILED_PRECONDITION"
        assert "Batched output tensor has 0 dimensions" in message

    def test_outputs_of_another_number_of_rows(self, four: Any) -> None:
        code, message = four.refused(lambda: four.predict("sizes", {"x": [1.0] * 4}, signature="short_output"))
        assert code == "FAILED_PRECONDITION"
        assert "0th dimension does not equal the sum" in message

    def test_rows_are_padded_with_their_first_value_where_that_is_on(self, splitting: Any) -> None:
        rows = ([5.0], [1.0, 2.0], [3.0, 4.0, 5.0], [7.0, 8.0])
        answers = at_once(*(lambda row=row: splitting.predict("wide", {"x": [row]}) for row in rows))
        assert [outputs(answer, "total", "width") for answer in answers] == [
            ([15.0], [3]),
            ([4.0], [3]),
            ([12.0], [3]),
            ([22.0], [3]),
        ]

    def test_a_failing_request_is_refused_with_the_graphs_own_error(self, four: Any) -> None:
        code, _ = four.refused(lambda: four.predict(inputs={"x": np.ones(4, np.int32)}))
        assert code == "INVALID_ARGUMENT"

    def test_a_full_queue_refuses_and_goes_on(self, command: Any, zoo_config_without_labels: str) -> None:
        with batching(command, zoo_config_without_labels, SHORT_QUEUE) as client:
            by_grpc = [lambda: client.predict("slow", {"x": [1.0]})] * 6
            by_rest = [lambda: client.rest_predict("slow", {"instances": [1.0]})] * 6
            answers = at_once(*by_grpc, *by_rest)
            refused = [answer for answer in answers[:6] if isinstance(answer, tuple)]
            refused += [("UNAVAILABLE", answer.error) for answer in answers[6:] if answer.code == 503]
            assert {answer.code for answer in answers[6:]} <= {200, 503}
            assert 0 < len(refused) < 12
            for code, message in refused:
                assert code == "UNAVAILABLE"
                assert message.startswith("The batch scheduling queue to which this task was submitted is full")
            client.assert_serving()


class TestDefaults:
    def test_without_a_file_a_request_is_its_own_batch(self, command: Any, zoo_config_without_labels: str) -> None:
        with batching(command, zoo_config_without_labels, None) as client:
            assert outputs(client.predict("sizes", {"x": [1.0] * 1000}), "rows") == ([1000] * 1000,)
            found = client.refused(lambda: client.predict("sizes", {"x": [1.0] * 1001}))
            assert found == ("INVALID_ARGUMENT", "Task size 1001 is larger than maximum input batch size 1000")

    def test_parameters_of_a_model_stand_in_its_version(self, command: Any, zoo: Path, tmp_path: Path) -> None:
        own = tmp_path / "own"
        shutil.copytree(zoo / "sizes", own)
        (own / "1/batching_params.pbtxt").write_text(FOUR_ROWS)
        config = server_lab.config_text(
            server_lab.model_config("half_plus_two", zoo / "half_plus_two"),
            server_lab.model_config("sizes", zoo / "sizes"),
            server_lab.model_config("own", own),
        )
        with batching(command, config, None, "--enable_per_model_batching_parameters=true") as client:
            found = client.refused(lambda: client.predict("own", {"x": [1.0] * 5}))
            assert found == ("INVALID_ARGUMENT", "Task size 5 is larger than maximum input batch size 4")
            assert outputs(client.predict("own", {"x": [1.0] * 3}), "rows") == ([4] * 3,)
            # Without that file a model is not batched at all.
            assert outputs(client.predict("sizes", {"x": [1.0] * 2000}), "rows") == ([2000] * 2000,)
            assert outputs(client.predict("sizes", {"x": [1.0, 2.0]}, signature="scalar_output"), "total") == (3.0,)

    @pytest.mark.parametrize("text", ["no such text", "max_batch_sizes { value: 4 }", "max_batch_size: 4"])
    def test_a_file_that_cannot_be_parsed(self, command: Any, zoo: Path, text: str) -> None:
        flags = (f"--model_base_path={zoo / 'plus'}", *FLAGS[1:], "--batching_parameters_file={directory}/batching")
        ended = server_lab.run_to_the_end(command, *flags, files={"batching": text})
        assert ended.exit_code == 255
        assert "Failed to start server. Error: " in ended.stdout
