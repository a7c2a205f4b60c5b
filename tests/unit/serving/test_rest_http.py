"""HTTP requests out of bytes: in any pieces, and refused where they can be read in two ways."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.embedded_server.http_request import HttpError, HttpLimits, HttpRequest, RequestReader

LIMITS = HttpLimits(target=100, headers=500, body=1000)
POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\n"


def requests_of(*pieces: bytes, limits: HttpLimits = LIMITS) -> list[HttpRequest]:
    reader, found = RequestReader(limits), []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next_request()) is not None:
            found.append(request)
    return found


def refusal_of(content: bytes, limits: HttpLimits = LIMITS) -> int:
    with pytest.raises(HttpError) as caught:
        requests_of(content, limits=limits)
    return caught.value.status


class TestWhole:
    def test_head_and_body(self) -> None:
        (request,) = requests_of(POST + b"Content-Length: 3\r\nX-A:  b \r\n\r\nabc")
        assert (request.method, request.target, request.body) == ("POST", "/v1/models/m:predict", b"abc")
        assert request.headers == {"host": "a", "content-length": "3", "x-a": "b"}
        assert request.is_keep_alive

    def test_several_requests_that_came_together_are_several_requests(self) -> None:
        one = POST + b"Content-Length: 1\r\n\r\n"
        found = requests_of(one + b"1" + one + b"2" + b"\r\n" + b"GET / HTTP/1.1\r\n\r\n")
        assert [bytes(request.body) for request in found] == [b"1", b"2", b""]

    def test_chunks_are_put_together_and_trailers_dropped(self) -> None:
        chunks = b"4\r\nabcd\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        found = requests_of(POST + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks + b"GET / HTTP/1.1\r\n\r\n")
        assert [bytes(request.body) for request in found] == [b"abcd0123456789", b""]

    @given(cuts=st.lists(st.integers(0, 200), max_size=8))
    def test_pieces_do_not_matter(self, cuts: list[int]) -> None:
        content = (
            POST
            + b"Content-Length: 3\r\n\r\nabc"
            + POST
            + b"Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
            + b"GET /v1/models/m HTTP/1.0\r\n\r\n"
        )
        places = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
        pieces = [content[start:end] for start, end in itertools.pairwise(places)]
        found = requests_of(*pieces)
        assert [bytes(request.body) for request in found] == [b"abc", b"xyz", b""]
        assert [request.is_keep_alive for request in found] == [True, True, False]

    @pytest.mark.parametrize(
        ("version", "connection", "is_keep_alive"),
        [
            (b"1.1", b"", True),
            (b"1.1", b"Connection: Close\r\n", False),
            (b"1.1", b"Connection: x, close\r\n", False),
            (b"1.0", b"", False),
            (b"1.0", b"Connection: keep-alive\r\n", True),
        ],
    )
    def test_who_wants_the_connection_kept(self, version: bytes, connection: bytes, is_keep_alive: bool) -> None:
        (request,) = requests_of(b"GET / HTTP/" + version + b"\r\n" + connection + b"\r\n")
        assert request.is_keep_alive is is_keep_alive

    def test_a_proxys_form_of_the_address(self) -> None:
        (request,) = requests_of(b"GET http://host:1/v1/models/m?x HTTP/1.1\r\n\r\n")
        assert request.target == "/v1/models/m?x"

    def test_a_client_that_asks_first_is_known(self) -> None:
        reader = RequestReader(LIMITS)
        reader.feed(POST + b"Content-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
        assert reader.next_request() is None
        assert reader.is_continue_wanted
        reader.feed(b"abc")
        assert reader.next_request() is not None
        assert not reader.is_continue_wanted


class TestRefused:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
            (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
            (b"Content-Length: 3, 3\r\n", 400),
            (b"Content-Length: -1\r\n", 400),
            (b"Content-Length: +3\r\n", 400),
            (b"Content-Length: 0x3\r\n", 400),
            (b"Content-Length:\r\n", 400),
            (b"Content-Length: 3 3\r\n", 400),
            ("Content-Length: ３\r\n".encode(), 400),
            (b"Content-Length: 99999999999999999999999999\r\n", 400),
            (b"Content-Length: 1001\r\n", 413),
            (b"Content-Length: 999999999999999999\r\n", 413),
            (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Transfer-Encoding: chunked, identity\r\n", 501),
            (b"Transfer-Encoding: gzip, chunked\r\n", 501),
            (b"Transfer-Encoding: \x0bchunked\r\n", 501),
            (b"Content-Length : 3\r\n", 400),
            (b" Content-Length: 3\r\n", 400),
            (b"X-A: 1\r\n folded\r\n", 400),
            (b"X-A: 1\x00\r\n", 400),
            (b"X-A: 1\rX-B: 2\r\n", 400),
            (b"X-A: 1\nX-B: 2\r\n", 400),
            (b"no colon\r\n", 400),
            (b": no name\r\n", 400),
            (b"X\xc3\xa4: 1\r\n", 400),
            (b"Host: b\r\n", 400),
            (b"Expect: tea\r\nContent-Length: 1\r\n", 417),
            (b"X: " + b"y" * 600 + b"\r\n", 431),
        ],
    )
    def test_headers(self, headers: bytes, status: int) -> None:
        assert refusal_of(POST + headers + b"\r\nabc") == status

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"GET /", 400),
            (b"GET  / HTTP/1.1", 400),
            (b"GET / HTTP/1.1 ", 400),
            (b"G\x00T / HTTP/1.1", 400),
            (b"GET /a\x00b HTTP/1.1", 400),
            (b"GET /a b HTTP/1.1", 400),
            ("GET /é HTTP/1.1".encode(), 400),
            (b"GET / HTTP/1.x", 400),
            (b"GET / http/1.1", 400),
            (b"PRI * HTTP/2.0", 505),
            (b"\x16\x03\x01\x02", 400),
            (b"GET /" + b"a" * 300 + b" HTTP/1.1", 414),
        ],
    )
    def test_first_lines(self, line: bytes, status: int) -> None:
        assert refusal_of(line + b"\r\nHost: a\r\n\r\n") == status

    def test_an_address_or_head_that_never_ends_is_refused_before_it_ends(self) -> None:
        assert refusal_of(b"GET /" + b"a" * 300) == 414
        assert refusal_of(POST + b"X: " + b"y" * 600) == 431

    @pytest.mark.parametrize("content", [b"GET / HTTP/1.1\nHost: a\n\n", POST + b"X: y\n\n"])
    def test_lines_without_carriage_return_are_refused_at_once(self, content: bytes) -> None:
        assert refusal_of(content) == 400

    @pytest.mark.parametrize(
        ("chunks", "status"),
        [
            (b"x\r\n", 400),
            (b"-1\r\n", 400),
            (b"0x1\r\na\r\n", 400),
            (b" 1\r\na\r\n", 400),
            (b"1\r\nab\r\n", 400),
            (b"3e9\r\n", 413),
            (b"ffffffffffffffff\r\n", 400),
            (b"fffffffffffffff\r\n", 413),
            (b"200\r\n" + b"a" * 512 + b"\r\n200\r\n", 413),
            (b"1" * 2000, 400),
            (b"1;" + b"x" * 2000, 400),
            (b"0\r\n" + b"T: x\r\n" * 500, 431),
        ],
    )
    def test_chunks(self, chunks: bytes, status: int) -> None:
        assert refusal_of(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) == status

    def test_http_1_0_has_no_chunks(self) -> None:
        assert refusal_of(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 400

    @given(st.binary(max_size=300))
    def test_no_bytes_do_harm(self, content: bytes) -> None:
        for start in (b"", POST, POST + b"Transfer-Encoding: chunked\r\n\r\n"):
            try:
                requests_of(start + content)
            except HttpError as error:
                assert error.status in (400, 413, 414, 417, 431, 501, 505)  # noqa: PT017
