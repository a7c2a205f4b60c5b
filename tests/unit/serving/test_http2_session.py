"""The binding of nghttp2 and the session on it, without a socket."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
from types import ModuleType

import pytest

from serving.embedded_server import nghttp2_library as binding
from serving.embedded_server.http2_session import Http2Error, Http2Session
from serving.embedded_server.http2_stream import Http2Limits, Stream
from serving.embedded_server.nghttp2_library import FrameHeader, HeaderBlock, nghttp2_library
from serving.embedded_server.status import Code, StatusError

LIMITS = Http2Limits(
    max_streams=10, max_header_bytes=1000, max_body_bytes=100, prefix_bytes=5, paths_heard_whole={b"/test.Echo/Echo"}
)


@pytest.fixture
def session(grpc_lab: ModuleType) -> Http2Session:
    session = Http2Session(LIMITS)
    feed(session, grpc_lab.PREFACE + grpc_lab.frame(grpc_lab.SETTINGS))
    session.take_output()
    return session


def feed(session: Http2Session, content: bytes) -> list[Stream]:
    buffer = ctypes.create_string_buffer(content, len(content))
    return session.receive(ctypes.addressof(buffer), len(content))


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_SONAME", "libnghttp2-that-is-not-there.so")
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    with pytest.raises(StatusError, match="apt install libnghttp2-14") as caught:
        nghttp2_library.__wrapped__()
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_a_library_without_the_functions_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_SONAME", "libc.so.6")
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    with pytest.raises(StatusError, match="was not found"):
        nghttp2_library.__wrapped__()


def test_layouts_are_those_of_a_64_bit_c_compiler() -> None:
    assert ctypes.sizeof(FrameHeader) == 16
    assert (FrameHeader.stream_id.offset, FrameHeader.type.offset, FrameHeader.flags.offset) == (8, 12, 13)
    block = HeaderBlock([(b"name", b"value")])
    assert (block.count, ctypes.sizeof(block.array)) == (1, 40)


def test_a_request_is_news_when_it_is_complete(session: Http2Session, grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    assert feed(session, lab.headers(1, x_other="1")) == []
    assert feed(session, lab.frame(lab.DATA, 0, 1, b"12345678")) == []
    (stream,) = feed(session, lab.frame(lab.DATA, lab.END_STREAM, 1, b"9"))
    assert (stream.chunks, stream.received_bytes, stream.is_complete) == ([b"12345", b"678", b"9"], 9, True)
    assert stream.headers == {b":method": b"POST", b":path": b"/test.Echo/Echo", b"content-type": b"application/grpc"}


def test_other_requests_are_news_with_each_frame(session: Http2Session, grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    (stream,) = feed(session, lab.headers(1, "Talk"))
    assert not stream.is_complete
    assert feed(session, lab.frame(lab.DATA, 0, 1, b"abc")) == [stream]


def test_what_a_body_has_too_much_is_counted_and_not_kept(session: Http2Session, grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    feed(session, lab.headers(1) + lab.frame(lab.DATA, 0, 1, bytes(90)))
    (stream,) = feed(session, lab.frame(lab.DATA, 0, 1, bytes(20)))
    assert (stream.chunks, stream.received_bytes) == ([], 110)
    assert feed(session, lab.frame(lab.DATA, 0, 1, bytes(20))) == []


def test_headers_of_a_refused_request_do_not_mix_with_the_next(session: Http2Session, grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    assert feed(session, lab.headers(1, x_large="x" * 2000, grpc_timeout="1S")) == []
    (stream,) = feed(session, lab.headers(3) + lab.frame(lab.DATA, lab.END_STREAM, 3))
    assert b"grpc-timeout" not in stream.headers


def test_a_reset_closes_the_stream(session: Http2Session, grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    (stream,) = feed(session, lab.headers(1, flags=lab.END_HEADERS | lab.END_STREAM))
    feed(session, lab.frame(lab.RST_STREAM, 0, 1, struct.pack(">I", 8)))
    assert not stream.is_open
    assert session.streams == {}


def test_an_answer_is_headers_data_and_trailers_in_one_piece(session: Http2Session, grpc_lab: ModuleType) -> None:
    lab = grpc_lab
    (stream,) = feed(session, lab.headers(1, flags=lab.END_HEADERS | lab.END_STREAM))
    trailers = HeaderBlock([(b"grpc-status", b"0")])
    session.respond(stream, HeaderBlock([(b":status", b"200")]), body=b"the body", trailers=trailers)
    content = session.take_output()
    kinds = []
    while content:
        size = int.from_bytes(content[:3], "big")
        kinds.append((content[3], content[4] & lab.END_STREAM))
        content = content[9 + size :]
    assert kinds == [(lab.HEADERS, 0), (lab.DATA, 0), (lab.HEADERS, 1)]
    assert not stream.is_open


def test_what_is_not_http2_is_said_in_words() -> None:
    with pytest.raises(Http2Error, match="magic"):
        feed(Http2Session(LIMITS), b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")


def test_a_closed_session_has_closed_its_streams(session: Http2Session, grpc_lab: ModuleType) -> None:
    (stream,) = feed(session, grpc_lab.headers(1, flags=grpc_lab.END_HEADERS | grpc_lab.END_STREAM))
    session.close()
    session.close()
    assert not stream.is_open
