"""A request's JSON, read as TensorFlow Serving's reader (RapidJSON) reads it.

Its place in the flow: the first step of a REST request with a body. Python's own scanner, written
in C, reads whatever it reads in the same way. What it cannot do is done by an iterative reader:
nesting without end, "Inf", numbers beyond a double, and the words and places of the errors.

Of two members with one name the first counts, and text after the closing brace is ignored, as in
the real server. A byte that is not UTF-8 is kept in its string as it is.
"""

from __future__ import annotations

import json
import re
from json.decoder import JSONDecoder, scanstring  # type: ignore[attr-defined]
from typing import Any

from serving.embedded_server.status import Code, StatusError, invalid_argument

MAX_ITERATIVE_BYTES = 4 * 1024 * 1024
"""The iterative reader takes a microsecond for each value: no larger body is given to it."""

_MAX_PARSED_BYTES = 2 * 1024**3
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]*)?(?P<exponent>[eE][+-]?[0-9]*)?", re.ASCII)
_HUGE_EXPONENT = re.compile(r"[eE]\+?0*[1-9][0-9][0-9]", re.ASCII)
_WORDS = {
    **{"true": True, "false": False, "null": None, "NaN": float("nan"), "-NaN": float("nan")},
    **{sign + word: float(sign + "inf") for sign in ("", "-") for word in ("Infinity", "Inf")},
}
_WORD = re.compile("|".join(sorted(_WORDS, key=len, reverse=True)))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json(body: bytes | bytearray) -> Any:
    """Return the first value of a body.

    Raises:
        StatusError: INVALID_ARGUMENT: it is not JSON; RESOURCE_EXHAUSTED: read, it would take too much memory.
    """
    _check_size(body)
    if body.startswith(_BYTE_ORDER_MARK):
        body = body[len(_BYTE_ORDER_MARK) :]
    text = body.decode("utf-8", errors="surrogateescape")
    size_bytes = len(body)
    del body
    match = _SPACE.match(text)
    start = match.end() if match else 0
    if start == len(text):
        where = f". at offset: {start}" if start else ""
        raise invalid_argument(f"JSON Parse error: The document is empty{where}")
    if size_bytes > MAX_ITERATIVE_BYTES:
        return _read_large(text, start)
    try:
        if not _HUGE_EXPONENT.search(text):
            return _DECODER.scan_once(text, start)[0]
    except (StopIteration, ValueError, RecursionError):
        pass
    return _IterativeReader(text).read(start)


def encode_text(text: str) -> bytes:
    """Return the bytes of a string of `read_json`.

    Raises:
        StatusError: INVALID_ARGUMENT: half of a surrogate pair.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        pass
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from None


def _check_size(body: bytes | bytearray) -> None:
    """Refuse what would take gigabytes: "[]," is three bytes on the wire and 64 in memory."""
    if len(body) < MAX_ITERATIVE_BYTES:
        return
    values = body.count(b",")
    containers = body.count(b"[") + body.count(b"{")
    size = 2 * len(body) + 40 * values + 64 * containers
    if size > _MAX_PARSED_BYTES:
        raise StatusError(
            Code.RESOURCE_EXHAUSTED,
            f"The JSON of {len(body)} bytes would take {size} bytes in memory, and {_MAX_PARSED_BYTES} are allowed; "
            "send smaller batches, or use gRPC",
        )


def _read_large(text: str, start: int) -> Any:
    try:
        return _DECODER.scan_once(text, start)[0]
    except json.JSONDecodeError as error:
        raise _error("Invalid value.", text, error.pos) from None
    except StopIteration as error:
        raise _error("Invalid value.", text, error.value) from None
    except (ValueError, RecursionError) as error:
        raise invalid_argument(
            f"JSON Parse error: a body of more than {MAX_ITERATIVE_BYTES} bytes is not read so deep ({error})"
        ) from None


def _first_wins(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    return found if len(found) == len(members) else dict(reversed(members))


_DECODER: Any = JSONDecoder(object_pairs_hook=_first_wins)


def _error(what: str, text: str, position: int) -> StatusError:
    # Characters are counted here, bytes there.
    offset = len(text[:position].encode("utf-8", errors="surrogateescape"))
    return invalid_argument(f"JSON Parse error: {what} at offset: {offset}")


class _IterativeReader:
    """Reads without recursion: the open containers are a list."""

    def __init__(self, text: str) -> None:
        self._text = text
        # Open containers, and for an object the name whose value comes next.
        self._open: list[tuple[list[Any] | dict[str, Any], str]] = []

    def read(self, position: int) -> Any:
        """Return the value that begins at `position`."""
        while True:
            value, position, is_closed = self._begin_value(position)
            while is_closed:
                if not self._open:
                    return value
                position, is_closed = self._put(value, position)
                if is_closed:
                    value, _ = self._open.pop()

    def _begin_value(self, position: int) -> tuple[Any, int, bool]:
        """Read a plain value or an empty container, or open a container and stop before its first value."""
        text = self._text
        character = text[position : position + 1]
        if character == "[":
            position = self._skip(position + 1)
            if text[position : position + 1] == "]":
                return [], position + 1, True
            self._open.append(([], ""))
            return None, position, False
        if character == "{":
            position = self._skip(position + 1)
            if text[position : position + 1] == "}":
                return {}, position + 1, True
            name, position = self._name(position)
            self._open.append(({}, name))
            return None, position, False
        value, position = self._plain(position, character)
        return value, position, True

    def _put(self, value: Any, position: int) -> tuple[int, bool]:
        """Put a value where it belongs; return whether its container ends after it."""
        container, name = self._open[-1]
        position = self._skip(position)
        character = self._text[position : position + 1]
        if isinstance(container, list):
            container.append(value)
            if character == ",":
                return self._skip(position + 1), False
            if character == "]":
                return position + 1, True
            raise _error("Missing a comma or ] after an array element.", self._text, position)
        container.setdefault(name, value)
        if character == ",":
            name, position = self._name(self._skip(position + 1))
            self._open[-1] = (container, name)
            return position, False
        if character == "}":
            return position + 1, True
        raise _error("Missing a comma or } after an object member.", self._text, position)

    def _name(self, position: int) -> tuple[str, int]:
        if self._text[position : position + 1] != '"':
            raise _error("Missing a name for object member.", self._text, position)
        name, position = self._string(position)
        position = self._skip(position)
        if self._text[position : position + 1] != ":":
            raise _error("Missing a colon after a name of object member.", self._text, position)
        return name, self._skip(position + 1)

    def _plain(self, position: int, character: str) -> tuple[Any, int]:
        if character == '"':
            return self._string(position)
        word = _WORD.match(self._text, position)
        if word is not None:
            return _WORDS[word[0]], word.end()
        return self._number(position)

    def _number(self, position: int) -> tuple[int | float, int]:
        match = _NUMBER.match(self._text, position)
        if match is None:
            raise _error("Invalid value.", self._text, position)
        if match["fraction"] == ".":
            raise _error("Miss fraction part in number.", self._text, match.end("fraction"))
        if match["exponent"] and not match["exponent"][-1].isdigit():
            raise _error("Miss exponent in number.", self._text, match.end())
        is_integer = match["fraction"] is None and match["exponent"] is None
        value = float(match[0])
        if value in (float("inf"), float("-inf")):
            raise _error("Number too big to be stored in double.", self._text, position)
        return (int(match[0]) if is_integer else value), match.end()

    def _string(self, position: int) -> tuple[str, int]:
        try:
            found: tuple[str, int] = scanstring(self._text, position + 1, True)
        except json.JSONDecodeError as error:
            raise _error(_string_error(error.msg), self._text, error.pos) from None
        return found

    def _skip(self, position: int) -> int:
        match = _SPACE.match(self._text, position)
        return match.end() if match else position


def _string_error(message: str) -> str:
    if message.startswith("Unterminated"):
        return "Missing a closing quotation mark in string."
    if message.startswith("Invalid \\u") or message.startswith("Invalid \\\\u"):
        return "Incorrect hex digit after \\u escape in string."
    if message.startswith("Invalid control"):
        return "Invalid encoding in string."
    return "Invalid escape character in string."
