"""`liftgate completion SHELL`: the script that makes a shell complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    For bash: liftgate completion bash > ~/.local/share/bash-completion/completions/liftgate
    """
    from liftgate.cli import liftgate

    completion_class = get_completion_class(shell)
    assert completion_class is not None, shell
    click.echo(completion_class(liftgate, {}, "liftgate", "_LIFTGATE_COMPLETE").source())
