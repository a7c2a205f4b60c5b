"""`liftgate model-server`: runs the embedded model server with TensorFlow Serving's own flags."""

from __future__ import annotations

import click


@click.command(
    "model-server", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, flags: tuple[str, ...]) -> None:
    """Run the embedded model server; FLAGS are those of tensorflow_model_server.

    It needs no settings file. `liftgate model-server --help` lists the flags.
    """
    from serving.embedded_server.__main__ import main

    context.exit(main(list(flags)))
