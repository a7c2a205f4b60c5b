"""Texts that people wrote, shown so that they cannot pass for something else.

Its place in the flow: every verb that prints a name or a reason out of a record puts it through here. A
record may be forged, old, or made by another program: what a terminal would obey is spelled out, and a line
end does not start a line that looks like Liftgate's own.
"""

from __future__ import annotations

import json
import unicodedata

MOST_CHARACTERS = 600
"""A longer text is cut where people read it; `--json` has all of it."""

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")


def one_line(text: str, *, most: int = MOST_CHARACTERS) -> str:
    """Return a text on one line, line ends and control characters spelled out."""
    return _cut("".join(map(_spelled, text)), most=most, whole=len(text))


def quoted(text: str, *, indent: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text whose further lines begin with `indent` and a bar, control characters spelled out."""
    lines = _cut(text, most=most, whole=len(text)).split("\n")
    return f"\n{indent}| ".join("".join(map(_spelled, line)) for line in lines)


def json_text(document: object, *, encoding: str | None) -> str:
    """Return indented JSON in which nothing but line ends and printable characters stands as itself."""
    is_utf8 = (encoding or "utf-8").lower().replace("-", "") == "utf8"
    text = json.dumps(document, indent=2, ensure_ascii=not is_utf8, default=str)
    return "".join(char if char == "\n" or unicodedata.category(char)[0] != "C" else _escaped(char) for char in text)


def printable(text: str, *, encoding: str | None) -> str:
    """Return a text that a stream of that encoding takes: what it cannot hold is spelled out."""
    name = encoding or "utf-8"
    return text.encode(name, errors="backslashreplace").decode(name)


def _cut(text: str, *, most: int, whole: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({whole:,} characters; --json shows all)"


def _escaped(char: str) -> str:
    # Joiners too: a program reads the same text from the escape.
    return json.dumps(char)[1:-1]


def _spelled(char: str) -> str:
    # Cf turns text around or hides in it; but scripts and emoji need the joiners and marks of direction.
    category = unicodedata.category(char)
    if char == " " or char in _JOINERS or category[0] not in "CZ":
        return char
    if category == "Zs":
        return " "
    return char.encode("unicode_escape").decode("ascii")
