"""The `liftgate` command: finds the verb, imports only that verb, and turns errors into exit codes.

Its place in the flow: the edge of every process that a person or a unit starts. Errors that
Liftgate raises on purpose are printed as one message on stderr; nothing else catches them.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click

from liftgate import __version__

VERBS = {
    "agent": ("liftgate.commands.agent", "Make this serving host serve what the newest release says."),
    "approve": ("liftgate.commands.approve", "Sign that a better candidate may be promoted."),
    "approvals": ("liftgate.commands.approvals", "Show who approved a run, and what is missing."),
    "break-glass": ("liftgate.commands.break_glass", "Serve a run in an emergency, past the gate and the approvers."),
    "budget": ("liftgate.commands.budget", "Show how often a holdout may still decide."),
    "completion": ("liftgate.commands.completion", "Print the completion script for a shell."),
    "data": ("liftgate.commands.data", "Measure the inputs of a training; look at what its model sees."),
    "dataset": ("liftgate.commands.dataset", "Build and copy training shards; freeze a holdout."),
    "demo": ("liftgate.commands.demo", "Run the whole story on this machine."),
    "doctor": ("liftgate.commands.doctor", "Check this machine and say what is missing."),
    "evaluate": ("liftgate.commands.evaluate", "Judge the newest checkpoint of a run while it trains on."),
    "history": ("liftgate.commands.history", "Show what was released when, by whom and why."),
    "keys": ("liftgate.commands.keys", "Create, show and rotate signing keys."),
    "model-server": ("liftgate.commands.model_server", "Run the embedded model server."),
    "promote": ("liftgate.commands.promote", "Push an approved run and create the next release."),
    "reject": ("liftgate.commands.reject", "Sign that a candidate must not be promoted."),
    "revoke": ("liftgate.commands.revoke", "Take back your approval or rejection."),
    "rollback": ("liftgate.commands.rollback", "Create a release that names an earlier version."),
    "runs": ("liftgate.commands.runs", "List, show, compare and reproduce runs."),
    "status": ("liftgate.commands.status", "Show the newest release and what each host says of it."),
    "tensorboard": ("liftgate.commands.tensorboard", "Show the curves of runs, wherever they go on."),
    "trace": ("liftgate.commands.trace", "Show where a run, version or release came from."),
    "train": ("liftgate.commands.train", "Train a model on this machine or on the hosts of an inventory."),
    "validate": ("liftgate.commands.validate", "Compare a run with the served champion."),
    "web": ("liftgate.commands.web", "Run the web front end."),
}
"""Each verb's module, which has a click command named `command`, and its line in `--help`."""

EXTRAS = {
    "serving": ("grpc", "numpy", "PIL"),
    "web": ("flask", "flask_wtf", "sqlalchemy", "gunicorn", "grpc", "numpy", "PIL"),
    "validation": ("scipy", "sklearn", "jinja2", "grpc", "numpy", "PIL"),
    "training": (
        "tensorflow",
        "keras",
        "tensorboard",
        "ansible",
        "ansible_runner",
        "paramiko",
        "scipy",
        "numpy",
        "PIL",
    ),
    "pkcs11": ("pkcs11",),
    "cleanlab": ("cleanlab",),
    "embedded": ("tensorflow", "numpy", "google_crc32c", "ml_dtypes"),
}
"""What `pip install 'liftgate[EXTRA]'` brings: top-level modules that a verb may find missing."""

SETTINGS_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130
INTERNAL_ERROR_EXIT_CODE = 70
_MESSAGE_CHARACTERS = 4000


class _LazyGroup(click.Group):
    """A group that imports a verb's module only when that verb runs: `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(VERBS.items())])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": None, "max_content_width": 100},
    epilog="Exit codes and the settings file are described in docs/command-line.md.",
)
@click.version_option(__version__, prog_name="liftgate")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The settings file; default: $LIFTGATE_CONFIG, else ./liftgate.toml.",
)
@click.pass_context
def liftgate(context: click.Context, config_path: Path | None) -> None:
    """Train on your own GPUs, let through only what is shown to be better, serve it from the cloud."""
    context.obj = config_path


def main() -> None:
    """Run the command line and exit."""
    try:
        sys.exit(liftgate.main(prog_name="liftgate", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("liftgate: interrupted.", err=True)
        sys.exit(INTERRUPTED_EXIT_CODE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`liftgate history | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the process's edge: no traceback for a person
        sys.exit(_report(error))


def _extra_of(module: str) -> str:
    """Return the extra that brings a module, '' for a module that none of them brings."""
    package = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if package in modules), "")


def _report(error: Exception) -> int:
    from artifact_sync.errors import LiftgateError
    from liftgate.plain_text import one_line

    if isinstance(error, LiftgateError):
        # Names in it may come from a bucket, an archive or a disk: a terminal must not obey them.
        click.echo(
            "\n".join(one_line(line, most=_MESSAGE_CHARACTERS) for line in f"liftgate: {error}".split("\n")), err=True
        )
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and (extra := _extra_of(error.name or "")):
        click.echo(f"liftgate: this verb needs {error.name}. Install it: pip install 'liftgate[{extra}]'", err=True)
        return SETTINGS_EXIT_CODE
    if os.environ.get("LIFTGATE_TRACEBACK"):
        raise error
    click.echo(
        f"liftgate: internal error: {type(error).__name__}: {error}\n"
        "This is a defect of Liftgate. Run again with LIFTGATE_TRACEBACK=1 and report what it prints.",
        err=True,
    )
    return INTERNAL_ERROR_EXIT_CODE
