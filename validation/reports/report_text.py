"""How the report page writes names, shares, points and sizes: short, and harmless whatever they hold.

Its place in the flow: report_page.py gives these functions to the template as filters, and the
figures' modules use them. Jinja escapes what is HTML; this module shows what would stay invisible.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Needed to write some languages and emoji, so they stay."""

_MINUS = "\u2212"


def plain(text: str, limit: int = 120) -> str:
    """Return text from outside on one line: control and direction characters are spelled out, the rest is cut.

    A label with a right-to-left override or a line of 10,000 characters must neither turn the words
    around it nor push the page apart.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(_shown(character) for character in cut)


def percent(share: float, digits: int = 1) -> str:
    """Return 0.982 as "98.2%"."""
    return f"{share:.{digits}%}"


def points(difference: float, digits: int = 1) -> str:
    """Return 0.062 as "+6.2", in percentage points; what rounds to nothing has no sign."""
    return signed(100 * difference, digits)


def signed(value: float, digits: int = 4) -> str:
    """Return a difference with its sign, "+0.0120" or "−0.0120"; what rounds to nothing has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{_MINUS if value < 0 else '+'}{text}"


def bytes_text(count: float) -> str:
    """Return 41_943_040 as "41.9 MB", in powers of 1,000."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return "1 photo" or "1,200 photos"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Zl", "Zp") or (category.startswith("C") and character not in _JOINERS):
        return "\\n" if character == "\n" else f"\\u{ord(character):04x}"
    return character
