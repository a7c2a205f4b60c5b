"""`liftgate runs reproduce`: trains a run once more, from the same data, and says how close it came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import TrainingError
from liftgate.commands.train import cluster_of, new_run_id
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say

if TYPE_CHECKING:
    from training_cluster.cluster import Spread, TrainingRequest
    from training_cluster.runs.reproduction import Reproduction, ReproductionPlan

DIFFERENT_EXIT_CODE = 22


@click.command("reproduce")
@click.argument("run")
@click.option("--run-id", help="The name of the new run; the same again goes on with it. Default: a new one.")
@click.option("--data", help="The same dataset: its folder, or s3://bucket/prefix; default: [training] data_dir.")
@click.option(
    "--on",
    "spread",
    type=click.Choice(("device", "host", "hosts")),
    default="host",
    show_default=True,
    help="As the run was trained: one device, all devices of one host, or all hosts.",
)
@click.option(
    "--allow-code-difference", "is_other_code_allowed", is_flag=True, help="Train although the code is another."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    run: str,
    run_id: str | None,
    data: str | None,
    spread: Spread,
    is_other_code_allowed: bool,
    as_json: bool,
) -> None:
    """Train RUN once more: same configuration, seed and data, on the same cluster as `liftgate train`.

    Exit code 0: the weights are the same bits; 22: they are not, and the output says how far they lie apart
    and what may have made the difference. The code is not checked out: do that before.
    """
    from training_cluster.inputs.source import open_source
    from training_cluster.runs.reproduction import plan_reproduction, reproduced
    from training_cluster.runs.run import PACKAGE_DIR, code_state

    site = Site.load(context.obj)
    first = site.run(run)
    where = data or str(site.settings.training.data_dir.absolute())
    with closing(open_source(where)) as source:
        data_manifest_sha256 = source.manifest.sha256
    plan = plan_reproduction(
        first.read_run(),
        data_manifest_sha256=data_manifest_sha256,
        code=code_state(PACKAGE_DIR),
        is_other_code_allowed=is_other_code_allowed,
    )
    for remark in plan.remarks:
        say(f"Not as it was: {remark}.")
    request = _request(site, plan, run_id=run_id or new_run_id(), data=where, spread=spread)
    say(f"Run {request.run_id}: training {run} once more.")
    _train(site, request)
    found = reproduced(first, request.run_folder)
    document = {
        "run_id": request.run_id,
        "is_identical": found.is_identical,
        "score_difference": found.score_difference,
        "first_different_step": found.first_different_step,
        "reasons": list(found.reasons),
    }
    print_result("\n".join(_lines(run, request.run_id, found)), document, as_json=as_json)
    context.exit(0 if found.is_identical else DIFFERENT_EXIT_CODE)


def _request(site: Site, plan: ReproductionPlan, *, run_id: str, data: str, spread: Spread) -> TrainingRequest:
    from artifact_sync.canonical import canonical_json
    from artifact_sync.durable import write_durably
    from training_cluster.cluster import TrainingRequest

    settings = site.settings.training
    config_path = settings.runs_dir.absolute() / ".launch" / run_id / "reproduced.json"
    write_durably(config_path, canonical_json(plan.config.resolved()))
    return TrainingRequest(
        run_id=run_id,
        model=site.settings.model,
        config_path=config_path,
        data=data,
        runs_dir=settings.runs_dir.absolute(),
        trained_by=settings.trained_by,
        spread=spread,
    )


def _train(site: Site, request: TrainingRequest) -> None:
    """Train to the end, and bring the run home.

    Raises:
        TrainingError: the run did not become complete.
    """
    from liftgate.run_following import follow

    cluster = cluster_of(site.settings, workers=None)
    cluster.start(request)
    state = follow(cluster, request)
    if state.status != "complete":
        raise TrainingError(
            f"Run {request.run_id} is {state.status}: {state.detail}. The same command with --run-id "
            f"{request.run_id} goes on with it."
        )
    cluster.collect(request)


def _lines(first: str, second: str, found: Reproduction) -> Iterator[str]:
    if found.is_identical:
        yield f"Run {second} has the same weights as {first}, bit for bit."
        return
    yield f"Run {second} is not bit for bit {first}."
    if found.first_different_step is None:
        yield "  The logged losses are the same at every step that both have."
    else:
        yield f"  The logged losses differ from step {found.first_different_step} on."
    if found.score_difference is None:
        yield "  The golden examples are other pictures, so that scores cannot be compared."
    else:
        yield f"  A probability of the golden examples differs by up to {found.score_difference:.2g}."
    yield from (
        f"  {figure.name.replace('_', ' ')}: {figure.first} and {figure.second}"
        for figure in found.comparison.figures
        if figure.name.startswith("validation_") and figure.first != figure.second
    )
    yield "What may have made the difference:"
    yield from (f"  - {reason}" for reason in found.reasons or ("nothing that the two records show",))
