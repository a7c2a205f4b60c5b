"""`liftgate train`: starts a run on the cluster or attaches to it, shows it, ends it, or asks something of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import NotFoundError, SettingsError, TrainingError
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say

if TYPE_CHECKING:
    from liftgate.configuration import Settings
    from training_cluster.cluster import Cluster, Spread, TrainingRequest, TrainingState

_SPREADS = ("device", "host", "hosts")


@click.command("train")
@click.option("--run-id", help="Names the run; the same id again attaches to it or resumes it. Default: a new one.")
@click.option("--attach", metavar="RUN", help="Show a run that was started; starts nothing.")
@click.option(
    "--training-config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What to train, as TOML; default: [training] config_path.",
)
@click.option("--data", help="The dataset's folder, or s3://bucket/prefix; default: [training] data_dir.")
@click.option(
    "--on",
    "spread",
    type=click.Choice(_SPREADS),
    help="One device, all devices of one host, or all hosts; a run goes on as it was, a new one is on one host.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Without an inventory: processes on this machine that `--on hosts` divides the run among.",
)
@click.option("--follow/--no-follow", "is_followed", default=True, help="Wait for the end, or return when started.")
@click.option("--logs", is_flag=True, help="Show the logs of all hosts as they grow, instead of the screen.")
@click.option("--stop", "act", flag_value="stop", help="Let the run write a checkpoint and end; it can be resumed.")
@click.option("--kill", "act", flag_value="kill", help="End the run at once, without a checkpoint.")
@click.option(
    "--profile", "profile_steps", type=click.IntRange(1, 1000), metavar="STEPS", help="Have it profile STEPS steps."
)
@click.option(
    "--histograms", "act", flag_value="histograms", help="Have it record histograms of weights and gradients."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    run_id: str | None,
    attach: str | None,
    training_config: Path | None,
    data: str | None,
    spread: Spread | None,
    workers: int | None,
    is_followed: bool,
    logs: bool,
    act: str | None,
    profile_steps: int | None,
    as_json: bool,
) -> None:
    """Train a model on this machine, or on the hosts of an inventory by the playbook ansible/playbooks/train.yml.

    The run goes on when this command ends or dies; the same run id attaches to it again.
    Exit code 75 means: interrupted at a checkpoint, run the same command again to go on.
    """
    from training_cluster.cluster import TrainingRequest

    site = Site.load(context.obj)
    settings = site.settings.training
    named = _named_run(run_id, attach)
    if attach is not None or act is not None or profile_steps is not None:
        _refuse_idle({"--training-config": training_config, "--data": data, "--on": spread, "--workers": workers})
    if workers is not None and spread != "hosts":
        raise SettingsError("--workers divides a run among processes: give --on hosts with it.")
    act = _one_act(act, profile_steps)
    if act is not None and named is None:
        raise SettingsError(f"Which run is --{act} for? Name it: --run-id or --attach.")
    request = TrainingRequest(
        run_id=named or new_run_id(),
        model=site.settings.model,
        config_path=(training_config or settings.config_path).absolute(),
        data=data or str(settings.data_dir.absolute()),
        runs_dir=settings.runs_dir.absolute(),
        trained_by=settings.trained_by,
        spread=spread or _spread_before(settings.runs_dir.absolute(), named),
    )
    cluster = cluster_of(site.settings, workers=workers)
    if act is not None:
        _act(cluster, request, act=act, profile_steps=profile_steps, as_json=as_json)
        return
    if attach is None:
        say(f"Run {request.run_id}: starting, or attaching when it is there.")
        cluster.start(request)
    state = cluster.state(request)
    if state.status == "absent":
        raise NotFoundError(f"There is nothing to show: {state.detail}. `liftgate train --run-id` starts a run.")
    if is_followed and state.status == "running":
        from liftgate.run_following import follow

        say(f"`liftgate tensorboard {request.run_id}` shows its curves.")
        state = follow(cluster, request, logs=logs)
    _tell(context, cluster, request, state, as_json=as_json)


def _tell(
    context: click.Context, cluster: Cluster, request: TrainingRequest, state: TrainingState, *, as_json: bool
) -> None:
    """Print how the run stands; bring a complete one home first."""
    from training_cluster.cluster import INTERRUPTED_EXIT_CODE

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


def _act(cluster: Cluster, request: TrainingRequest, *, act: str, profile_steps: int | None, as_json: bool) -> None:
    """End the run, or leave a wish with it."""
    from training_cluster.hosts.attachment import attachment_path

    run_id = request.run_id
    if not attachment_path(request.runs_dir, run_id).exists():
        raise NotFoundError(f"--{act} is refused: run {run_id} was never started from {request.runs_dir}.")
    match act:
        case "stop":
            cluster.stop(request)
            text = f"Run {run_id} is stopped."
        case "kill":
            cluster.kill(request)
            text = f"Run {run_id} is killed; it goes on from its newest checkpoint when it is started again."
        case "profile":
            cluster.wish(request, "profile", steps=profile_steps or 0)
            text = f"Run {run_id} will profile {profile_steps} steps; `liftgate tensorboard {run_id}` shows them."
        case _:
            cluster.wish(request, "histograms")
            text = f"Run {run_id} will record histograms once; `liftgate tensorboard {run_id}` shows them."
    print_result(text, {"run_id": run_id, "done": act}, as_json=as_json)


def _spread_before(runs_dir: Path, run_id: str | None) -> Spread:
    """Return over what the run was spread, so that going on with it needs no flag; one host for a new one."""
    from training_cluster.hosts.attachment import Attachment, attachment_path

    attachment = Attachment.load(attachment_path(runs_dir, run_id)) if run_id else None
    return attachment.spread if attachment else "host"


def _named_run(run_id: str | None, attach: str | None) -> str | None:
    if run_id is not None and attach is not None:
        raise SettingsError("--attach names a run to look at and --run-id one to start: give one of them.")
    return run_id or attach


def _refuse_idle(options: Mapping[str, object]) -> None:
    """Refuse what would do nothing: a run that was started is what it is."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise SettingsError(f"{', '.join(given)} changes nothing of a run that was started. Leave it out.")


def _one_act(act: str | None, profile_steps: int | None) -> str | None:
    if profile_steps is None:
        return act
    if act is not None:
        raise SettingsError(f"--profile and --{act} are two things: give one of them.")
    return "profile"


def cluster_of(settings: Settings, *, workers: int | None) -> Cluster:
    """Return the place that trains: the hosts of the inventory, without one this machine.

    Raises:
        SettingsError: `workers` is given beside an inventory.
    """
    inventory = settings.training.inventory
    if inventory is None:
        from training_cluster.hosts.local_cluster import LocalCluster

        training = settings.training
        return LocalCluster(workers=workers, cache_dir=training.cache_dir, cache_gigabytes=training.cache_gigabytes)
    if workers is not None:
        raise SettingsError(
            f"--workers is for this machine alone, and the inventory {inventory} says on which hosts is trained. "
            "Leave it out."
        )
    from training_cluster.hosts.ansible_cluster import AnsibleCluster

    return AnsibleCluster(inventory, progress=_say_step)


def _say_step(step: str) -> None:
    # Ansible's own checks of a role's arguments are steps too, and say nothing to people.
    if "Validating arguments" not in step:
        say(f"  {step.rpartition(' : ')[2]}")


def new_run_id() -> str:
    """Return a name that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
