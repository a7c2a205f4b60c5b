"""`liftgate web`: runs the web front end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from liftgate.composition import Site
from liftgate.output import say


@click.command("web")
@click.option("--host", help="The address to listen on; default: [web] host.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, 0 for a free one; default: [web] port.")
@click.pass_obj
def command(config_path: Path | None, host: str | None, port: int | None) -> None:
    """Take photos from people, answer with labels, send their corrections to the bucket.

    Runs until SIGTERM, which lets running requests end.
    """
    from web.assembly import open_front_end
    from web.server import serve

    site = Site.load(config_path)
    given = {"host": host, "port": port}
    settings = site.settings.web.model_copy(update={name: value for name, value in given.items() if value is not None})
    front_end = partial(
        open_front_end,
        settings,
        registry=site.registry,
        trusted=site.trusted,
        model_server=site.front_end_model_server(),
        shadow_server=site.front_end_model_server(),
    )
    serve(settings, front_end, on_ready=lambda url: say(f"READY {url}"))
