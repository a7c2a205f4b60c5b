"""`liftgate runs`: what was trained, how two runs differ, and whether a run can be had again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from liftgate.commands.runs_reproduce import command as reproduce
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say, table
from liftgate.plain_text import one_line

if TYPE_CHECKING:
    from datetime import datetime

    from training_cluster.runs.catalogue import RunSummary
    from training_cluster.runs.comparison import Comparison, Difference
    from training_cluster.runs.curves import Curve

_LISTED_CHARACTERS = 40
_DETAIL_CHARACTERS = 200


@click.group("runs")
def command() -> None:
    """Show, compare and reproduce runs."""


command.add_command(reproduce)


@command.command("list")
@click.option("--newest", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs.")
@json_option
@click.pass_obj
def listing(config_path: Path | None, newest: int, as_json: bool) -> None:
    """List the runs on this machine, the newest first; no host is asked."""
    from training_cluster.runs.catalogue import list_runs

    runs = list_runs(Site.load(config_path).settings.training.runs_dir)
    header = ("run", "state", "model", "started", "accuracy", "data", "code", "by")
    text = table([_row(run) for run in runs[:newest]], header=header)
    if len(runs) > newest:
        text += f"\n{len(runs) - newest} older ones are not shown; --newest shows more."
    print_result(text if runs else "There are no runs yet.", [_document(run) for run in runs[:newest]], as_json=as_json)


@command.command("show")
@click.argument("run")
@json_option
@click.pass_obj
def show(config_path: Path | None, run: str, as_json: bool) -> None:
    """Show what a run was made of, its figures and its curves."""
    from training_cluster.runs.catalogue import summarize
    from training_cluster.runs.curves import read_curves

    summary = summarize(Site.load(config_path).run(run))
    curves = read_curves(summary.folder.path)
    print_result("\n".join([*_lines(summary), *_curve_lines(curves)]), _document(summary), as_json=as_json)


@command.command("compare")
@click.argument("first")
@click.argument("second")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page, with the curves.")
@json_option
@click.pass_obj
def compare(config_path: Path | None, first: str, second: str, html: Path | None, as_json: bool) -> None:
    """Say what differs between two complete runs, and put their figures and curves side by side."""
    from artifact_sync.durable import write_durably
    from training_cluster.runs.comparison import compare_runs
    from training_cluster.runs.comparison_page import comparison_page

    site = Site.load(config_path)
    comparison = compare_runs(site.run(first), site.run(second))
    if html is not None:
        write_durably(html.absolute(), comparison_page(comparison).encode())
        say(f"The page is {html}.")
    document = {
        "runs": [first, second],
        "differences": {name: list(map(vars, found)) for name, found in comparison.differences.items()},
        "figures": list(map(vars, comparison.figures)),
        "remarks": list(comparison.remarks),
    }
    print_result("\n".join(_comparison_lines(comparison)), document, as_json=as_json)


def _row(run: RunSummary) -> tuple[str, ...]:
    record, known = run.record, run.record or run.start
    accuracy = None if record is None else record.metrics.get("validation_accuracy")
    return (
        run.folder.run_id,
        run.status,
        "–" if known is None else known.model,
        _moment(run.started_at),
        "–" if accuracy is None else f"{accuracy:.4f}",
        "–" if known is None else known.data_manifest_sha256[:12],
        "–" if record is None else _code(record.code_commit, is_dirty=record.code_dirty),
        "–" if known is None else one_line(known.trained_by, most=_LISTED_CHARACTERS),
    )


def _document(run: RunSummary) -> dict[str, object]:
    return {
        "run_id": run.folder.run_id,
        "status": run.status,
        "detail": run.detail,
        "started_at": run.started_at,
        "start": None if run.start is None else run.start.model_dump(mode="json"),
        "run": None if run.record is None else run.record.model_dump(mode="json"),
        "variants": list(run.variants),
    }


def _lines(run: RunSummary) -> Iterator[str]:
    known = run.record or run.start
    detail = "" if run.detail == run.status else f": {one_line(run.detail, most=_DETAIL_CHARACTERS)}"
    yield f"run {run.folder.run_id} is {run.status}{detail}"
    yield f"  {run.folder.path}"
    if known is not None:
        yield f"  model {known.model}, started {_moment(run.started_at)} by {one_line(known.trained_by)}"
        yield f"  data {known.data_manifest_sha256}"
        yield f"  configuration {known.config_sha256}"
    if run.record is not None:
        record = run.record
        yield f"  code {_code(record.code_commit, is_dirty=record.code_dirty)}, finished {_moment(record.finished_at)}"
        yield f"  on {', '.join(f'{name} {one_line(value)}' for name, value in record.hardware.items())}"
        yield f"  with {', '.join(f'{name} {one_line(value)}' for name, value in record.environment.items())}"
        yield from (f"  {name.replace('_', ' ')}: {value:.6g}" for name, value in sorted(record.metrics.items()))
    yield from (f"  variant {name}: `liftgate validate {name}` judges it" for name in run.variants)


def _curve_lines(curves: Mapping[str, Curve]) -> Iterator[str]:
    from training_cluster.runs.curves import sparkline

    for name, curve in sorted(curves.items()):
        yield f"  {name.replace('_', ' '):24} {sparkline(curve):32} {curve.values[0]:.4g} → {curve.last:.4g}"


def _comparison_lines(comparison: Comparison) -> Iterator[str]:
    names = tuple(record.run_id for record in comparison.records)
    for concern, differences in comparison.differences.items():
        yield f"{concern}: {'' if differences else 'the same'}".rstrip()
        if differences:
            yield _indented(differences, names)
    yield "figures:"
    yield _indented(comparison.figures, names)
    yield from comparison.remarks
    yield from _curves_side_by_side(comparison, names)


def _indented(rows: Sequence[Difference], names: tuple[str, ...]) -> str:
    cells = [
        (row.name, one_line(row.first, most=_LISTED_CHARACTERS), one_line(row.second, most=_LISTED_CHARACTERS))
        for row in rows
    ]
    return "\n".join(f"  {line}" for line in table(cells, header=("", names[0], names[1])).splitlines())


def _curves_side_by_side(comparison: Comparison, names: tuple[str, ...]) -> Iterator[str]:
    """Yield both runs' curves of a figure on the same scale, one below the other."""
    from training_cluster.runs.curves import sparkline

    width = max(map(len, names))
    for figure in sorted(comparison.curves[0].keys() & comparison.curves[1].keys()):
        pair = [curves[figure] for curves in comparison.curves]
        scale = (min(min(curve.values) for curve in pair), max(max(curve.values) for curve in pair))
        yield f"{figure.replace('_', ' ')}:"
        for name, curve in zip(names, pair, strict=True):
            yield f"  {name:{width}}  {sparkline(curve, scale=scale):32} {curve.values[0]:.4g} → {curve.last:.4g}"


def _code(commit: str, *, is_dirty: bool) -> str:
    return f"{one_line(commit)[:12]}{' and changes' if is_dirty else ''}"


def _moment(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
