"""How the demo talks: numbered steps, the commands as one would type them, figures, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass
class Narrator:
    """Prints the story on stdout; plain text when stdout is no terminal."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    _started: float = field(default_factory=time.monotonic)
    _step: int = 0
    _rows: list[tuple[str, str]] = field(default_factory=list)

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self.console.print(f"\n[bold cyan]{self._step}. {title}[/]  [dim]({self.elapsed_seconds:.0f} s)[/]")

    def say(self, text: str) -> None:
        """Explain."""
        self.console.print(f"   {text}", markup=False)

    def command(self, words: Sequence[str]) -> None:
        """Show a command as a person would type it."""
        shown = " ".join(f"'{word}'" if " " in word else word for word in words)
        self.console.print(f"   $ {shown}", style="bold", markup=False)

    @contextmanager
    def working(self) -> Iterator[Callable[[str], None]]:
        """Show a spinner at a terminal; what is yielded takes the newest line of progress."""
        with self.console.status("working …") as status:
            yield lambda line: status.update(f"[dim]{escape(line[:100])}[/]" if line else "working …")

    def output(self, text: str, *, last_lines: int = 12) -> None:
        """Show what a command printed."""
        lines = text.rstrip().splitlines()
        if len(lines) > last_lines:
            lines = [f"… {len(lines) - last_lines} lines …", *lines[-last_lines:]]
        for line in lines:
            self.console.print(f"     {line}", style="dim", markup=False)

    def figure(self, name: str, value: str) -> None:
        """State a figure that matters, and keep it for the table at the end."""
        self._rows.append((name, value))
        self.console.print(f"   [green]✓[/] {name}: [bold]{value}[/]")

    def refusal(self, name: str, message: str, *, exit_code: int) -> None:
        """Show that something was refused, with the message that a user sees."""
        self._rows.append((name, f"refused, exit code {exit_code}"))
        self.console.print(f"   [green]✓[/] {name}: refused with exit code {exit_code}")
        self.output(message)

    def summary(self) -> None:
        """Print all figures as one table."""
        table = Table(title=f"The story in {self.elapsed_seconds:.0f} seconds", title_justify="left", show_header=False)
        for row in self._rows:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._started
