"""The client's connection: mutual TLS, certificates that are replaced, and what is tried again."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from artifact_sync.errors import ModelServerError, ModelServerUnavailableError, SettingsError
from serving.model_server import GrpcModelServer, ModelConfig, ServerTls
from serving.protos import tfs_pb2

PIXELS = np.zeros((1, 4, 4, 1), np.uint8)
LARGE = np.zeros((8, 224, 224, 3), np.uint8)  # 1.2 MB
MODELS = (ModelConfig("shapes", "/models/shapes", (1,)),)


@dataclass
class Answers:
    """Answers Predict and reloads; `unavailable` calls are refused first, and every caller is noted."""

    unavailable: int = 0
    callers: list[str] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def predict(self, request: tfs_pb2.PredictRequest, context: grpc.ServicerContext) -> tfs_pb2.PredictResponse:
        self._enter(context)
        self.may_answer.wait(30)
        response = tfs_pb2.PredictResponse()
        response.model_spec.version.value = 1
        tensor = response.outputs["probabilities"]
        tensor.dtype = tfs_pb2.DT_FLOAT
        rows = request.inputs["pixels"].tensor_shape.dim[0].size
        for size in (rows, 2):
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend([0.25, 0.75] * rows)
        return response

    def reload(self, request: Any, context: grpc.ServicerContext) -> tfs_pb2.ReloadConfigResponse:
        self._enter(context)
        return tfs_pb2.ReloadConfigResponse()

    def _enter(self, context: grpc.ServicerContext) -> None:
        names = context.auth_context().get("x509_common_name", [b"nobody"])
        self.callers.append(names[0].decode())
        if self.unavailable > 0:
            self.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


def _handler(function: Callable[..., Any], request_type: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(function, request_type.FromString, lambda m: m.SerializeToString())


@pytest.fixture
def answers() -> Answers:
    answers = Answers()
    answers.may_answer.set()
    return answers


@pytest.fixture
def serve(answers: Answers) -> Iterator[Callable[..., int]]:
    """Return a function that opens a server at an address, with TLS when it is given credentials."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    prediction = {"Predict": _handler(answers.predict, tfs_pb2.PredictRequest)}
    model = {"HandleReloadConfigRequest": _handler(answers.reload, tfs_pb2.ReloadConfigRequest)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
            grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
        )
    )

    def start(address: str = "127.0.0.1:0", *, credentials: Any = None) -> int:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        return int(port)

    yield start
    server.stop(0).wait()


@pytest.fixture(scope="session")
def make_authority(repository: Path) -> type:
    spec = importlib.util.spec_from_file_location("tls_authority", repository / "tests" / "tls_authority.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    authority: type = module.TestAuthority
    return authority


@pytest.fixture
def authority(make_authority: Any, tmp_path: Path) -> Any:
    return make_authority(tmp_path)


def mutual(authority: Any) -> grpc.ServerCredentials:
    certificate_path, key_path = authority.issue("server")
    pair = (key_path.read_bytes(), certificate_path.read_bytes())
    return grpc.ssl_server_credentials([pair], authority.ca_path.read_bytes(), require_client_auth=True)


def client_tls(authority: Any, name: str = "front-end", **change: Any) -> ServerTls:
    return ServerTls(authority.ca_path, *authority.issue(name), **change)


def test_both_ends_show_a_certificate(serve: Callable[..., int], answers: Answers, authority: Any) -> None:
    port = serve(credentials=mutual(authority))
    with GrpcModelServer(f"127.0.0.1:{port}", tls=client_tls(authority)) as server:
        assert server.predict("shapes", PIXELS).version == 1
    assert answers.callers == ["front-end"]


def test_a_socket_has_tls_too_once_the_servers_name_is_said(
    serve: Callable[..., int], answers: Answers, authority: Any, tmp_path: Path
) -> None:
    target = f"unix:{tmp_path}/grpc.sock"
    serve(target, credentials=mutual(authority))
    with pytest.raises(SettingsError, match="Set server_name"):
        GrpcModelServer(target, tls=client_tls(authority))
    with GrpcModelServer(target, tls=client_tls(authority, server_name="model-server")) as server:
        assert server.predict("shapes", PIXELS).version == 1
    assert answers.callers == ["front-end"]


def test_who_cannot_prove_itself_gets_no_answer(
    serve: Callable[..., int], answers: Answers, authority: Any, make_authority: Any, tmp_path: Path
) -> None:
    port = serve(credentials=mutual(authority))
    stranger = make_authority(tmp_path, "stranger")
    ways = {
        "no TLS": None,
        "no certificate": ServerTls(authority.ca_path),
        "a certificate of another authority": ServerTls(authority.ca_path, *stranger.issue("intruder")),
        "a server of another authority": ServerTls(stranger.ca_path, *authority.issue("front-end")),
        "a server of another name": client_tls(authority, server_name="elsewhere"),
    }
    for way, tls in ways.items():
        with (
            GrpcModelServer(f"127.0.0.1:{port}", tls=tls) as server,
            pytest.raises(ModelServerUnavailableError, match="cannot be reached"),
        ):
            server.predict("shapes", PIXELS)
        assert answers.callers == [], way


def test_files_that_were_replaced_are_used_from_the_next_call_on(
    serve: Callable[..., int], answers: Answers, authority: Any
) -> None:
    port = serve(credentials=mutual(authority))
    tls = client_tls(authority, "before")
    with GrpcModelServer(f"127.0.0.1:{port}", tls=tls) as server:
        answers.may_answer.clear()
        with futures.ThreadPoolExecutor(1) as thread:
            under_way = thread.submit(server.predict, "shapes", PIXELS)
            while answers.callers != ["before"]:
                pass
            for old, new in zip((tls.certificate_path, tls.key_path), authority.issue("after"), strict=True):
                new.replace(old)
            answers.may_answer.set()
            assert server.predict("shapes", PIXELS).version == 1
            assert under_way.result().version == 1
        assert server.predict("shapes", PIXELS).version == 1
        # In the midst of being replaced: the connection that there is goes on.
        tls.certificate_path.write_text("half of a")
        assert server.predict("shapes", PIXELS).version == 1
        tls.key_path.unlink()
        assert server.predict("shapes", PIXELS).version == 1
    assert answers.callers == ["before", "after", "after", "after", "after"]


def test_files_that_cannot_be_used_are_named_at_the_first_call(authority: Any) -> None:
    tls = client_tls(authority)
    tls.key_path.write_text("no key")
    with (
        GrpcModelServer("127.0.0.1:1", tls=tls) as server,
        pytest.raises(SettingsError, match=r"front-end\.key holds no private key"),
    ):
        server.predict("shapes", PIXELS)


@pytest.mark.parametrize("pixels", [PIXELS, LARGE], ids=["small", "1.2 MB"])
def test_a_prediction_that_was_lost_is_asked_for_once_more(
    serve: Callable[..., int], answers: Answers, pixels: np.ndarray[Any, Any]
) -> None:
    port = serve()
    with GrpcModelServer(f"127.0.0.1:{port}") as server:
        answers.unavailable = 1
        assert len(server.predict("shapes", pixels).scores) == len(pixels)
        assert len(answers.callers) == 2
        answers.unavailable = 2
        with pytest.raises(ModelServerUnavailableError, match="not now"):
            server.predict("shapes", pixels)
        assert len(answers.callers) == 4


def test_a_reload_is_never_sent_twice(serve: Callable[..., int], answers: Answers) -> None:
    port = serve()
    answers.unavailable = 1
    with GrpcModelServer(f"127.0.0.1:{port}") as server:
        with pytest.raises(ModelServerUnavailableError, match="not now"):
            server.reload(MODELS, timeout_seconds=10)
        assert len(answers.callers) == 1
        server.reload(MODELS, timeout_seconds=10)


def test_a_refusal_is_not_tried_again(serve: Callable[..., int], answers: Answers) -> None:
    port = serve()
    with GrpcModelServer(f"127.0.0.1:{port}") as server, pytest.raises(ModelServerError, match="UNIMPLEMENTED"):
        server.signature("shapes")
    assert answers.callers == []


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _counted(text: bytes) -> bytes:
    return bytes([len(text)]) + text


class BreakingServer(threading.Thread):
    """HTTP/2 by hand: breaks off the answers of the first `broken` requests after part of them was sent."""

    def __init__(self, broken: int) -> None:
        super().__init__(daemon=True)
        self.broken, self.asked = broken, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener, connection.makefile("rb") as stream:
            connection.sendall(_frame(4, 0, 0, b""))
            stream.read(24)  # the preface
            while head := stream.read(9):
                payload = stream.read(int.from_bytes(head[:3], "big"))
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:9], "big")
                if kind == 4 and not flags & 1:
                    connection.sendall(_frame(4, 1, 0, b""))
                elif kind == 6 and not flags & 1:
                    connection.sendall(_frame(6, 1, 0, payload))
                elif kind == 0 and flags & 1:
                    connection.sendall(self._answer(number))

    def _answer(self, stream: int) -> bytes:
        self.asked += 1
        response = tfs_pb2.PredictResponse()
        response.model_spec.version.value = 1
        tensor = response.outputs["probabilities"]
        tensor.dtype = tfs_pb2.DT_FLOAT
        for size in (1, 2):
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend([0.25, 0.75])
        message = response.SerializeToString()
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        head = _frame(1, 4, stream, b"\x88\x0f\x10" + _counted(b"application/grpc"))
        if self.asked <= self.broken:
            return head + _frame(0, 1, stream, body[:10])
        status = b"\x00" + _counted(b"grpc-status") + _counted(b"0")
        return head + _frame(0, 0, stream, body) + _frame(1, 5, stream, status)


@pytest.mark.parametrize(("broken", "asked"), [(1, 2), (5, 2)])
def test_an_answer_that_breaks_off_is_asked_for_once_more(broken: int, asked: int) -> None:
    breaking = BreakingServer(broken)
    breaking.start()
    with GrpcModelServer(f"127.0.0.1:{breaking.port}") as server:
        if broken == 1:
            assert server.predict("shapes", PIXELS).version == 1
        else:
            with pytest.raises(ModelServerUnavailableError, match="cannot be reached"):
                server.predict("shapes", PIXELS)
    breaking.join(30)
    assert breaking.asked == asked


def test_a_reload_whose_answer_breaks_off_is_not_sent_again() -> None:
    breaking = BreakingServer(1)
    breaking.start()
    with GrpcModelServer(f"127.0.0.1:{breaking.port}") as server, pytest.raises(ModelServerUnavailableError):
        server.reload(MODELS, timeout_seconds=10)
    breaking.join(30)
    assert breaking.asked == 1
