"""`liftgate train`: starts a run on the cluster, or attaches to it, and follows it to its end."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import TrainingError
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say
from liftgate.progress import counting

if TYPE_CHECKING:
    from training_cluster.cluster import Cluster, TrainingRequest, TrainingState

_POLL_SECONDS = 1.0


@click.command("train")
@click.option("--run-id", help="Names the run; the same id again attaches to it or resumes it. Default: a new one.")
@click.option(
    "--training-config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What to train, as TOML; default: [training] config_path.",
)
@click.option("--data", help="The dataset's folder, or s3://bucket/prefix; default: [training] data_dir.")
@click.option("--follow/--no-follow", default=True, help="Wait for the end, or return when it is started.")
@click.option("--stop", is_flag=True, help="Let the run write a checkpoint and end; it can be resumed.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    run_id: str | None,
    training_config: Path | None,
    data: str | None,
    follow: bool,
    stop: bool,
    as_json: bool,
) -> None:
    """Train a model on the cluster, by the Ansible playbook ansible/playbooks/train.yml.

    The run goes on when this command ends or dies; the same run id attaches to it again.
    Exit code 75 means: interrupted at a checkpoint, run the same command again to go on.
    """
    from training_cluster.cluster import INTERRUPTED_EXIT_CODE, TrainingRequest

    site = Site.load(context.obj)
    settings = site.settings.training
    request = TrainingRequest(
        run_id=run_id or _new_run_id(),
        model=site.settings.model,
        config_path=(training_config or settings.config_path).absolute(),
        data=data or str(settings.data_dir.absolute()),
        runs_dir=settings.runs_dir.absolute(),
        trained_by=settings.trained_by,
    )
    cluster = _cluster(settings.inventory)
    if stop:
        cluster.stop(request)
        print_result(f"Run {request.run_id} is stopped.", {"run_id": request.run_id}, as_json=as_json)
        return
    say(
        f"Run {request.run_id}: starting, or attaching when it is there. TensorBoard reads {request.run_folder.events}."
    )
    cluster.start(request)
    state = _follow(cluster, request) if follow else cluster.state(request)
    if state.status == "failed":
        raise TrainingError(f"Run {request.run_id} failed: {state.detail}")
    if state.status == "complete":
        folder = cluster.collect(request)
        run = folder.read_run()
        figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(run.metrics.items()))
        seconds = (run.finished_at - run.started_at).total_seconds()
        text = f"Run {request.run_id} is complete after {seconds:.0f} s: {figures}\n{folder.path}"
        print_result(text, {"run_id": request.run_id, "status": "complete", "metrics": run.metrics}, as_json=as_json)
        return
    print_result(
        f"Run {request.run_id} is {state.status}: {state.detail}",
        {"run_id": request.run_id, "status": state.status, "step": state.step, "detail": state.detail},
        as_json=as_json,
    )
    if state.status == "interrupted":
        context.exit(INTERRUPTED_EXIT_CODE)


def _cluster(inventory: Path | None) -> Cluster:
    if inventory is None:
        from training_cluster.hosts.local_cluster import LocalCluster

        return LocalCluster()
    from training_cluster.hosts.ansible_cluster import AnsibleCluster

    return AnsibleCluster(inventory, progress=_say_step)


def _say_step(step: str) -> None:
    # Ansible's own checks of a role's arguments are steps too, and say nothing to people.
    if "Validating arguments" not in step:
        say(f"  {step.rpartition(' : ')[2]}")


def _follow(cluster: Cluster, request: TrainingRequest) -> TrainingState:
    shown = ""
    with counting("steps") as progress:
        while True:
            state = cluster.state(request)
            if state.total_steps:
                progress(state.step, state.total_steps)
            if state.detail != shown and state.status == "running":
                say(f"  {state.detail}")
                shown = state.detail
            if state.status != "running":
                return state
            time.sleep(_POLL_SECONDS)


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
