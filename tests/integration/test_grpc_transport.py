"""The gRPC transport with real gRPC clients: calls, failures, deadlines, cancellation, drain, TLS, Unix sockets."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue, StringValue

from serving.embedded_server.grpc_dispatch import GrpcLimits
from serving.embedded_server.grpc_health import GrpcHealth
from serving.embedded_server.grpc_reflection import GrpcReflection
from serving.embedded_server.grpc_transport import GrpcTransport
from serving.embedded_server.status import StatusError
from serving.embedded_server.tls import tls_context
from serving.protos import reflection_pb2, tfs_pb2

SECONDS = 20


@contextmanager
def channel_to(target: str, *, credentials: Any = None, **options: Any) -> Iterator[grpc.Channel]:
    pairs = [(f"grpc.{name}", value) for name, value in options.items()]
    pairs += [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    make = (
        grpc.insecure_channel(target, pairs) if credentials is None else grpc.secure_channel(target, credentials, pairs)
    )
    with make as channel:
        yield channel


def call(channel: grpc.Channel, method: str, request: Any, **options: Any) -> bytes:
    ask = channel.unary_unary(
        f"/test.Echo/{method}", request_serializer=_serialized, response_deserializer=BytesValue.FromString
    )
    answer: BytesValue = ask(request, timeout=options.pop("timeout", SECONDS), **options)
    return answer.value


def failure(channel: grpc.Channel, method: str, request: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request, **options)
    return caught.value.code(), caught.value.details()


def _serialized(request: Any) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def message(content: bytes = b"abc") -> BytesValue:
    return BytesValue(value=content)


@pytest.mark.parametrize("method", ["Echo", "Blocking"])
@pytest.mark.parametrize("size", [0, 1, 1000, 150_528, 1 << 20, 9 << 20])
def test_messages_of_every_size_come_back(grpc_lab: ModuleType, method: str, size: int) -> None:
    content = os.urandom(size)
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        for _ in range(3):
            assert call(channel, method, message(content)) == content


def test_many_threads_share_channels(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as one, channel_to(echo.bound) as other:

        def ask(number: int) -> bool:
            content = b"%d" % number * (number % 50)
            return call((one, other)[number % 2], ("Echo", "Blocking")[number % 3 % 2], message(content)) == content

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(2000)))


def test_answers_of_other_threads_come_together(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel, ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(call, channel, "Wait", message(b"%d" % number)) for number in range(50)]
        for _ in asked:
            assert echo.waiting.acquire(timeout=SECONDS)
        echo.may_answer.set()
        assert [future.result() for future in asked] == [b"%d" % number for number in range(50)]


def test_an_answer_larger_than_every_window_comes_whole(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        assert call(channel, "Zeros", DoubleValue(value=40 << 20)) == bytes(40 << 20)


@pytest.mark.parametrize("words", ["plain", "two\nlines", "100 % Größe 🙂", "x" * 1024])
def test_an_error_arrives_with_its_words(grpc_lab: ModuleType, words: str) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        assert failure(channel, "Fail", StringValue(value=words)) == (grpc.StatusCode.FAILED_PRECONDITION, words)


def test_long_errors_are_cut(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        assert failure(channel, "Fail", StringValue(value="x" * 5000))[1] == "x" * 1024 + "...TRUNCATED"


def test_unknown_methods_are_unimplemented_and_the_connection_goes_on(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        code, words = failure(channel, "Nothing", message())
        assert (code, words) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found: /test.Echo/Nothing")
        assert call(channel, "Echo", message()) == b"abc"


def test_an_unknown_dialogue_is_refused_before_it_is_over(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        is_over = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b""
            is_over.wait(SECONDS)

        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream("/test.Nobody/Talk")(requests(), timeout=SECONDS))
        is_over.set()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["Echo", "Blocking"])
def test_what_is_no_message_is_internal_as_in_c_plus_plus(grpc_lab: ModuleType, method: str) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        code, words = failure(channel, method, b"\xff\xff no protobuf")
        assert code is grpc.StatusCode.INTERNAL
        assert "not a serialized BytesValue" in words
        assert call(channel, method, message()) == b"abc"


def test_a_bug_in_a_handler_ends_one_request(grpc_lab: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        code, words = failure(channel, "Bug", message())
        assert (code, words) == (grpc.StatusCode.INTERNAL, "Internal error; see the server's log: a bug")
        assert call(channel, "Echo", message()) == b"abc"
    assert "a request failed unexpectedly" in caplog.text


def test_a_second_answer_is_thrown_away(grpc_lab: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        assert call(channel, "Twice", message()) == b"abc"
        assert call(channel, "Echo", message()) == b"abc"
    assert "answered twice" in caplog.text


def test_handlers_are_told_how_long_the_client_waits(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        echo.may_answer.set()
        call(channel, "Wait", message(), timeout=1000)
        call(channel, "Wait", message(), timeout=None)
        assert 900 < echo.timeouts[0] < 1100, "clients may round it"
        assert echo.timeouts[1] is None


@pytest.mark.parametrize("method", ["Wait", "Block"])
def test_a_deadline_is_answered_when_the_handler_does_not(grpc_lab: ModuleType, method: str) -> None:
    # The client's own clock would hide the answer: this client does not look at it.
    with grpc_lab.served() as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.call(1, grpc_lab.echo_body(b"abc"), method=method, grpc_timeout="50m")
        answer = client.answer(1)
        assert (answer.status.name, answer.fields["grpc-message"]) == ("DEADLINE_EXCEEDED", "Deadline Exceeded")
        echo.may_answer.set()
        assert client.is_alive(3)


def test_a_request_whose_time_is_up_when_its_thread_is_free_is_not_begun(grpc_lab: ModuleType) -> None:
    with grpc_lab.served(max_threads=1) as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.call(1, grpc_lab.echo_body(b"first"), method="Block")
        assert echo.waiting.acquire(timeout=SECONDS)
        client.call(3, grpc_lab.echo_body(b"second"), method="Block", grpc_timeout="10m")
        assert client.answer(3).status.name == "DEADLINE_EXCEEDED"
        echo.may_answer.set()
        assert client.answer(1).body == grpc_lab.echo_body(b"first")
        assert client.is_alive(5)
        assert not echo.waiting.acquire(blocking=False)


def test_a_cancelled_call_is_forgotten(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        ask = channel.unary_unary("/test.Echo/Wait", request_serializer=_serialized)
        future = ask.future(message(), timeout=SECONDS)
        assert echo.waiting.acquire(timeout=SECONDS)
        assert future.cancel()
        echo.may_answer.set()
        assert call(channel, "Echo", message()) == b"abc"


def test_a_client_that_is_gone_does_no_harm(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        with grpc_lab.RawClient(echo.bound) as client:
            client.call(1, grpc_lab.echo_body(b"abc"), method="Wait")
            assert echo.waiting.acquire(timeout=SECONDS)
        echo.may_answer.set()
        assert call(channel, "Echo", message()) == b"abc"


def test_gzip_is_understood(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        content = bytes(300_000)
        assert call(channel, "Echo", message(content), compression=grpc.Compression.Gzip) == content


def test_other_compressions_are_refused_with_what_is_understood(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        code, words = failure(channel, "Echo", message(bytes(3000)), compression=grpc.Compression.Deflate)
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "'deflate' is not supported; gzip is" in words


def test_messages_beyond_the_limit_are_refused_and_the_connection_goes_on(grpc_lab: ModuleType) -> None:
    limits = GrpcLimits(max_request_bytes=100_000)
    with grpc_lab.served(limits=limits) as (echo, _), channel_to(echo.bound) as channel:
        for size in (100_001, 5 << 20):
            code, words = failure(channel, "Echo", message(bytes(size)))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "Received message larger than max" in words
        assert call(channel, "Echo", message(bytes(99_990))) == bytes(99_990)


def test_a_dialogue_answers_each_message_at_once(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), channel_to(echo.bound) as channel:
        talk = channel.stream_stream(
            "/test.Echo/Talk", request_serializer=_serialized, response_deserializer=BytesValue.FromString
        )
        answered = threading.Semaphore(0)

        def requests() -> Iterator[BytesValue]:
            for word in (b"one", b"two", b"three"):
                yield message(word)
                assert answered.acquire(timeout=SECONDS)

        heard = []
        for answer in talk(requests(), timeout=SECONDS):
            heard.append(answer.value)
            answered.release()
        assert heard == [b"ONE", b"TWO", b"THREE"]
        with pytest.raises(grpc.RpcError) as caught:
            list(talk(iter([message(b"a"), message(b"stop")]), timeout=SECONDS))
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert call(channel, "Echo", message()) == b"abc"


def test_a_thousand_connections_are_served(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _):
        clients = [grpc_lab.RawClient(echo.bound) for _ in range(1000)]
        try:
            for _ in range(2):
                stream = 1 + 2 * _
                for client in clients:
                    client.call(stream, grpc_lab.echo_body(b"abc"))
                assert all(client.answer(stream).body == grpc_lab.echo_body(b"abc") for client in clients)
        finally:
            for client in clients:
                client.socket.close()


def test_a_drain_loses_no_request_and_moves_clients_away(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, transport), channel_to(echo.bound) as channel, ThreadPoolExecutor(40) as pool:
        asked = [
            pool.submit(call, channel, ("Wait", "Block")[number % 2], message(b"%d" % number)) for number in range(8)
        ]
        for _ in asked:
            assert echo.waiting.acquire(timeout=SECONDS)
        transport.begin_drain(SECONDS)
        closed = pool.submit(transport.wait_closed)
        while failure_of_connect(echo.bound) is None:
            time.sleep(0.01)
        assert not closed.done()
        echo.may_answer.set()
        assert [future.result() for future in asked] == [b"%d" % number for number in range(8)]
        closed.result(SECONDS)


def failure_of_connect(bound: str) -> OSError | None:
    host, port = bound.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError as error:
        return error
    return None


def test_calls_during_a_drain_are_answered_or_never_begun(grpc_lab: ModuleType) -> None:
    """Clients that ask on and on see UNAVAILABLE only for calls that they may safely repeat."""
    for _ in range(3):
        with grpc_lab.served() as (echo, transport), ThreadPoolExecutor(8) as pool:
            seen: list[int] = []
            count = threading.Lock()

            def ask(index: int, bound: str = echo.bound, seen: list[int] = seen, count: Any = count) -> str | None:
                with channel_to(bound) as channel:
                    for number in range(100_000):
                        try:
                            assert call(channel, "Echo", message(b"%d" % number)) == b"%d" % number
                        except grpc.RpcError as error:
                            return str(error.details())
                        with count:
                            seen.append(number)
                return None

            asked = [pool.submit(ask, index) for index in range(8)]
            while len(seen) < 500:
                time.sleep(0.01)
            transport.begin_drain(SECONDS)
            # Only a new connection is refused; no call on an old one was cut off.
            for future in asked:
                assert "refused" in str(future.result(SECONDS)).lower()


def test_what_does_not_end_in_time_is_told_so(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, transport), channel_to(echo.bound) as channel, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(failure, channel, "Wait", message())
        assert echo.waiting.acquire(timeout=SECONDS)
        transport.begin_drain(0.1)
        transport.wait_closed()
        assert asked.result() == (grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")


def test_unix_sockets_are_for_owner_and_group(grpc_lab: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    with grpc_lab.served(unix_path=path) as (echo, _), channel_to(echo.bound) as channel:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert echo.bound == f"unix:{path}"
        assert call(channel, "Echo", message(bytes(3 << 20))) == bytes(3 << 20)
    assert not path.exists()


def test_the_socket_of_a_dead_server_is_replaced(grpc_lab: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with grpc_lab.served(unix_path=path) as (echo, _), channel_to(echo.bound) as channel:
        assert call(channel, "Echo", message()) == b"abc"


def test_the_socket_of_a_living_server_and_other_files_are_left_alone(grpc_lab: ModuleType, tmp_path: Path) -> None:
    path, file = tmp_path / "grpc.sock", tmp_path / "file"
    file.write_text("content")
    with grpc_lab.served(unix_path=path) as (echo, _), channel_to(echo.bound) as channel:
        second = GrpcTransport({}, max_threads=1)
        with pytest.raises(StatusError, match="another server listens there"):
            second.bind_unix(path)
        with pytest.raises(StatusError, match="a file that is no socket"):
            second.bind_unix(file)
        with pytest.raises(StatusError, match="Cannot listen on"):
            second.bind_unix(tmp_path / ("x" * 200))
        assert call(channel, "Echo", message()) == b"abc"
    assert file.read_text() == "content"


def test_a_port_that_is_taken_is_refused(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _):
        with pytest.raises(StatusError, match=f"Cannot listen on {echo.bound}: Address already in use"):
            GrpcTransport({}, max_threads=1).bind_tcp("127.0.0.1", int(echo.bound.rpartition(":")[2]))
        with pytest.raises(StatusError, match="Cannot listen on"):
            GrpcTransport({}, max_threads=1).bind_tcp("192.0.2.1", 0)


def test_a_transport_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    transport = GrpcTransport({}, max_threads=1)
    transport.bind_unix(tmp_path / "s")
    transport.begin_drain(1)
    transport.wait_closed()
    assert not (tmp_path / "s").exists()


def ssl_config(authority: Any, *, client_verify: bool = False) -> tfs_pb2.SSLConfig:
    certificate, key = authority.issue("server", hosts=("localhost", "127.0.0.1"))
    return tfs_pb2.SSLConfig(
        server_key=key.read_text(),
        server_cert=certificate.read_text(),
        custom_ca=authority.ca_path.read_text(),
        client_verify=client_verify,
    )


def client_credentials(authority: Any, *, shows: Any = None) -> grpc.ChannelCredentials:
    pair = [path.read_bytes() for path in reversed(shows.issue("client"))] if shows else [None, None]
    return grpc.ssl_channel_credentials(authority.ca_path.read_bytes(), *pair)


@pytest.mark.parametrize("is_unix", [False, True])
def test_tls(grpc_lab: ModuleType, tls_authority: ModuleType, tmp_path: Path, is_unix: bool) -> None:
    authority = tls_authority.TestAuthority(tmp_path)
    path = tmp_path / "grpc.sock" if is_unix else None
    with grpc_lab.served(unix_path=path, tls=tls_context(ssl_config(authority))) as (echo, _):
        options = {"ssl_target_name_override": "localhost"}
        with channel_to(echo.bound, credentials=client_credentials(authority), **options) as channel:
            for size in (0, 1000, 150_528, 3 << 20):
                assert call(channel, "Echo", message(bytes(size))) == bytes(size)
        with channel_to(echo.bound) as plain:
            assert failure(plain, "Echo", message(), timeout=2)[0] in {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            }


def test_mutual_tls_asks_for_a_certificate_of_the_authority(
    grpc_lab: ModuleType, tls_authority: ModuleType, tmp_path: Path
) -> None:
    authority = tls_authority.TestAuthority(tmp_path)
    stranger = tls_authority.TestAuthority(tmp_path, name="stranger")
    with grpc_lab.served(tls=tls_context(ssl_config(authority, client_verify=True))) as (echo, _):
        with channel_to(echo.bound, credentials=client_credentials(authority, shows=authority)) as channel:
            assert call(channel, "Echo", message()) == b"abc"
        for shows in (None, stranger):
            with channel_to(echo.bound, credentials=client_credentials(authority, shows=shows)) as channel:
                assert failure(channel, "Echo", message())[0] is grpc.StatusCode.UNAVAILABLE


def test_a_bad_ssl_config_is_refused_in_words(tls_authority: ModuleType, tmp_path: Path) -> None:
    authority = tls_authority.TestAuthority(tmp_path)
    good = ssl_config(authority, client_verify=True)
    other_key = authority.issue("other")[1].read_text()
    for field, value in (("server_key", ""), ("server_key", other_key), ("server_cert", "no PEM"), ("custom_ca", "x")):
        bad = tfs_pb2.SSLConfig()
        bad.CopyFrom(good)
        setattr(bad, field, value)
        with pytest.raises(StatusError, match=f"SSLConfig refused: .*{field}") as caught:
            tls_context(bad)
        assert "PRIVATE KEY" not in str(caught.value)


def test_gzip_bombs_are_refused(grpc_lab: ModuleType) -> None:
    limits = GrpcLimits(max_inflated_bytes=1 << 20)
    bomb = gzip.compress(bytes(1 << 27))
    body = b"\1" + len(bomb).to_bytes(4, "big") + bomb
    with grpc_lab.served(limits=limits) as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.send(grpc_lab.headers(1, grpc_encoding="gzip"))
        for start in range(0, len(body), 16384):
            client.send(grpc_lab.frame(grpc_lab.DATA, 0, 1, body[start : start + 16384]))
        client.send(grpc_lab.frame(grpc_lab.DATA, grpc_lab.END_STREAM, 1))
        assert client.answer(1).status.name == "RESOURCE_EXHAUSTED"
        assert client.is_alive(3)


def test_health_and_reflection_are_served_beside_others() -> None:
    services: dict[str, Any] = {**GrpcHealth().methods(), **GrpcReflection().methods()}
    transport = GrpcTransport(services, max_threads=1)
    target = transport.bind_tcp("127.0.0.1", 0)
    transport.start()
    try:
        with channel_to(target) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=SECONDS) == b"\x08\x01"
            for package in ("v1", "v1alpha"):
                ask = channel.stream_stream(
                    f"/grpc.reflection.{package}.ServerReflection/ServerReflectionInfo",
                    request_serializer=_serialized,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
                )
                requests = [
                    reflection_pb2.ServerReflectionRequest(list_services=""),
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol="tensorflow.serving.PredictRequest"),
                ]
                listed, described = ask(iter(requests), timeout=SECONDS)
                assert len(listed.list_services_response.service) == 5
                assert len(described.file_descriptor_response.file_descriptor_proto) == 5
    finally:
        transport.begin_drain(SECONDS)
        transport.wait_closed()
