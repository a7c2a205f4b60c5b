"""`liftgate tensorboard`: shows the curves of runs, of this machine or of the host on which a run goes on."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import NotFoundError, SettingsError
from artifact_sync.run_folder import RunFolder
from liftgate.composition import Site
from liftgate.output import say

if TYPE_CHECKING:
    from training_cluster.hosts.attachment import AttachedHost


@click.command("tensorboard")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="0 takes a free one.")
@click.pass_context
def command(context: click.Context, runs: tuple[str, ...], port: int) -> None:
    """Show runs in TensorBoard until Ctrl-C.

    Of a run that goes on on a training host, TensorBoard is started there and its port forwarded here over SSH.
    It listens on loopback only, here and there.
    """
    runs_dir = Site.load(context.obj).settings.training.runs_dir.absolute()
    with _board(runs_dir, runs, port=port) as address:
        click.echo(address)
        say(f"TensorBoard shows {', '.join(runs)} until you press Ctrl-C.")
        _wait()


def _board(runs_dir: Path, runs: tuple[str, ...], *, port: int) -> AbstractContextManager[str]:
    from training_cluster.hosts.tensorboard import local_board, remote_board

    remote = {run: host for run in runs if (host := _remote_host(runs_dir, run)) is not None}
    if remote and len(runs) > 1:
        raise SettingsError(
            f"{', '.join(remote)} is on a training host and cannot be shown beside other runs. "
            "Show it alone, or collect it first with `liftgate train --attach`."
        )
    for run, host in remote.items():
        return remote_board(host, run_id=run, port=port)
    folders = {run: RunFolder(runs_dir / run).events for run in runs}
    for run, events in folders.items():
        if not events.is_dir():
            raise NotFoundError(
                f"Run {run} has no events in {events}: it was never started from there, or has not begun to train. "
                "`liftgate runs list` names the runs."
            )
    return local_board(folders, port=port)


def _remote_host(runs_dir: Path, run: str) -> AttachedHost | None:
    """Return the host where the run's events grow, or None when they are on this machine."""
    from training_cluster.hosts.attachment import Attachment, attachment_path

    if RunFolder(runs_dir / run).is_complete:
        return None
    attachment = Attachment.load(attachment_path(runs_dir, run))
    return attachment.chief if attachment is not None and attachment.chief.connection == "ssh" else None


def _wait() -> None:
    """Wait for Ctrl-C or SIGTERM; whoever is inside puts TensorBoard away."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: asked.set())
    asked.wait()
