"""What a command prints: the result on stdout (text, or JSON with `--json`), the talk on stderr.

Its place in the flow: every verb ends with `print_result`; progress and remarks go through `say`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

from liftgate.plain_text import json_text, printable

json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)


def print_result(text: str, document: object, *, as_json: bool) -> None:
    """Print `text` for people, or `document` as indented JSON for programs."""
    try:
        if as_json:
            click.echo(json_text(document, encoding=_encoding(sys.stdout)))
        elif text:
            click.echo(printable(text, encoding=_encoding(sys.stdout)))
    except BrokenPipeError:
        # The reader went away (`liftgate history | head`). What was to be done is done: that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Print a remark on stderr."""
    click.echo(printable(text, encoding=_encoding(sys.stderr)), err=True)


def _encoding(stream: TextIO | None) -> str | None:
    # A process that was started with a closed stream has None there.
    return getattr(stream, "encoding", None)


def is_interactive() -> bool:
    """Return whether a person can be asked: both stdin and stderr are terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def table(rows: Sequence[tuple[str, ...]], *, header: tuple[str, ...]) -> str:
    """Return rows as aligned plain text; the same with and without a terminal."""
    everything = [header, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in everything
    ]
    return "\n".join(lines)
