"""`liftgate validate RUN`: compares a run with the served champion and writes report and verdict."""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.clock import SystemClock
from artifact_sync.run_folder import RunFolder
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say
from liftgate.progress import counting

if TYPE_CHECKING:
    from artifact_sync.trust import TrustedView
    from validation.case import Champion, TrainingPhotos
    from validation.checks.verdict import BudgetUse, Outcome, Reason, Verdict
    from validation.validate import Rehearsal

EXIT_CODES: dict[Outcome, int] = {"better": 0, "not better": 20, "cannot tell": 21}


@click.command("validate")
@click.argument("run_id", metavar="RUN")
@click.option("--first", is_flag=True, help="Nothing is served yet: the policy's floors and limits alone decide.")
@click.option("--rehearse", is_flag=True, help="Look at the open photos only: no verdict, and nothing is spent.")
@click.option("--holdout", type=click.Path(path_type=Path), help="Its folder; default: [validation] holdout_dir.")
@click.option("--policy", type=click.Path(path_type=Path), help="The policy; default: [validation] policy_path.")
@click.option("--by", help="Who validates, for the ledger; default: your user name.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    run_id: str,
    first: bool,
    rehearse: bool,
    holdout: Path | None,
    policy: Path | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Judge RUN: both models answer the frozen holdout, and the policy decides.

    Exit code 0: better. 20: not better. 21: cannot tell. The evidence is in the run's folder, as
    report.html for people and report.json for programs. A question to the sealed photos spends one of
    the holdout's tries (`liftgate budget`); --rehearse asks none.
    """
    from serving.decode_pool import DecodePool
    from validation.case import open_case
    from validation.checks.policy import load_policy
    from validation.photos.holdout import load_holdout
    from validation.validate import Bench, validate_run
    from validation.validate import rehearse as rehearse_run

    site = Site.load(context.obj)
    settings = site.settings.validation
    run = site.run(run_id)
    judged_by = load_policy(policy or settings.policy_path)
    photos = load_holdout(site.holdout_dir(holdout))
    view = site.trusted.refresh()
    ledger = site.ledger(photos.record)
    ledger.reader.check_signed(view)
    case = open_case(
        run,
        holdout=photos,
        policy=judged_by,
        champion=_champion(site, view),
        first=first,
        training=_training_photos(site, run),
    )
    with counting("photos") as progress, DecodePool(workers=settings.decode_workers) as decoder:
        bench = Bench(
            decoder=decoder,
            clock=SystemClock(),
            ledger=ledger,
            settings=settings,
            by=by or getpass.getuser(),
            progress=progress,
            tell=say,
        )
        if rehearse:
            rehearsal = rehearse_run(case, bench=bench)
        else:
            _, verdict = validate_run(case, bench=bench)
    if rehearse:
        _print_rehearsal(rehearsal, as_json=as_json)
    else:
        _print_verdict(verdict, run, photos=len(photos.record.items), as_json=as_json)
        context.exit(EXIT_CODES[verdict.outcome])


def _print_verdict(verdict: Verdict, run: RunFolder, *, photos: int, as_json: bool) -> None:
    against = "no champion" if verdict.champion is None else f"version {verdict.champion.version}"
    lines = [f"{verdict.outcome}: run {verdict.run_id} against {against} on {photos:,} photos"]
    lines += reason_lines(verdict.reasons)
    lines += [budget_line(verdict.budget), f"evidence: {run.report_html}"]
    print_result("\n".join(lines), verdict.model_dump(mode="json"), as_json=as_json)


def reason_lines(reasons: Iterable[Reason]) -> list[str]:
    """Return one line a reason."""
    return [f"  {reason.outcome:<11} {reason.check}: {reason.statement}" for reason in reasons]


def budget_line(budget: BudgetUse | None) -> str:
    """Return what a verdict cost."""
    if budget is None:
        return "budget: no try was spent"
    left = f"{budget.tries_left} tries are left"
    if budget.is_opened:
        left = "the holdout is opened and decides nothing more: freeze a new one for the next candidate"
    return f"budget: this was try {budget.number}, at level {budget.level:.4g}; {left}"


def _print_rehearsal(rehearsal: Rehearsal, *, as_json: bool) -> None:
    report, known = rehearsal.report, rehearsal.known
    reasons = [*(finding.reason for finding in known.sampled), *known.fixed, *known.sizes]
    shown = f"{report.photos:,} {'open ' if report.scope == 'open' else ''}photos"
    lines = [f"rehearsal: run {report.run_id} on the {shown}; no verdict, nothing spent"]
    lines += [*reason_lines(reasons), f"`liftgate validate {report.run_id}` would {_would(rehearsal)}"]
    document = {
        "report": report.model_dump(mode="json"),
        "reasons": [reason.model_dump(mode="json") for reason in reasons],
        "would": _would(rehearsal),
    }
    print_result("\n".join(lines), document, as_json=as_json)


def _would(rehearsal: Rehearsal) -> str:
    """Return what validating would do now."""
    admission = rehearsal.admission
    if admission is None:
        return "be refused: the holdout's budget is spent, so freeze a new one"
    if admission.known is not None:
        return f"give the answer of try {admission.known.number}, which was this candidate's, and spend nothing"
    if rehearsal.known.is_settled:
        return "decide without the sealed photos, and spend nothing"
    return "ask the sealed photos, and spend a try"


def _champion(site: Site, view: TrustedView) -> Champion | None:
    """Return the stable version of the newest release, its files verified in a cache beside the runs."""
    from artifact_sync.pull import pull_version
    from validation.case import Champion

    release = view.latest_release()
    if release is None:
        return None
    version = view.version(release.stable)
    cache = site.settings.training.runs_dir.parent / "champions" / site.settings.model
    return Champion(version=version, directory=pull_version(site.registry, version, models_dir=cache), release=release)


def _training_photos(site: Site, run: RunFolder) -> TrainingPhotos | None:
    """Return what is known of the photos that the run was trained on, None when its dataset is not here."""
    from training_cluster.datasets.data_manifest import load_data_manifest
    from training_cluster.datasets.sources import picture_hashes, source_sha256s
    from validation.case import TrainingPhotos

    data_dir = site.settings.training.data_dir
    wanted = run.read_run().data_manifest_sha256
    for directory in (data_dir, *sorted(data_dir.parent.glob(f"{data_dir.name}*"))):
        if (directory / "data_manifest.json").is_file():
            manifest = load_data_manifest(directory)
            if manifest.sha256 == wanted:
                return TrainingPhotos(source_sha256s(directory, manifest), picture_hashes(directory, manifest))
    say(f"The dataset of run {run.run_id} is not in {data_dir}: photos of the holdout among them cannot be looked for.")
    return None
