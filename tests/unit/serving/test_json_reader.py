"""JSON as RapidJSON reads it: by the quick scanner where that one does the same, else without recursion."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.embedded_server import json_reader
from serving.embedded_server.json_reader import MAX_ITERATIVE_BYTES, encode_text, read_json
from serving.embedded_server.status import Code, StatusError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
# "Inf" makes the quick scanner step back.
FOR_THE_ITERATIVE_READER = b', "more": Inf}'


def error_of(body: bytes) -> str:
    with pytest.raises(StatusError) as caught:
        read_json(body)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


class TestValues:
    @given(VALUES, st.booleans(), st.sampled_from([None, 0, 2]))
    def test_both_readers_read_the_same(self, value: object, is_ascii: bool, indent: int | None) -> None:
        text = json.dumps({"value": value}, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
        assert read_json(text)["value"] == value
        assert read_json(b"[" + text + b", Inf]")[0] == {"value": value}

    def test_infinities_and_nan_with_their_signs(self) -> None:
        found = read_json(b'{"x": [Inf, -Inf, Infinity, -Infinity, NaN, -NaN]}')["x"]
        assert found[:4] == [math.inf, -math.inf, math.inf, -math.inf]
        assert all(math.isnan(value) for value in found[4:])

    @pytest.mark.parametrize("suffix", [b"}", FOR_THE_ITERATIVE_READER])
    def test_of_two_members_with_one_name_the_first_counts(self, suffix: bytes) -> None:
        assert read_json(b'{"a": 1, "b": 2, "a": 3' + suffix)["a"] == 1

    @pytest.mark.parametrize("body", [b'{"a": 1} and more', b'\xef\xbb\xbf \n{"a": 1}{"b": 2}', b'{"a": 1}\x00'])
    def test_text_after_the_closing_brace_is_ignored(self, body: bytes) -> None:
        assert read_json(body) == {"a": 1}

    def test_a_hundred_thousand_brackets_in_a_key_that_nobody_reads_are_accepted(self) -> None:
        depth = 100_000
        body = b'{"ignored": ' + b"[" * depth + b"]" * depth + b', "instances": [1]}'
        assert read_json(body)["instances"] == [1]

    def test_bytes_that_are_not_utf_8_stay_what_they_are(self) -> None:
        assert encode_text(read_json(b'{"a": "\xff\xfe\xc3\xa9"}')["a"]) == b"\xff\xfe\xc3\xa9"

    def test_a_pair_of_surrogates_is_a_character_and_half_of_one_is_refused(self) -> None:
        assert encode_text(read_json(rb'["\ud83d\ude00"]')[0]) == "😀".encode()
        with pytest.raises(StatusError, match="The surrogate pair in string is invalid"):
            encode_text(read_json(rb'["\ud83d"]')[0])

    def test_integers_of_more_than_64_bits_are_read(self) -> None:
        assert read_json(b"[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]
        assert float(read_json(b"[1" + b"0" * 300 + b"]")[0]) == 1e300


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "The document is empty"),
            (b" \n", "The document is empty. at offset: 2"),
            (b"x", "Invalid value. at offset: 0"),
            (b"{", "Missing a name for object member. at offset: 1"),
            (b"{'a': 1}", "Missing a name for object member. at offset: 1"),
            (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
            (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
            (b'{"a": 1 "b"', "Missing a comma or } after an object member. at offset: 8"),
            (b'{"a":', "Invalid value. at offset: 5"),
            (b"[1, ]", "Invalid value. at offset: 4"),
            (b"[1 2]", "Missing a comma or ] after an array element. at offset: 3"),
            (b"[01]", "Missing a comma or ] after an array element. at offset: 2"),
            (b"[+1]", "Invalid value. at offset: 1"),
            (b"[1.]", "Miss fraction part in number. at offset: 3"),
            (b"[1e+]", "Miss exponent in number. at offset: 4"),
            (b"[1e400]", "Number too big to be stored in double. at offset: 1"),
            (b"[-1" + b"0" * 5000 + b"]", "Number too big to be stored in double. at offset: 1"),
            (b'["abc', "Missing a closing quotation mark in string."),
            (b'["\\x"]', "Invalid escape character in string."),
            (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string."),
            (b'["\n"]', "Invalid encoding in string."),
            ('["é", x]'.encode(), "Invalid value. at offset: 7"),
            (b"\xff\xff", "Invalid value. at offset: 0"),
            (b"[[[[" * 25_000, "Invalid value. at offset: 100000"),
        ],
    )
    def test_what_is_no_json_is_refused_in_the_real_servers_words(self, body: bytes, message: str) -> None:
        found = error_of(body)
        assert found.startswith(f"JSON Parse error: {message}")

    def test_a_large_body_is_never_read_step_by_step(self) -> None:
        padding = b" " * MAX_ITERATIVE_BYTES
        assert "is not read so deep" in error_of(padding + b"[" * 100_000)
        assert "Invalid value. at offset:" in error_of(padding + b'{"a": Inf}')

    def test_what_would_take_gigabytes_is_refused_before_it_is_read(self) -> None:
        with pytest.raises(StatusError, match="bytes in memory") as caught:
            read_json(b"[" + b"[]," * 30_000_000)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED

    @given(st.binary(max_size=200))
    def test_no_bytes_do_harm(self, body: bytes) -> None:
        try:
            read_json(body)
        except StatusError as error:
            assert error.code is Code.INVALID_ARGUMENT  # noqa: PT017

    @given(st.text(alphabet='[]{}",:0123456789.eE+-tfn \\uIaN', max_size=40))
    def test_the_quick_scanner_never_accepts_what_the_other_refuses(self, inner: str) -> None:
        text = f"[{inner}"
        try:
            quick = read_json(text.encode())
        except StatusError:
            quick = "refused"
        try:
            slow = json_reader._IterativeReader(text).read(0)
        except StatusError:
            slow = "refused"
        assert repr(quick) == repr(slow)
