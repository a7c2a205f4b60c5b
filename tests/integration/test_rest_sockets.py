"""REST over real sockets, with a model that is a plain class: each refusal, and the good request after it."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from serving.embedded_server.catalogue import Catalogue, ModelVersion
from serving.embedded_server.discovery import ServedModel
from serving.embedded_server.http_connection import HttpTimes
from serving.embedded_server.http_request import HttpLimits
from serving.embedded_server.http_server import HttpSettings
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.rest import RestServer, RestSettings
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage
from serving.protos import tfs_pb2

PREDICT = "/v1/models/double:predict"
QUICK = HttpTimes(idle=0.5, head=0.5, transfer=0.5, closing=0.5)


class Doubler:
    """Numbers times two; it can be told to wait, and it knows its time is limited."""

    def __init__(self) -> None:
        signature = tfs_pb2.SignatureDef(method_name="tensorflow/serving/predict")
        signature.inputs["x"].CopyFrom(tfs_pb2.TensorInfo(name="x:0", dtype=tfs_pb2.DT_FLOAT))
        signature.outputs["y"].CopyFrom(tfs_pb2.TensorInfo(name="y:0", dtype=tfs_pb2.DT_FLOAT))
        self.signature_defs = {"serving_default": signature}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_asked = threading.Semaphore(0)
        self.timeouts: list[float | None] = []

    def run(self, feeds: dict[str, Any], fetches: list[str], *, timeout_seconds: float | None) -> list[Any]:
        self.timeouts.append(timeout_seconds)
        self.is_asked.release()
        if not self.may_answer.wait(timeout_seconds):
            raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out")
        return [feeds["x:0"] * 2 for _ in fetches]

    def submit(self, feeds: Any, fetches: Any, *, timeout_seconds: Any, done: Callable[..., None]) -> None:
        done(self.run(feeds, fetches, timeout_seconds=timeout_seconds))

    def close(self) -> None:
        pass


@dataclass
class Lab:
    server: RestServer
    catalogue: Catalogue
    metrics: Metrics
    model: Doubler

    def connect(self) -> Client:
        host, _, port = self.server.address.rpartition(":")
        return Client(socket.create_connection((host, int(port)), timeout=20))

    def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> Reply:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.request(method, path, body, **headers)
            return client.reply(is_head=method == "HEAD")


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A connection, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def request(self, method: str, path: str, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + content)

    def reply(self, *, is_head: bool = False) -> Reply:
        line = self.file.readline()
        assert line, "closed without an answer"
        headers = {}
        while (header := self.file.readline().strip()) != b"":
            name, _, value = header.decode().partition(": ")
            headers[name.lower()] = value
        length = 0 if is_head else int(headers.get("content-length", 0))
        return Reply(int(line.split()[1]), headers, self.file.read(length))

    def is_closed(self) -> bool:
        """Wait for the server's end of the connection."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def lab_with(**settings: Any) -> Iterator[Lab]:
    catalogue, model = Catalogue(), Doubler()
    with catalogue.changed:
        entry = ModelVersion("double", 3, Path("/models/double/3"), stage=Stage.READY, loaded=model)
        catalogue.versions("double")[3] = entry
    catalogue.set_labels(
        [ServedModel(name="double", base_path=Path("/models/double"), labels={"stable": 3})], may_new_labels_wait=True
    )
    metrics = Metrics(versions=catalogue.all_versions)
    server = RestServer(catalogue, metrics=metrics, host="127.0.0.1", port=0, settings=RestSettings(**settings))
    server.start()
    try:
        yield Lab(server, catalogue, metrics, model)
    finally:
        model.may_answer.set()
        server.stop(drain_seconds=5)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    http = HttpSettings(times=HttpTimes(closing=0.5), limits=HttpLimits(body=4 * 1024 * 1024))
    with lab_with(http=http) as found:
        yield found


def assert_works(lab: Lab, client: Client | None = None) -> None:
    with ExitStack() as stack:
        client = client or stack.enter_context(lab.connect())
        client.request("POST", PREDICT, {"instances": [1, 2.5]})
        assert client.reply().json == {"predictions": [2.0, 5.0]}


class TestAnswers:
    @pytest.mark.parametrize(
        "path", [PREDICT, "/v1/models/double/versions/3:predict", "/V1/models/double/labels/stable:predict"]
    )
    def test_predict_by_version_and_label(self, lab: Lab, path: str) -> None:
        reply = lab.ask("POST", path, {"inputs": [[1], [2]]})
        assert (reply.status, reply.json) == (200, {"outputs": [[2.0], [4.0]]})
        assert reply.headers["content-type"] == "application/json"

    def test_status_and_metadata(self, lab: Lab) -> None:
        status = lab.ask("GET", "/v1/models/double").json["model_version_status"]
        assert status == [{"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
        metadata = lab.ask("GET", "/v1/models/double/labels/stable/metadata").json
        assert metadata["model_spec"] == {"name": "double", "signature_name": "", "version": "3"}
        inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        assert inputs["x"]["dtype"] == "DT_FLOAT"

    def test_gzip_bodies(self, lab: Lab) -> None:
        body = gzip.compress(b'{"instances": [4]}')
        assert lab.ask("POST", PREDICT, body, Content_Encoding="gzip").json == {"predictions": [8.0]}

    def test_chunked_bodies_on_a_connection_that_stays(self, lab: Lab) -> None:
        with lab.connect() as client:
            head = f"POST {PREDICT} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            client.send(head + b'8\r\n{"instan\r\na\r\nces": [3]}\r\n0\r\n\r\n')
            assert client.reply().json == {"predictions": [6.0]}
            assert_works(lab, client)

    def test_a_client_that_asks_first_is_told_to_go_on(self, lab: Lab) -> None:
        with lab.connect() as client:
            head = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 18\r\nExpect: 100-continue\r\n\r\n"
            client.send(head.encode())
            assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert client.file.readline() == b"\r\n"
            client.send(b'{"instances": [3]}')
            assert client.reply().json == {"predictions": [6.0]}

    def test_requests_that_came_together_are_answered_in_turn(self, lab: Lab) -> None:
        one = [f'{{"instances": [{number}]}}'.encode() for number in range(10)]
        head = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 18\r\n\r\n".encode()
        with lab.connect() as client:
            client.send(b"".join(head + body for body in one))
            assert [client.reply().json["predictions"] for _ in one] == [[2.0 * number] for number in range(10)]

    def test_http_1_0_is_answered_and_closed(self, lab: Lab) -> None:
        with lab.connect() as client:
            client.send(b"GET /v1/models/double HTTP/1.0\r\n\r\n")
            reply = client.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert client.is_closed()

    def test_a_large_answer_goes_out_whole(self, lab: Lab) -> None:
        values = [float(number) for number in range(200_000)]
        reply = lab.ask("POST", PREDICT, {"instances": values})
        assert reply.json["predictions"][-1] == 399_998.0

    def test_head_has_no_body(self, lab: Lab) -> None:
        with lab.connect() as client:
            for path, status in (("/healthz/live", 200), ("/v1/models/double", 400), ("/elsewhere", 404)):
                client.request("HEAD", path)
                reply = client.reply(is_head=True)
                assert reply.status == status
                assert int(reply.headers["content-length"]) > 0
            assert_works(lab, client)


class TestRefusals:
    """Each is followed by a good request on the same connection, where that one may stay."""

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "message"),
        [
            ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
            ("POST", PREDICT, b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
            ("POST", PREDICT, {"instances": [[1], [1, 2]]}, 400, "Failed to process element: 1 of 'instances' list."),
            ("POST", PREDICT, {"instances": ["a"]}, 400, 'JSON Value: "a" Type: String is not of expected type: float'),
            ("POST", PREDICT, {"signature_name": "s", "inputs": 1}, 400, 'name: "s" not found in signature def'),
            ("POST", PREDICT, b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "unexpected level"),
            (
                "POST",
                "/v1/models/other:predict",
                {"instances": [1]},
                404,
                "Servable not found for request: Latest(other)",
            ),
            ("POST", "/v1/models/double/versions/9:predict", {"instances": [1]}, 404, "Specific(double, 9)"),
            (
                "POST",
                "/v1/models/double/labels/x:predict",
                {"instances": [1]},
                400,
                "Unrecognized servable version label",
            ),
            ("POST", "/v1/models/double:classify", {"examples": []}, 400, "'examples' value is an empty array"),
            ("POST", "/v1/models/double:regress", {}, 400, "key 'examples' is expected and was not found"),
            ("GET", "/v1/models", b"", 400, "Missing model name in request."),
            ("GET", "/v1/models/other", b"", 404, "Could not find any versions of model other"),
            ("GET", "/v1/models/a%00%ff%zz", b"", 404, "Could not find any versions of model"),
            ("GET", "/v1/models/" + "x" * 8000, b"", 404, "Could not find any versions of model"),
            (
                "GET",
                "/v1/models/double/metadata/more",
                b"",
                400,
                "Malformed request: GET /v1/models/double/metadata/more",
            ),
            ("GET", "/v1/models/double%0d%0aSet-Cookie:x", b"", 400, "Malformed request"),
            ("PUT", "/v1/models/double", b"", 400, "Malformed request: PUT"),
            ("DELETE", "/v1/models/double", b"", 400, "Malformed request: DELETE"),
            ("OPTIONS", "/v1/models/double", b"", 400, "Origin header is missing"),
        ],
    )
    def test_the_connection_stays(self, lab: Lab, method: str, path: str, body: Any, status: int, message: str) -> None:
        with lab.connect() as client:
            client.request(method, path, body)
            reply = client.reply()
            assert reply.status == status
            assert message in reply.json["error"]
            assert_works(lab, client)

    def test_a_version_beyond_int64_is_refused_without_a_word(self, lab: Lab) -> None:
        reply = lab.ask("GET", "/v1/models/double/versions/9223372036854775808")
        assert (reply.status, reply.body) == (400, b"")

    @pytest.mark.parametrize("path", ["/", "/v2/models/double", "/healthz", "/monitoring/prometheus/metrics/x", "*"])
    def test_other_addresses_are_not_found(self, lab: Lab, path: str) -> None:
        reply = lab.ask("GET", path)
        assert (reply.status, reply.headers["content-type"]) == (404, "text/html")

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            (b"GET /\n\n", 400),
            (b"nonsense\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 1_000_000, 413),
            (b"POST / HTTP/1.1\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n", 413),
            (b"POST / HTTP/1.1\r\nExpect: tea\r\n\r\n", 417),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnot hexadecimal\r\n", 400),
            (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, 431),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ],
    )
    def test_what_is_no_request_ends_its_connection(self, lab: Lab, content: bytes, status: int) -> None:
        with lab.connect() as client:
            client.send(content)
            reply = client.reply()
            assert reply.status == status
            assert reply.headers["connection"] == "close"
            assert reply.json["error"]
            assert client.is_closed()
        assert_works(lab)

    def test_a_second_request_hidden_in_a_refused_one_is_not_answered(self, lab: Lab) -> None:
        hidden = b"0\r\n\r\nGET /healthz/live HTTP/1.1\r\n\r\n"
        with lab.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n" + hidden)
            assert client.reply().status == 400
            assert client.is_closed()

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (gzip.compress(b" " * 101 * 1024 * 1024, mtime=0), "longer than 104857600 bytes when it is inflated"),
            (b"no gzip", "The body is not gzip"),
            (gzip.compress(b'{"instances": [4]}', mtime=0)[:-9], "it ends too early"),
            (b"", "The document is empty"),
        ],
    )
    def test_gzip_that_is_none_or_a_bomb(self, lab: Lab, body: bytes, message: str) -> None:
        with lab.connect() as client:
            client.request("POST", PREDICT, body, Content_Encoding="gzip")
            reply = client.reply()
            assert reply.status == 400
            assert message in reply.json["error"]
            assert_works(lab, client)

    def test_a_failure_of_the_model_is_told_by_its_code(self, lab: Lab) -> None:
        def fail(feeds: Any, fetches: Any, *, timeout_seconds: Any) -> list[Any]:
            raise RuntimeError("secret")

        with lab_with() as own, own.connect() as client:
            own.model.run = fail  # type: ignore[method-assign]
            client.request("POST", PREDICT, {"instances": [1]})
            reply = client.reply()
            assert (reply.status, reply.json) == (500, {"error": "Internal error; see the server's log"})
            del own.model.run
            assert_works(own, client)


class TestTime:
    def test_a_request_that_takes_too_long_is_given_up(self) -> None:
        with lab_with(timeout_seconds=1.0) as lab, lab.connect() as client:
            lab.model.may_answer.clear()
            client.request("POST", PREDICT, {"instances": [1]})
            assert client.reply().status == 504
            assert all(timeout is not None and 0 < timeout <= 1.0 for timeout in lab.model.timeouts)
            lab.model.may_answer.set()
            assert_works(lab, client)

    def test_the_wait_for_a_thread_counts(self) -> None:
        with lab_with(timeout_seconds=0.3, http=HttpSettings(threads=1)) as lab, ExitStack() as stack:
            lab.model.may_answer.clear()
            clients = [stack.enter_context(lab.connect()) for _ in range(3)]
            for client in clients:
                client.request("POST", PREDICT, {"instances": [1]})
            assert [client.reply().status for client in clients] == [504, 504, 504]

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            (b"GET /v1/models/dou", 408),
            (b"GET / HTTP/1.1\r\nA: b\r\n", 408),
            (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n123", 408),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
        ],
    )
    def test_a_request_that_never_ends_is_ended(self, content: bytes, status: int) -> None:
        with lab_with(http=HttpSettings(times=QUICK)) as lab, lab.connect() as client:
            client.send(content)
            assert client.reply().status == status
            assert client.is_closed()
            assert_works(lab)

    def test_a_connection_that_asks_nothing_is_closed(self) -> None:
        with lab_with(http=HttpSettings(times=QUICK)) as lab, lab.connect() as client:
            assert_works(lab, client)
            assert client.is_closed()

    def test_who_sends_byte_by_byte_keeps_nobody_waiting(self) -> None:
        with lab_with(http=HttpSettings(threads=1)) as lab, ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(lab.connect()).send(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n1")
            assert_works(lab)

    def test_who_does_not_read_keeps_nobody_waiting_and_is_closed(self) -> None:
        values = [1.5] * 1_000_000
        with lab_with(http=HttpSettings(threads=1, times=QUICK)) as lab, lab.connect() as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.request("POST", PREDICT, {"instances": values})
            assert lab.model.is_asked.acquire(timeout=20)
            assert_works(lab)
            until(lambda: not lab.server._server._connections)


class TestBounds:
    def test_one_connection_too_many_takes_the_place_of_the_idlest(self) -> None:
        with lab_with(http=HttpSettings(connections=3)) as lab, ExitStack() as stack:
            clients = []
            for count in range(1, 4):
                clients.append(stack.enter_context(lab.connect()))
                assert_works(lab, clients[-1])
                until(lambda count=count: idle_connections(lab) == count)
            assert_works(lab)
            assert clients[0].is_closed()
            assert_works(lab, clients[2])

    def test_when_all_are_busy_one_more_is_told_so(self) -> None:
        with lab_with(http=HttpSettings(connections=2)) as lab, ExitStack() as stack:
            lab.model.may_answer.clear()
            clients = [stack.enter_context(lab.connect()) for _ in range(2)]
            for client in clients:
                client.request("POST", PREDICT, {"instances": [1]})
                assert lab.model.is_asked.acquire(timeout=20)
            late = stack.enter_context(lab.connect())
            assert late.reply().status == 503
            lab.model.may_answer.set()
            assert [client.reply().status for client in clients] == [200, 200]
            until(lambda: idle_connections(lab) > 0)
            assert_works(lab)

    def test_large_bodies_together_are_bounded(self) -> None:
        with lab_with(http=HttpSettings(buffered_bytes=300_000)) as lab, ExitStack() as stack:
            clients = [stack.enter_context(lab.connect()) for _ in range(2)]
            for client in clients:
                client.send(f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 250000\r\n\r\n".encode())
            clients[0].send(b" " * 200_000)
            until(lambda: lab.server._server._charged_bytes > 199_000)
            clients[1].send(b" " * 200_000)
            assert clients[1].reply().status == 503
            assert_works(lab)
            clients[0].send(b'{"instances": [1]}' + b" " * 49_982)
            assert clients[0].reply().json == {"predictions": [2.0]}
            until(lambda: lab.server._server._charged_bytes == 0)

    def test_health_and_metrics_are_answered_while_every_thread_is_busy(self) -> None:
        with lab_with(http=HttpSettings(threads=2)) as lab, ExitStack() as stack:
            lab.model.may_answer.clear()
            clients = [stack.enter_context(lab.connect()) for _ in range(4)]
            for client in clients:
                client.request("POST", PREDICT, {"instances": [1]})
            assert lab.ask("GET", "/healthz/ready").status == 200
            assert lab.ask("GET", "/monitoring/prometheus/metrics").status == 200
            lab.model.may_answer.set()
            assert [client.reply().status for client in clients] == [200] * 4

    def test_many_clients_at_once_all_get_their_own_answers(self) -> None:
        wrong: list[object] = []

        def work(lab: Lab, number: int) -> None:
            with lab.connect() as client:
                for turn in range(50):
                    client.request("POST", PREDICT, {"instances": [number, turn]})
                    found = client.reply().json
                    if found != {"predictions": [2.0 * number, 2.0 * turn]}:
                        wrong.append(found)

        with lab_with() as lab:
            threads = [threading.Thread(target=work, args=(lab, number)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong
            assert lab.metrics.value("/tensorflow/serving/request_count") == 16 * 50


class TestMonitoring:
    def test_requests_are_counted_with_their_version_and_their_end(self) -> None:
        with lab_with() as lab:
            assert_works(lab)
            lab.ask("POST", PREDICT, {"instances": ["a"]})
            lab.ask("POST", "/v1/models/unknown:predict", {"instances": [1]})
            reply = lab.ask("GET", "/monitoring/prometheus/metrics?x=1")
            text = reply.body.decode()
        assert reply.headers["content-type"].startswith("text/plain")
        assert ':tensorflow:serving:request_count{model_name="double",status="OK"} 1\n' in text
        assert ':tensorflow:serving:request_count{model_name="unknown",status="NOT_FOUND"} 1\n' in text
        assert ':tensorflow:serving:runtime_latency_count{model_name="double",API="Predict",runtime="TF1"} 1\n' in text
        labels = 'model="double",version="3",api="predict",entrypoint="REST"'
        assert f'liftgate_request_count{{{labels},status="INVALID_ARGUMENT"}} 1\n' in text
        assert f'liftgate_request_count{{{labels},status="OK"}} 1\n' in text

    def test_the_path_can_be_another_or_none(self) -> None:
        with lab_with(metrics_path="/mine") as lab:
            assert lab.ask("GET", "/mine").status == 200
            assert lab.ask("GET", "/monitoring/prometheus/metrics").status == 404
        with lab_with(metrics_path=None) as lab:
            assert lab.ask("GET", "/monitoring/prometheus/metrics").status == 404

    def test_ready_while_a_version_answers_and_not_while_leaving(self) -> None:
        with lab_with() as lab:
            assert lab.ask("GET", "/healthz/ready").status == 200
            (entry,) = lab.catalogue.all_versions()
            entry.stage = Stage.LOADING
            assert lab.ask("GET", "/healthz/ready").status == 503
            entry.stage = Stage.READY
            lab.server.leave()
            assert lab.ask("GET", "/healthz/ready").status == 503
            assert lab.ask("GET", "/healthz/live").status == 200
            assert_works(lab)
            assert lab.ask("POST", "/healthz/live").status == 405


class TestCors:
    def test_headers_are_sent_with_the_flag_only(self, lab: Lab) -> None:
        with lab_with(is_cors_enabled=True) as own:
            for method, status in (("OPTIONS", 200), ("GET", 200)):
                reply = own.ask(method, "/v1/models/double", Origin="https://x")
                assert reply.status == status
                assert reply.headers["access-control-allow-origin"] == "*"
                assert reply.headers["access-control-allow-methods"] == "POST, GET"
                assert reply.headers["access-control-allow-headers"] == "Content-Type"
            assert own.ask("OPTIONS", "/v1/models/double", Origin="ftp://x").status == 400
        reply = lab.ask("OPTIONS", "/v1/models/double", Origin="http://x")
        assert reply.status == 200
        assert "access-control-allow-origin" not in reply.headers


class TestEnd:
    def test_running_requests_are_answered_and_idle_connections_closed(self) -> None:
        with lab_with() as lab, lab.connect() as idle, lab.connect() as busy:
            assert_works(lab, idle)
            lab.model.is_asked.acquire()
            lab.model.may_answer.clear()
            busy.request("POST", PREDICT, {"instances": [1]})
            assert lab.model.is_asked.acquire(timeout=20)
            stopping = threading.Thread(target=lab.server.stop, kwargs={"drain_seconds": 20})
            stopping.start()
            assert idle.is_closed()
            until(lambda: is_refused(lab))
            lab.model.may_answer.set()
            reply = busy.reply()
            assert (reply.json, reply.headers["connection"]) == ({"predictions": [2.0]}, "close")
            assert busy.is_closed()
            stopping.join()

    def test_it_does_not_wait_for_ever(self) -> None:
        with lab_with() as lab, lab.connect() as client:
            lab.model.may_answer.clear()
            client.request("POST", PREDICT, {"instances": [1]})
            assert lab.model.is_asked.acquire(timeout=20)
            lab.server.stop(drain_seconds=0.1)
            assert client.is_closed()

    def test_a_server_that_was_never_started_can_be_stopped(self) -> None:
        server = RestServer(Catalogue(), metrics=Metrics(), host="127.0.0.1", port=0, settings=RestSettings())
        server.stop(drain_seconds=1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2])), timeout=10)

    def test_a_port_that_is_taken_is_said(self, lab: Lab) -> None:
        port = int(lab.server.address.rpartition(":")[2])
        with pytest.raises(StatusError, match=f"Cannot listen on 127.0.0.1:{port}") as caught:
            RestServer(lab.catalogue, metrics=Metrics(), host="127.0.0.1", port=port, settings=RestSettings())
        assert caught.value.code is Code.UNAVAILABLE


def idle_connections(lab: Lab) -> int:
    return sum(connection.is_idle for connection in list(lab.server._server._connections))


def is_refused(lab: Lab) -> bool:
    try:
        with lab.connect():
            return False
    except ConnectionError:
        return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)
