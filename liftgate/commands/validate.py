"""`liftgate validate RUN`: compares a run with the served champion and writes report and verdict."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.clock import SystemClock
from artifact_sync.errors import RefusedError
from artifact_sync.run_folder import RunFolder
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say
from liftgate.progress import counting

if TYPE_CHECKING:
    from validation.validate import Champion
    from validation.verdict import Outcome

EXIT_CODES: dict[Outcome, int] = {"better": 0, "not better": 20, "cannot tell": 21}


@click.command("validate")
@click.argument("run_id", metavar="RUN")
@click.option("--first", is_flag=True, help="Nothing is served yet: the policy's floors and limits alone decide.")
@click.option("--holdout", type=click.Path(path_type=Path), help="Its folder; default: [validation] holdout_dir.")
@click.option("--policy", type=click.Path(path_type=Path), help="The policy; default: [validation] policy_path.")
@json_option
@click.pass_context
def command(
    context: click.Context, run_id: str, first: bool, holdout: Path | None, policy: Path | None, as_json: bool
) -> None:
    """Judge RUN: both models answer the frozen holdout, and the policy decides.

    Exit code 0: better. 20: not better. 21: cannot tell. The evidence is in the run's folder, as
    report.html for people and report.json for programs.
    """
    from serving.decode_pool import DecodePool
    from validation.holdout import load_holdout
    from validation.policy import load_policy
    from validation.validate import validate_run

    site = Site.load(context.obj)
    settings = site.settings.validation
    run = site.run(run_id)
    judged_by = load_policy(policy or settings.policy_path)
    directory = holdout or settings.holdout_dir
    if directory is None:
        raise RefusedError(
            "Validation refused: no holdout is set. Freeze photos that people labelled with "
            "`liftgate dataset freeze-holdout`, and set [validation] holdout_dir."
        )
    photos = load_holdout(directory)
    champion = _champion(site)
    with counting("photos") as progress, DecodePool(workers=settings.decode_workers) as decoder:
        report, verdict = validate_run(
            run,
            holdout=photos,
            policy=judged_by,
            champion=champion,
            first=first,
            decoder=decoder,
            clock=SystemClock(),
            settings=settings,
            training_sha256s=_training_photos(site, run),
            progress=progress,
        )
    against = "no champion" if verdict.champion is None else f"version {verdict.champion.version}"
    lines = [f"{verdict.outcome}: run {run_id} against {against} on {report.photos} photos"]
    lines += [f"  {reason.outcome:<11} {reason.check}: {reason.statement}" for reason in verdict.reasons]
    lines.append(f"evidence: {run.report_html}")
    print_result("\n".join(lines), verdict.model_dump(mode="json"), as_json=as_json)
    context.exit(EXIT_CODES[verdict.outcome])


def _champion(site: Site) -> Champion | None:
    """Return the stable version of the newest release, its files verified in a cache beside the runs."""
    from artifact_sync.pull import pull_version
    from validation.validate import Champion

    view = site.trusted.refresh()
    release = view.latest_release()
    if release is None:
        return None
    version = view.version(release.stable)
    cache = site.settings.training.runs_dir.parent / "champions" / site.settings.model
    return Champion(version=version, directory=pull_version(site.registry, version, models_dir=cache), release=release)


def _training_photos(site: Site, run: RunFolder) -> AbstractSet[str] | None:
    """Return the digests of the photos that the run was trained on, None when its dataset is not here."""
    from training_cluster.data_manifest import load_data_manifest
    from training_cluster.dataset_sources import source_sha256s

    data_dir = site.settings.training.data_dir
    wanted = run.read_run().data_manifest_sha256
    for directory in (data_dir, *sorted(data_dir.parent.glob(f"{data_dir.name}*"))):
        if (directory / "data_manifest.json").is_file():
            manifest = load_data_manifest(directory)
            if manifest.sha256 == wanted:
                return source_sha256s(directory, manifest)
    say(f"The dataset of run {run.run_id} is not in {data_dir}: photos of the holdout among them cannot be looked for.")
    return None
