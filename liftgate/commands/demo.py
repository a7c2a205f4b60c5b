"""`liftgate demo`: the whole story on this machine, with the parts that production uses."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click


@click.command("demo")
@click.option("--store", type=click.Choice(["dir", "s3"]), default="dir", show_default=True,
              help="A directory for the bucket, or a real S3 server (SeaweedFS) that is started for it.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the front end running at the end, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The front end's port; default: a free one.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(".demo"), show_default=True,
              help="Where both sites lie; it is removed first.")  # fmt: skip
def command(store: str, keep: bool, port: int, folder: Path) -> None:
    """Train, judge, approve, promote, reload under load, refuse, correct, roll back: in about two minutes."""
    from liftgate.demo.images import default_cache, fetch_images
    from liftgate.demo.narration import Narrator
    from liftgate.demo.stage import run_demo

    # Ended by SIGTERM, it takes the processes that it started with it, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    narrator = Narrator()
    images = fetch_images(default_cache(), say=narrator.say)
    run_demo(folder=folder.absolute(), images=images, is_s3=store == "s3", is_kept=keep, port=port, narrator=narrator)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
