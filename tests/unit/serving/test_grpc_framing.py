from __future__ import annotations

import gzip
from urllib.parse import unquote

import pytest

from serving.embedded_server import grpc_framing as framing
from serving.embedded_server.status import Code, StatusError

ANY = 1 << 32
GZIP = b"gzip"


@pytest.mark.parametrize("cuts", [(), (1,), (4,), (5,), (6,), (2, 4, 8)])
def test_a_message_comes_out_as_it_went_in_wherever_the_network_cut_it(cuts: tuple[int, ...]) -> None:
    body = framing.framed(b"twelve bytes")
    pieces = [body[start:end] for start, end in zip((0, *cuts), (*cuts, len(body)), strict=True)]
    assert framing.only_message(pieces, max_bytes=ANY) == (False, b"twelve bytes")


def test_messages_of_a_stream_come_out_one_after_another() -> None:
    body = framing.framed(b"one") + framing.framed(b"") + framing.framed(b"two")[:-1]
    assert framing.first_message([body], max_bytes=ANY) == (False, b"one", body[8:])
    assert framing.first_message([body[8:]], max_bytes=ANY) == (False, b"", body[13:])
    assert framing.first_message([body[13:]], max_bytes=ANY) is None
    assert framing.first_message([], max_bytes=ANY) is None


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ([], Code.INTERNAL, "No payload"),
        ([b"\0\0\0"], Code.INTERNAL, "ends before"),
        ([b"\0\0\0\0\5abcd"], Code.INTERNAL, "ends before"),
        ([b"\2\0\0\0\1a"], Code.INTERNAL, "first byte of a message is 2"),
        ([framing.framed(b"a") * 2], Code.UNIMPLEMENTED, "takes one message"),
        ([b"\0\0\1\0\0"], Code.RESOURCE_EXHAUSTED, r"larger than max \(65536 vs. 1000\)"),
    ],
)
def test_what_is_not_one_message_is_refused(body: list[bytes], code: Code, words: str) -> None:
    with pytest.raises(StatusError, match=words) as caught:
        framing.only_message(body, max_bytes=1000)
    assert caught.value.code is code


def test_gzip_is_inflated_up_to_a_limit() -> None:
    packed = gzip.compress(bytes(1000))
    assert framing.inflated(packed, encoding=GZIP, max_bytes=1001) == bytes(1000)
    with pytest.raises(StatusError, match="more than 999 bytes") as caught:
        framing.inflated(packed, encoding=GZIP, max_bytes=999)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(1 << 26))
    with pytest.raises(StatusError, match="more than 1024 bytes"):
        framing.inflated(bomb, encoding=GZIP, max_bytes=1024)


@pytest.mark.parametrize(
    ("message", "encoding", "words"),
    [
        (gzip.compress(b"abc", mtime=0)[:-4], GZIP, "cut off"),
        (b"", GZIP, "cut off"),
        (b"no gzip at all", GZIP, "is not gzip"),
        (b"abc", b"identity", "Compressed flag set with identity encoding"),
    ],
)
def test_what_cannot_be_inflated_is_refused(message: bytes, encoding: bytes, words: str) -> None:
    with pytest.raises(StatusError, match=words) as caught:
        framing.inflated(message, encoding=encoding, max_bytes=1000)
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        (b"0n", 0.0),
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"99999999S", 99999999.0),
        (b"1500m", 1.5),
        (b"20u", 2e-5),
        (b"3n", 3e-9),
    ],
)
def test_timeouts(header: bytes | None, seconds: float | None) -> None:
    assert framing.timeout_seconds(header) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("header", [b"", b"S", b"10", b"-1S", b"1.5S", b"123456789S", b"1s", "٣S".encode()])
def test_a_timeout_of_another_form_is_refused(header: bytes) -> None:
    with pytest.raises(StatusError, match="Malformed grpc-timeout"):
        framing.timeout_seconds(header)


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"Application/gRPC", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/json", False),
        (b"", False),
        (None, False),
    ],
)
def test_content_types(content_type: bytes | None, is_grpc: bool) -> None:
    assert framing.is_grpc(content_type) is is_grpc


@pytest.mark.parametrize(
    "text", ["", "plain ASCII, ~ and }", "100 % sure", "line\nbreak\ttab\0", "Größe ≥ 1 🙂", "\x7f"]
)
def test_messages_survive_percent_encoding_as_printable_ascii(text: str) -> None:
    encoded = framing.percent_encoded(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode("ascii")) == text


def test_half_a_surrogate_does_no_harm() -> None:
    assert framing.percent_encoded("\ud800") == b"?"


def test_an_error_becomes_two_header_fields() -> None:
    fields = framing.status_fields(StatusError(Code.NOT_FOUND, "no\nmodel"))
    assert fields == [(b"grpc-status", b"5"), (b"grpc-message", b"no%0Amodel")]
    assert framing.status_fields(StatusError(Code.INTERNAL, "")) == [(b"grpc-status", b"13")]


def test_long_messages_are_cut_as_the_real_server_cuts_them() -> None:
    assert framing.cut("x" * 1024) == "x" * 1024
    assert framing.cut("x" * 1025) == "x" * 1024 + "...TRUNCATED"
