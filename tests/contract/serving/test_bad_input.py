"""Input that nobody should send: refused as documented, and the next good request is answered.

`refused` and `rest_refused` send that good request each time, by both protocols.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import zlib
from typing import Any

import numpy as np
import pytest
from client_lab import RestAnswer, numbers, predict_request

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METHODS = (
    PREDICT,
    "/tensorflow.serving.PredictionService/Classify",
    "/tensorflow.serving.PredictionService/Regress",
    "/tensorflow.serving.PredictionService/MultiInference",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
)
REST_PATH = "/v1/models/half_plus_two:predict"
GZIP = {"Content-Encoding": "gzip"}


class TestMessages:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("payload", [b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"no protobuf message"])
    def test_bytes_that_are_no_message(self, standing: Any, method: str, payload: bytes) -> None:
        code, _ = standing.refused(lambda: standing.send_bytes(method, payload))
        assert code in ("INTERNAL", "INVALID_ARGUMENT")

    @pytest.mark.parametrize("method", METHODS)
    def test_an_empty_message(self, standing: Any, method: str) -> None:
        assert standing.refused(lambda: standing.send_bytes(method, b""))[0] == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("method", ["/tensorflow.serving.PredictionService/Guess", "/no.such.Service/Method", "/"])
    def test_a_method_that_there_is_not(self, standing: Any, method: str) -> None:
        assert standing.refused(lambda: standing.send_bytes(method, b""))[0] == "UNIMPLEMENTED"

    def test_a_request_cut_short(self, standing: Any) -> None:
        whole = predict_request(inputs={"x": [1.0] * 100}).SerializeToString()
        for length in (1, len(whole) // 2, len(whole) - 1):
            code, _ = standing.refused(lambda length=length: standing.send_bytes(PREDICT, whole[:length]))
            assert code in ("INTERNAL", "INVALID_ARGUMENT")

    def test_bytes_that_are_not_http2(self, standing: Any) -> None:
        host, _, port = "127.0.0.1", None, int(_grpc_port(standing))
        for payload in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            with socket.create_connection((host, port), timeout=30) as connection:
                connection.sendall(payload)
            standing.assert_serving()


class TestTensors:
    def predict(self, client: Any, change: Any) -> tuple[str, str]:
        request = predict_request(inputs={"x": [1.0, 2.0]})
        tensor = request.inputs["x"]
        tensor.ClearField("tensor_content")
        tensor.float_val[:] = [1.0, 2.0]
        change(tensor)
        found: tuple[str, str] = client.refused(lambda: client.prediction.Predict(request, timeout=60))
        return found

    def test_a_negative_dimension(self, standing: Any) -> None:
        def change(tensor: Any) -> None:
            tensor.tensor_shape.dim[0].size = -2

        assert self.predict(standing, change)[0] == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("sizes", [[2**40], [2**31, 2**31], [2**62, 4], [2**63 - 1]])
    def test_a_shape_that_no_memory_holds(self, standing: Any, sizes: list[int]) -> None:
        def change(tensor: Any) -> None:
            del tensor.tensor_shape.dim[:]
            for size in sizes:
                tensor.tensor_shape.dim.add(size=size)

        # One value stands for all that follow, so two values may claim to be that many.
        assert self.predict(standing, change)[0] in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")

    def test_more_dimensions_than_there_can_be(self, standing: Any) -> None:
        def change(tensor: Any) -> None:
            del tensor.tensor_shape.dim[:]
            for _ in range(300):
                tensor.tensor_shape.dim.add(size=1)

        assert self.predict(standing, change)[0] == "INVALID_ARGUMENT"

    def test_an_unknown_rank(self, standing: Any) -> None:
        def change(tensor: Any) -> None:
            tensor.tensor_shape.unknown_rank = True

        assert self.predict(standing, change)[0] == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("kind", [0, 20, 21, 101, 999])
    def test_a_type_that_is_none(self, standing: Any, kind: int) -> None:
        def change(tensor: Any) -> None:
            tensor.dtype = kind

        assert self.predict(standing, change)[0] in ("INVALID_ARGUMENT", "UNIMPLEMENTED")

    @pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\x00" * 9])
    def test_bytes_that_do_not_fill_their_shape(self, standing: Any, content: bytes) -> None:
        def change(tensor: Any) -> None:
            tensor.tensor_content = content or b"\x00"
            tensor.ClearField("float_val")

        assert self.predict(standing, change) == ("INVALID_ARGUMENT", "tensor parsing error: x")

    def test_more_values_than_the_shape_has(self, standing: Any) -> None:
        request = predict_request(inputs={"x": [1.0, 2.0]})
        request.inputs["x"].ClearField("tensor_content")
        request.inputs["x"].float_val[:] = [1.0, 2.0, 3.0]
        try:
            # TensorFlow takes the first ones.
            assert numbers(standing.prediction.Predict(request, timeout=60), "y") == [2.5, 3.0]
        except Exception:  # noqa: BLE001  (a refusal is as good)
            found = standing.refused(lambda: standing.prediction.Predict(request, timeout=60))
            assert found[0] == "INVALID_ARGUMENT"

    def test_strings_where_numbers_are_wanted(self, standing: Any) -> None:
        found = standing.refused(lambda: standing.predict(inputs={"x": np.array([b"1"], object)}))
        assert found[0] == "INVALID_ARGUMENT"

    def test_a_batch_of_millions(self, standing: Any) -> None:
        response = standing.predict(inputs={"x": np.zeros(5_000_000, np.float32)}, timeout=120)
        assert response.outputs["y"].tensor_shape.dim[0].size == 5_000_000
        standing.assert_serving()

    def test_an_example_that_is_none(self, standing: Any) -> None:
        examples = np.array([b"\xff\xff\xff no example"], object)
        found = standing.refused(lambda: standing.predict(inputs={"inputs": examples}, signature="regress_x_to_y"))
        assert found[0] == "INVALID_ARGUMENT"


class TestDocuments:
    def refusal(self, client: Any, body: Any, **choices: Any) -> str:
        answer = client.rest_refused(REST_PATH, body, **choices)
        assert answer.code == 400, answer
        message: str = answer.error
        return message

    @pytest.mark.parametrize("depth", [100_000, 500_000])
    def test_brackets_in_a_key_that_is_not_looked_at(self, standing: Any, depth: int) -> None:
        body = '{"comment": ' + "[" * depth + "]" * depth + ', "instances": [2.0]}'
        answer = standing.rest(REST_PATH, body)
        assert (answer.code, answer.json) == (200, {"predictions": [3.0]})

    @pytest.mark.parametrize("key", ["instances", "inputs"])
    def test_brackets_in_the_values(self, standing: Any, key: str) -> None:
        depth = 100_000
        message = self.refusal(standing, f'{{"{key}": {"[" * depth}1.0{"]" * depth}}}')
        assert len(message) < 2000

    @pytest.mark.parametrize("opening", ["[", '{"a":', '{"instances":['])
    def test_brackets_that_never_close(self, standing: Any, opening: str) -> None:
        assert self.refusal(standing, opening * 100_000).startswith("JSON Parse error: ")

    def test_objects_in_objects(self, standing: Any) -> None:
        depth = 100_000
        body = '{"comment": ' + '{"a":' * depth + "1" + "}" * depth + ', "instances": [2.0]}'
        answer = standing.rest(REST_PATH, body)
        assert (answer.code, answer.json) == (200, {"predictions": [3.0]})

    @pytest.mark.parametrize(
        "body",
        [
            '{"instances": [1.0], "instances": [2.0]}',
            '{"instances": [{"x": 1.0, "x": 2.0}]}',
            '{"inputs": {"x": [1.0], "x": [2.0]}}',
        ],
    )
    def test_a_key_that_stands_twice(self, standing: Any, body: str) -> None:
        answer = standing.rest(REST_PATH, body)
        assert answer.code in (200, 400), answer
        if answer.code == 400:
            assert answer.error
        else:
            (found,) = answer.json.values()
            assert found in ([2.5], [3.0])
        standing.assert_serving()

    @pytest.mark.parametrize(
        "body",
        [b"\x00", b"\xff\xfe{}", b'{"instances": ["\xff"]}', b'{"instances": ["\\ud800"]}', b'{"instances": [1.0e]}'],
    )
    def test_text_that_is_none(self, standing: Any, body: bytes) -> None:
        assert self.refusal(standing, body)

    def test_a_number_of_a_million_digits(self, standing: Any) -> None:
        answer = standing.rest(REST_PATH, '{"instances": [' + "9" * 1_000_000 + "]}")
        assert answer.code in (200, 400)
        standing.assert_serving()

    def test_two_hundred_megabytes(self, standing: Any) -> None:
        body = b'{"comment": "' + b"x" * 200_000_000 + b'", "instances": [2.0]}'
        assert _sent_or_cut_off(standing, body) in (200, 400, 413)
        standing.assert_serving()

    def test_a_million_values(self, standing: Any) -> None:
        body = b'{"instances": [' + b"2.0," * 999_999 + b"2.0]}"
        answer = standing.rest(REST_PATH, body, timeout=300)
        assert answer.code == 200
        assert answer.json["predictions"] == [3.0] * 1_000_000


class TestGzipBombs:
    @pytest.mark.parametrize("megabytes", [300, 1000])
    def test_a_body_that_grows_a_thousandfold(self, standing: Any, megabytes: int) -> None:
        packer = zlib.compressobj(9, wbits=31)
        million = b" " * 1_000_000
        bomb = b"".join(packer.compress(million) for _ in range(megabytes)) + packer.flush()
        answer = standing.rest_refused(REST_PATH, bomb, headers=GZIP, timeout=300)
        assert 400 <= answer.code < 500

    def test_gzip_in_gzip(self, standing: Any) -> None:
        body = gzip.compress(gzip.compress(json.dumps({"instances": [2.0]}).encode()))
        assert standing.rest_refused(REST_PATH, body, headers=GZIP).code == 400


class TestHttp:
    """What a web server must bear; the answers here are its own, so only life and limb are looked at."""

    @pytest.mark.parametrize(
        "text",
        [
            b"nonsense\r\n\r\n",
            b"GET\r\n\r\n",
            b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
            b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /v1/models/half_plus_two HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/models/half_plus_two HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            b"\x00" * 10_000,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ],
        # Not the bytes themselves: some are very many.
        ids=(
            "words",
            "half a line",
            "length -5",
            "length many",
            "bad chunk",
            "HTTP 9.9",
            "path",
            "headers",
            "zeros",
            "TLS",
        ),
    )
    def test_what_is_no_request(self, standing: Any, text: bytes) -> None:
        with socket.create_connection(("127.0.0.1", standing.rest_port), timeout=30) as connection:
            try:
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass  # cut off, which is an answer too
        standing.assert_serving()

    def test_clients_that_hang_up_in_the_middle(self, standing: Any) -> None:
        head = b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", standing.rest_port), timeout=30) as connection:
                connection.sendall(head + b'{"instances": [')
        standing.assert_serving()

    def test_clients_that_say_nothing_keep_nobody_waiting(self, standing: Any) -> None:
        silent = [socket.create_connection(("127.0.0.1", standing.rest_port), timeout=30) for _ in range(200)]
        try:
            standing.assert_serving()
        finally:
            for connection in silent:
                connection.close()
        standing.assert_serving()


def _grpc_port(client: Any) -> str:
    port: str = client.target.rpartition(":")[2]
    return port


def _sent_or_cut_off(client: Any, body: bytes) -> int:
    """Send a body so large that the server may hang up while it comes; return the code, 413 for hanging up."""
    try:
        answer: RestAnswer = client.rest(REST_PATH, body, timeout=300)
    except (ConnectionError, http.client.HTTPException):
        return 413
    return answer.code
