"""What REST's readers of JSON values share: how a value is named and shown, and strings in both forms.

Its place in the flow: rest_input and rest_examples read values with it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, NoReturn

from serving.embedded_server.json_reader import encode_text
from serving.embedded_server.status import invalid_argument

_MAX_SHOWN_LENGTH = 256
_INDENT = "    "
_WORDS = {dict: "Object", list: "Array", str: "String", type(None): "Null", int: "Number", float: "Number"}


def type_word(value: Any) -> str:
    """Return RapidJSON's word for a value's kind: "Number", "True"."""
    return str(value) if isinstance(value, bool) else _WORDS[type(value)]


def shown(value: Any) -> str:
    """Return a value's JSON for a message, cut where it is long; the value may be of any size and depth."""
    text = ""
    for piece in _pieces(value):
        text += piece[: _MAX_SHOWN_LENGTH + 1]
        if len(text) > _MAX_SHOWN_LENGTH:
            return f"{text[:_MAX_SHOWN_LENGTH]}..."
    return text


def refuse(value: Any, why: str) -> NoReturn:
    """Raise the error that shows a value.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    raise invalid_argument(f"JSON Value: {shown(value)} {why}")


def is_base64(value: Any) -> bool:
    """Return whether a value is {"b64": "..."} and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def string_bytes(value: str | dict[str, Any]) -> bytes:
    """Return the bytes of a string, or of an object that `is_base64`.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if isinstance(value, str):
        return encode_text(value)
    # As in the real server white space and the padding do not count.
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def _pieces(value: Any) -> Iterator[str]:
    """Write a value as the real server's pretty writer does, piece by piece and without recursion."""
    opened: list[tuple[Iterator[Any], str]] = []
    yield from _opening(value, opened)
    while opened:
        members, closing = opened[-1]
        indent = "\n" + _INDENT * len(opened)
        for is_first, member in members:
            yield indent if is_first else f",{indent}"
            if closing == "}":
                name, member = member  # noqa: PLW2901
                yield f"{json.dumps(name, ensure_ascii=False)}: "
            before = len(opened)
            yield from _opening(member, opened)
            if len(opened) > before:
                break
        else:
            opened.pop()
            yield "\n" + _INDENT * len(opened) + closing


def _opening(value: Any, opened: list[tuple[Iterator[Any], str]]) -> Iterator[str]:
    if isinstance(value, list | dict) and value:
        members = value.items() if isinstance(value, dict) else value
        opened.append(
            ((((index == 0), member) for index, member in enumerate(members)), "}" if isinstance(value, dict) else "]")
        )
        yield "{" if isinstance(value, dict) else "["
    elif isinstance(value, str):
        # Of a long string the beginning is enough.
        yield json.dumps(value[: _MAX_SHOWN_LENGTH + 1], ensure_ascii=False)
    else:
        yield json.dumps(value)
