"""`liftgate data`: what the inputs of a training give on this machine, and what its model sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from artifact_sync.durable import write_durably
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say, table

if TYPE_CHECKING:
    from training_cluster.config.training_config import TrainingConfig
    from training_cluster.measure.bench import InputBench


@click.group("data")
def command() -> None:
    """Measure the inputs of a training; look at what its model sees."""


def _data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    data = click.option("--data", help="The dataset's folder, or s3://bucket/prefix; default: [training] data_dir.")
    config = click.option(
        "--training-config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="How it is trained, as TOML; default: [training] config_path.",
    )
    return data(config(function))


@command.command("bench")
@_data_options
@click.option(
    "--gpu-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Images per second that the GPUs take together: say whether they can be fed, and by how many hosts.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="How long each stage is measured.",
)
@json_option
@click.pass_obj
def bench(
    config_path: Path | None,
    *,
    data: str | None,
    training_config: Path | None,
    gpu_rate: float | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure the inputs of a training on this machine: each stage alone, and all together.

    Run it on a training host before a long training: what it gives must be more than what the GPUs take.
    """
    from training_cluster.measure.bench import bench_inputs
    from training_cluster.measure.feeding import bottleneck, feeding, remedy

    place, config = _chosen(config_path, data=data, training_config=training_config)
    found = bench_inputs(place, config, seconds=seconds, progress=lambda stage: say(f"  measuring: {stage}"))
    slowest = bottleneck(found.stages)
    document: dict[str, Any] = {**asdict(found), "bottleneck": slowest.stage}
    lines = [_figures(found), f"The slowest stage is {slowest.stage}; what helps: {remedy(slowest.stage)}."]
    if gpu_rate is not None:
        judged = feeding(found.images_per_second, gpu_rate=gpu_rate)
        document["feeding"] = asdict(judged)
        lines.append(judged.sentence)
    print_result("\n".join(lines), document, as_json=as_json)


@command.command("look")
@_data_options
@click.option("--examples", type=click.IntRange(1, 500), default=20, show_default=True, help="How many examples.")
@click.option("--draws", type=click.IntRange(1, 50), default=6, show_default=True, help="How many epochs of each.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="look.html",
    show_default=True,
    help="The page that is written.",
)
@json_option
@click.pass_obj
def look(
    config_path: Path | None,
    *,
    data: str | None,
    training_config: Path | None,
    examples: int,
    draws: int,
    out: Path,
    as_json: bool,
) -> None:
    """Write a page with what the model really sees: examples beside what each epoch makes of them."""
    from training_cluster.inputs.source import open_source
    from training_cluster.inputs.split import ExampleSplit
    from training_cluster.measure.look import seen_examples
    from training_cluster.measure.sheet_page import sheet_page

    place, config = _chosen(config_path, data=data, training_config=training_config)
    source = open_source(place)
    try:
        seen = seen_examples(source, ExampleSplit(source, config), config, count=examples, epochs=draws)
    finally:
        source.close()
    remark = f"Seed {config.execution.seed}. Each picture is the very one that the training shows in that epoch."
    write_durably(out, sheet_page(seen, title=f"What the model sees of {place}", remark=remark).encode())
    document = {"path": str(out), "examples": [{"number": one.number, "label": one.label} for one in seen]}
    print_result(str(out), document, as_json=as_json)


def _chosen(config_path: Path | None, *, data: str | None, training_config: Path | None) -> tuple[str, TrainingConfig]:
    """Return the dataset's place and the training's configuration."""
    from training_cluster.config.training_config import load_config

    if data is not None and training_config is not None:
        # A training host has no settings of the site.
        return data, load_config(training_config)
    settings = Site.load(config_path).settings.training
    return data or str(settings.data_dir), load_config(training_config or settings.config_path)


def _figures(found: InputBench) -> str:
    height, width, channels = found.picture
    rows = [
        (f"{one.stage} alone", f"{one.images_per_second:,.0f}", f"{one.bytes_per_second / 1e6:,.0f}")
        for one in found.stages
    ]
    size = height * width * channels
    together = found.images_per_second
    rows.append(("together", f"{together:,.0f}", f"{together * size / 1e6:,.0f}"))
    return (
        f"Pictures of {height}×{width}×{channels} in batches of {found.batch_size}, {found.cores} cores\n"
        f"{table(rows, header=('stage', 'images/s', 'MB/s'))}\n"
        f"First batch after {found.first_batch_seconds:.1f} s."
    )
