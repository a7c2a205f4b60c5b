"""`liftgate evaluate`: how the newest checkpoint of a run does, while the run goes on elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from artifact_sync.errors import NotFoundError, TrainingError
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say
from liftgate.progress import counting

if TYPE_CHECKING:
    from artifact_sync.run_folder import RunFolder
    from training_cluster.config.training_config import TrainingConfig
    from training_cluster.hosts.attachment import Attachment
    from training_cluster.training.checkpoint_evaluation import CheckpointEvaluation, EvaluatedCheckpoint

_POLL_SECONDS = 5.0
_SHOWN_CLASSES = 5


@click.command("evaluate")
@click.argument("run_id", metavar="RUN")
@click.option("--watch", is_flag=True, help="Evaluate each newest checkpoint until the run has ended.")
@click.option("--data", help="The dataset's folder, or s3://bucket/prefix; default: [training] data_dir.")
@click.option(
    "--training-config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The run's configuration, where this machine has not got it; default: [training] config_path.",
)
@json_option
@click.pass_obj
def command(
    config_path: Path | None,
    *,
    run_id: str,
    watch: bool,
    data: str | None,
    training_config: Path | None,
    as_json: bool,
) -> None:
    """Evaluate the newest checkpoint of a run on this machine.

    The run may go on meanwhile, here or on other hosts: its checkpoints are only read. Set
    CUDA_VISIBLE_DEVICES so that both do not want the same GPU.
    """
    from artifact_sync.clock import SystemClock
    from artifact_sync.run_folder import RunFolder
    from training_cluster.hosts.attachment import Attachment, attachment_path
    from training_cluster.inputs.source import open_source

    site = Site.load(config_path)
    settings = site.settings.training
    runs_dir = settings.runs_dir.absolute()
    place = attachment_path(runs_dir, run_id)
    attachment = Attachment.load(place)
    folder = RunFolder(runs_dir / run_id) if attachment is not None else site.run(run_id)
    config = _config(folder, training_config or settings.config_path)
    source = open_source(data or str(settings.data_dir.absolute()))
    from training_cluster.training.checkpoint_evaluation import CheckpointEvaluation

    job = CheckpointEvaluation(folder, config=config, source=source, clock=SystemClock())
    into = place.parent / "fetched-checkpoints"
    if watch:
        found = _watch(job, folder, attachment, into=into)
    else:
        found = _evaluate(job, _checkpoints(folder, attachment, into=into))
    if found is None:
        raise NotFoundError(
            f"Run {run_id} has no checkpoint yet. Wait for the first, or run `liftgate evaluate {run_id} --watch`."
        )
    print_result(_text(found), found.document, as_json=as_json)


def _config(folder: RunFolder, path: Path) -> TrainingConfig:
    """Return what the run was begun with; a run that goes on elsewhere has not said so here."""
    from training_cluster.config.training_config import TrainingConfig, load_config
    from training_cluster.runs.run import TrainingStart

    try:
        start = TrainingStart.from_json((folder.path / "started.json").read_bytes())
    except FileNotFoundError:
        return load_config(path)
    return TrainingConfig.model_validate(start.config)


def _watch(
    job: CheckpointEvaluation, folder: RunFolder, attachment: Attachment | None, *, into: Path
) -> EvaluatedCheckpoint | None:
    """Evaluate until the run has ended; return how its last checkpoint does."""
    while True:
        try:
            # Asked before: a checkpoint that comes after the answer is not missed.
            is_over = _is_over(folder, attachment)
            checkpoints = _checkpoints(folder, attachment, into=into)
        except TrainingError as error:
            # Hosts that cannot be reached come back, and the run goes on meanwhile.
            say(str(error))
            time.sleep(_POLL_SECONDS)
            continue
        found = _evaluate(job, checkpoints)
        if is_over:
            return found
        if found is not None and found.is_new:
            say(_line(found.document))
        time.sleep(_POLL_SECONDS)


def _checkpoints(folder: RunFolder, attachment: Attachment | None, *, into: Path) -> Path:
    """Return a folder with the newest checkpoint, brought here when the run goes on elsewhere."""
    if attachment is None or folder.is_complete:
        return folder.checkpoints if folder.checkpoints.exists() else into
    from training_cluster.hosts.checkpoint_fetch import fetch_checkpoint

    newest = fetch_checkpoint(attachment, into)
    return into if newest is None else newest.parent


def _is_over(folder: RunFolder, attachment: Attachment | None) -> bool:
    if attachment is None or folder.is_complete:
        return folder.is_complete
    from training_cluster.hosts.attached_run import AttachedRun

    return AttachedRun(attachment).state().status != "running"


def _evaluate(job: CheckpointEvaluation, checkpoints: Path) -> EvaluatedCheckpoint | None:
    with counting("examples") as progress:
        return job.evaluate_newest(checkpoints, progress=progress)


def _line(document: dict[str, Any]) -> str:
    return (
        f"after step {document['step']:,}: loss {document['loss']:.4g}, accuracy {document['accuracy']:.4g} "
        f"over {document['examples']:,} validation examples"
    )


def _text(found: EvaluatedCheckpoint) -> str:
    classes = found.document["classes"]
    seen = [(figures["recall"], label) for label, figures in classes.items() if figures["recall"] is not None]
    worst = [f"  {label}: recall {recall:.3f}" for recall, label in sorted(seen)[:_SHOWN_CLASSES]]
    return "\n".join([_line(found.document), "least recognised:", *worst, str(found.path)])
