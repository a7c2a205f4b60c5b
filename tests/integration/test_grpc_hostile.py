"""What the gRPC transport does with clients that break the rules, or keep them in unusual ways."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serving.embedded_server import io_loop
from serving.embedded_server.grpc_dispatch import GrpcLimits

QUICK = GrpcLimits(greeting_seconds=0.3, transfer_seconds=0.3)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        os.urandom(1000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!" + bytes(100),
    ],
)
def test_what_is_not_http2_is_closed(grpc_lab: ModuleType, garbage: bytes) -> None:
    with grpc_lab.served() as (echo, _), grpc_lab.RawClient(echo.bound, greets=False) as client:
        client.send(garbage)
        frames = client.until_closed()
        assert {frame.kind for frame in frames} <= {grpc_lab.SETTINGS, grpc_lab.WINDOW_UPDATE, grpc_lab.GOAWAY}
        with grpc_lab.RawClient(echo.bound) as other:
            assert other.is_alive(1)


Broken = Callable[[ModuleType], bytes]
BREAKING: dict[str, Broken] = {
    "a frame beyond the announced size": lambda lab: lab.frame(lab.DATA, 0, 1, bytes((1 << 20) + 1)),
    "data without a stream": lambda lab: lab.frame(lab.DATA, 0, 0, b"abc"),
    "data of a stream that never was": lambda lab: lab.frame(lab.DATA, 0, 99, b"abc"),
    "an even stream": lambda lab: lab.headers(2),
    "settings of a wrong size": lambda lab: lab.frame(lab.SETTINGS, 0, 0, b"abc"),
    "a ping of a wrong size": lambda lab: lab.frame(lab.PING, 0, 0, b"abc"),
    "a window of 0 for the connection": lambda lab: lab.frame(lab.WINDOW_UPDATE, 0, 0, bytes(4)),
    "headers that are no HPACK": lambda lab: lab.frame(lab.HEADERS, lab.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
    "an index beyond the table": lambda lab: lab.frame(lab.HEADERS, lab.END_HEADERS, 1, b"\xfe"),
    "padding longer than its frame": lambda lab: lab.frame(lab.HEADERS, lab.END_HEADERS | lab.PADDED, 1, b"\xffab"),
    "a continuation of nothing": lambda lab: lab.frame(lab.CONTINUATION, lab.END_HEADERS, 1, b"abc"),
    "headers that are not continued": lambda lab: (
        lab.frame(lab.HEADERS, 0, 1, lab.header_block()) + lab.frame(lab.PING, 0, 0, bytes(8))
    ),
    "a push by a client": lambda lab: lab.frame(5, lab.END_HEADERS, 1, bytes(4) + lab.header_block()),
}


@pytest.mark.parametrize("broken", BREAKING.values(), ids=BREAKING.keys())
def test_a_broken_connection_is_told_and_closed(grpc_lab: ModuleType, broken: Broken) -> None:
    with grpc_lab.served() as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.send(broken(grpc_lab))
        goodbyes = [frame for frame in client.until_closed() if frame.kind == grpc_lab.GOAWAY]
        assert goodbyes
        assert goodbyes[-1].code != 0
        with grpc_lab.RawClient(echo.bound) as other:
            assert other.is_alive(1)


BROKEN_REQUESTS: dict[str, tuple[Callable[[ModuleType], bytes], str]] = {
    "no message": (lambda _: b"", "INTERNAL"),
    "half a prefix": (lambda _: b"\0\0\0", "INTERNAL"),
    "half a message": (lambda lab: lab.echo_body(b"abc")[:-1], "INTERNAL"),
    "two messages": (lambda lab: lab.echo_body(b"abc") * 2, "UNIMPLEMENTED"),
    "a strange flag": (lambda lab: b"\7" + lab.echo_body(b"abc")[1:], "INTERNAL"),
    "compressed without an encoding": (lambda lab: b"\1" + lab.echo_body(b"abc")[1:], "INTERNAL"),
    "an announced size beyond the limit": (lambda _: b"\0\xff\xff\xff\xffabc", "RESOURCE_EXHAUSTED"),
}


@pytest.mark.parametrize(("body", "code"), BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS.keys())
def test_a_broken_request_is_answered_and_the_connection_goes_on(
    grpc_lab: ModuleType, body: Callable[[ModuleType], bytes], code: str
) -> None:
    limits = GrpcLimits(max_request_bytes=1 << 20)
    with grpc_lab.served(limits=limits) as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.call(1, body(grpc_lab))
        assert client.answer(1).status.name == code
        assert client.is_alive(3)


@pytest.mark.parametrize(
    ("fields", "answered"),
    [
        ({"content_type": "application/json"}, {":status": "415"}),
        ({"content_type": "application/grpc-web"}, {":status": "415"}),
        ({":method": "GET"}, {":status": "405"}),
        ({":path": "/"}, {":status": "200", "grpc-status": "12"}),
        ({":path": "/test.Echo/Echo/"}, {":status": "200", "grpc-status": "12"}),
        ({"grpc_timeout": "soon"}, {":status": "200", "grpc-status": "13"}),
        ({"grpc_encoding": "br"}, {":status": "200", "grpc-status": "12", "grpc-accept-encoding": "identity,gzip"}),
    ],
)
def test_requests_of_another_kind_are_answered(
    grpc_lab: ModuleType, fields: dict[str, str], answered: dict[str, str]
) -> None:
    with grpc_lab.served() as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.call(1, grpc_lab.echo_body(b"abc"), **fields)
        assert answered.items() <= client.answer(1).fields.items()
        assert client.is_alive(3)


def test_unusual_but_lawful_requests_are_understood(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    body = lab.echo_body(b"abc")
    block = lab.header_block(content_type="application/grpc+proto", x_filler="y" * 20_000)
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        # Padded headers and data, a priority, an unknown frame, headers in three frames, trailers of the client.
        client.send(lab.frame(lab.HEADERS, lab.END_HEADERS | lab.PADDED, 1, b"\4" + lab.header_block() + bytes(4)))
        client.send(lab.frame(lab.DATA, lab.PADDED, 1, b"\2" + body[:3] + bytes(2)))
        client.send(lab.frame(lab.PRIORITY, 0, 1, bytes(5)), lab.frame(0xEE, 0, 0, b"what is this"))
        client.send(lab.frame(lab.DATA, lab.END_STREAM | lab.PADDED, 1, b"\xff" + body[3:] + bytes(255)))
        assert client.answer(1).body == body
        client.send(lab.frame(lab.HEADERS, 0, 3, block[:5000]), lab.frame(lab.CONTINUATION, 0, 3, block[5000:15_000]))
        client.send(lab.frame(lab.CONTINUATION, lab.END_HEADERS, 3, block[15_000:]), lab.frame(lab.DATA, 0, 3, body))
        client.send(lab.frame(lab.DATA, lab.END_STREAM, 3))
        assert client.answer(3).body == body
        trailers = b"\0\1a\1b"
        client.send(lab.headers(5), lab.frame(lab.DATA, 0, 5, body))
        client.send(lab.frame(lab.HEADERS, lab.END_HEADERS | lab.END_STREAM, 5, trailers))
        assert client.answer(5).body == body


def test_a_request_may_come_byte_by_byte(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    with lab.served() as (echo, _), lab.RawClient(echo.bound, greets=False) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = lab.PREFACE + lab.frame(lab.SETTINGS) + lab.headers(1)
        whole += b"".join(lab.frame(lab.DATA, 0, 1, bytes((byte,))) for byte in lab.echo_body(b"abc"))
        for byte in whole + lab.frame(lab.DATA, lab.END_STREAM, 1):
            client.send(bytes((byte,)))
        assert client.answer(1).body == lab.echo_body(b"abc")


def test_pings_are_answered(grpc_lab: ModuleType) -> None:
    with grpc_lab.served() as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        client.send(grpc_lab.frame(grpc_lab.PING, 0, 0, b"12345678"))
        assert client.until(grpc_lab.PING, grpc_lab.ACK).payload == b"12345678"


FLOODS: dict[str, Broken] = {
    "pings": lambda lab: lab.frame(lab.PING, 0, 0, bytes(8)),
    "settings": lambda lab: lab.frame(lab.SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)),
    "priorities": lambda lab: lab.frame(lab.PRIORITY, 0, 1, struct.pack(">IB", 0, 15)),
    "empty data": lambda lab: lab.frame(lab.DATA, 0, 1),
    "endless headers": lambda lab: lab.frame(lab.CONTINUATION, 0, 1, b"\0\1a\1b" * 1000),
}


@pytest.mark.parametrize(("kind", "one"), FLOODS.items(), ids=FLOODS.keys())
def test_floods_of_frames_end_the_connection(grpc_lab: ModuleType, kind: str, one: Broken) -> None:
    lab = grpc_lab
    flags = 0 if kind == "endless headers" else lab.END_HEADERS
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        client.send(lab.headers(1, flags=flags))
        assert _is_cut_off(client, (one(lab) * 1000 for _ in range(2000)))
        with lab.RawClient(echo.bound) as other:
            assert other.is_alive(1)


def test_rapid_resets_end_the_connection(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    cancel = struct.pack(">I", 8)
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        streams = range(1, 400_000, 2)
        assert _is_cut_off(
            client, (lab.headers(stream) + lab.frame(lab.RST_STREAM, 0, stream, cancel) for stream in streams)
        )
        with lab.RawClient(echo.bound) as other:
            assert other.is_alive(1)


def _is_cut_off(client: Any, pieces: Iterable[bytes]) -> bool:
    """Send as long as the server takes it; return whether it did not take all."""
    try:
        for piece in pieces:
            client.send(piece)
    except ConnectionError:
        return True
    return False


def test_work_for_cancelled_requests_is_bounded(grpc_lab: ModuleType) -> None:
    """Streams that were reset are not open, so the limit of streams does not bound what they set going."""
    lab = grpc_lab
    with lab.served(limits=GrpcLimits(max_streams=5)) as (echo, _), lab.RawClient(echo.bound) as client:
        for stream in range(1, 11, 2):
            client.call(stream, lab.echo_body(b"abc"), method="Wait")
            assert echo.waiting.acquire(timeout=20)
            client.send(lab.frame(lab.RST_STREAM, 0, stream, struct.pack(">I", 8)))
        client.call(11, lab.echo_body(b"abc"), method="Wait")
        assert client.answer(11).status.name == "RESOURCE_EXHAUSTED"
        assert len(echo.timeouts) == 5


def test_requests_beyond_the_limit_of_streams_are_refused_for_a_repetition(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    refused_stream = 7
    with lab.served(limits=GrpcLimits(max_streams=2)) as (echo, _), lab.RawClient(echo.bound) as client:
        # This client has not confirmed the limit; for one that has, it would break HTTP/2.
        for stream in (1, 3, 5):
            client.call(stream, lab.echo_body(b"abc"), method="Wait")
        assert client.answer(5).reset_code == refused_stream
        echo.may_answer.set()
        assert client.answer(3).body == lab.echo_body(b"abc")


def test_headers_beyond_the_limit_reset_their_stream(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    with lab.served(limits=GrpcLimits(max_header_bytes=8192)) as (echo, _), lab.RawClient(echo.bound) as client:
        client.call(1, lab.echo_body(b"abc"), x_large="y" * 10_000)
        assert client.answer(1).reset_code is not None
        assert client.is_alive(3)


def test_a_header_bomb_is_not_unpacked(grpc_lab: ModuleType) -> None:
    """4 KB in HPACK's table, then named again and again by one byte each: 16 KB that mean 64 MB."""
    lab = grpc_lab
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        value = b"v" * 3900
        bomb = b"\x40\1x" + lab.integer(len(value)) + value + b"\xbe" * 12_000
        client.send(lab.frame(lab.HEADERS, lab.END_HEADERS, 1, lab.header_block() + bomb))
        assert client.answer(1).reset_code is not None
        assert client.is_alive(3)


def test_a_client_that_has_closed_its_half_gets_its_answers(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        client.call(1, lab.echo_body(b"abc"), method="Wait")
        client.send(lab.headers(3))  # and never a body
        client.socket.shutdown(socket.SHUT_WR)
        assert echo.waiting.acquire(timeout=20)
        echo.may_answer.set()
        assert client.answer(1).body == lab.echo_body(b"abc")
        client.until_closed()


def test_who_says_nothing_is_closed(grpc_lab: ModuleType) -> None:
    with grpc_lab.served(limits=QUICK) as (echo, _):
        for beginning in (b"", grpc_lab.PREFACE[:10], grpc_lab.PREFACE):
            with grpc_lab.RawClient(echo.bound, greets=False) as client:
                client.send(beginning)
                client.until_closed()


def test_a_greeted_connection_may_be_idle(grpc_lab: ModuleType) -> None:
    with grpc_lab.served(limits=QUICK) as (echo, _), grpc_lab.RawClient(echo.bound) as client:
        assert client.is_alive(1)
        with grpc_lab.RawClient(echo.bound, greets=False) as silent:
            silent.until_closed()  # which takes longer than anything that is limited
        assert client.is_alive(3)


def test_a_request_that_never_ends_is_answered(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    with lab.served(limits=QUICK) as (echo, _), lab.RawClient(echo.bound) as client:
        client.send(lab.headers(1), lab.frame(lab.DATA, 0, 1, lab.echo_body(b"abc")[:6]))
        answer = client.answer(1)
        assert answer.status.name == "DEADLINE_EXCEEDED"
        assert "did not arrive within 0.3 s" in answer.fields["grpc-message"]
        assert client.is_alive(3)


def test_who_opens_no_window_is_cut_off(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    no_window = lab.frame(lab.SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    with lab.served(limits=QUICK) as (echo, _), lab.RawClient(echo.bound) as client:
        client.send(no_window)
        client.call(1, lab.echo_body(b"abc"))
        assert client.answer(1).reset_code == 8


def test_who_does_not_read_is_cut_off_without_filling_memory(grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    wide = lab.frame(lab.SETTINGS, 0, 0, struct.pack(">HI", 4, (1 << 31) - 1))
    wide += lab.frame(lab.WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 30)))
    hundred_megabytes = struct.pack("<Bd", 0x09, 100e6)
    with lab.served(limits=QUICK) as (echo, _), lab.RawClient(echo.bound) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(wide)
        before = _resident_bytes()
        client.call(1, b"\0" + struct.pack(">I", len(hundred_megabytes)) + hundred_megabytes, method="Zeros")
        with lab.RawClient(echo.bound, greets=False) as silent:
            silent.until_closed()
        with lab.RawClient(echo.bound) as other:
            assert other.is_alive(1)
        # The answer itself, and no second copy of it in frames.
        assert _resident_bytes() - before < 150e6
        client.until_closed()


def test_without_file_descriptors_accepting_waits(grpc_lab: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    lab = grpc_lab
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        assert client.is_alive(1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket()
        host, port = echo.bound.split(":")
        in_use = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 1, hard))
        fillers = list(_all_free_descriptors())
        try:
            waiting.connect((host, int(port)))
            waiting.sendall(lab.PREFACE + lab.frame(lab.SETTINGS))
            while not caplog.records:
                time.sleep(0.01)
            # The connections that there are go on, and the thread tries again now and then only.
            for stream in range(3, 1003, 2):
                assert client.is_alive(stream)
            time.sleep(0.5)
            assert 1 <= len([record for record in caplog.records if "can be accepted" in record.message]) < 20
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        waiting.settimeout(20)
        assert waiting.recv(9)
        waiting.close()


def _all_free_descriptors() -> Iterator[int]:
    with contextlib.suppress(OSError):
        while True:
            yield os.dup(0)


def test_an_answer_from_another_thread_wakes_the_sleeper(grpc_lab: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = grpc_lab
    with lab.served() as (echo, _), lab.RawClient(echo.bound) as client:
        monkeypatch.setattr(io_loop, "_IDLE_SECONDS", lab.PATIENCE_SECONDS * 2)
        monkeypatch.setattr(io_loop, "_BUSY_SECONDS", lab.PATIENCE_SECONDS * 2)
        for stream in range(1, 21, 2):
            client.call(stream, lab.echo_body(b"abc"), method="Wait")
            assert echo.waiting.acquire(timeout=20)
        # All of them are taken, so it sleeps, and it would for longer than this client waits.
        assert client.is_alive(21)
        echo.may_answer.set()
        assert client.answer(1).body == lab.echo_body(b"abc")
        monkeypatch.undo()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
