"""Many clients at once: each gets its own answer, whatever the others send."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import client_lab
import grpc
import server_lab

CLIENTS = 32


def together(count: int, act: Any) -> list[Any]:
    """Run `act(number)` in that many threads which begin at the same moment."""
    start = threading.Barrier(count)

    def one(number: int) -> Any:
        start.wait(60)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_each_gets_its_own_answer_by_grpc(standing: Any) -> None:
    def act(number: int) -> list[float]:
        return [
            client_lab.numbers(standing.predict(inputs={"x": [float(number * 100 + round_)]}), "y")[0]
            for round_ in range(20)
        ]

    expected = [[(number * 100 + round_) / 2 + 2 for round_ in range(20)] for number in range(CLIENTS)]
    assert together(CLIENTS, act) == expected


def test_each_gets_its_own_answer_by_rest(standing: Any) -> None:
    def act(number: int) -> list[float]:
        answers = (standing.rest_predict("half_plus_two", {"instances": [number * 100 + r]}) for r in range(10))
        return [answer.json["predictions"][0] for answer in answers]

    expected = [[(number * 100 + round_) / 2 + 2 for round_ in range(10)] for number in range(CLIENTS)]
    assert together(CLIENTS, act) == expected


def test_channels_of_their_own(standing: Any) -> None:
    def act(number: int) -> float:
        with server_lab.open_channel(standing.target) as channel:
            client = client_lab.Client(rest_port=0, channel=channel)
            value: float = client_lab.numbers(client.predict(inputs={"x": [float(number)]}), "y")[0]
            return value

    assert together(CLIENTS, act) == [number / 2 + 2 for number in range(CLIENTS)]


def test_good_and_bad_requests_side_by_side(standing: Any) -> None:
    def act(number: int) -> str:
        kind = number % 4
        try:
            if kind == 0:
                return str(client_lab.numbers(standing.predict(), "y"))
            if kind == 1:
                standing.predict("nobody")
            elif kind == 2:
                standing.predict(inputs={"x": [1.0], "z": [1.0]})
            else:
                standing.predict("endless", {"x": [1.0]}, timeout=0.3)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "answered"

    expected = ["[3.0]", "NOT_FOUND", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"] * (CLIENTS // 4)
    assert together(CLIENTS, act) == expected
    standing.assert_serving()


def test_a_slow_request_does_not_hold_up_quick_ones(standing: Any) -> None:
    # One: it turns a loop without pause, and there may be no more than two processors.
    slow = standing.prediction.Predict.future(client_lab.predict_request("endless", {"x": [1.0]}), timeout=60)
    try:
        for _ in range(20):
            standing.assert_serving()
        assert not slow.done()
    finally:
        slow.cancel()


def test_a_reload_while_everybody_asks(operator: Any) -> None:
    operator.serve(1)
    operator.add(2)
    is_over = threading.Event()

    def ask(number: int) -> set[float]:
        seen = set()
        while not is_over.is_set():
            seen.add(operator.answer())
            if number % 2:
                answer = operator.client.rest_predict(operator.name, {"instances": [0.0]})
                assert answer.code == 200, answer
                seen.add(answer.json["predictions"][0])
        return seen

    def reload(number: int) -> set[float]:
        try:
            for version in (2, 1, 2, 1):
                operator.reload(operator.entry(versions=[version]))
                operator.client.until(lambda v=version: operator.answer() == v, lambda: str(operator.states()))
        finally:
            is_over.set()
        return set()

    found = together(9, lambda number: reload(number) if number == 8 else ask(number))
    assert set().union(*found) == {1.0, 2.0}
