"""`liftgate dataset`: labelled photos become shards for training, or a frozen holdout for the gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import InputError, SettingsError
from liftgate.commands.dataset_build import command as build
from liftgate.commands.dataset_copy import command as copy
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say
from liftgate.progress import counting

if TYPE_CHECKING:
    from artifact_sync.labelled_photo import LabelledPhoto
    from validation.photos.holdout import HoldoutItem


@click.group("dataset")
def command() -> None:
    """Build and copy training shards; freeze a holdout."""


command.add_command(build)
command.add_command(copy)


@command.command("freeze-holdout")
@click.option(
    "--photos",
    "sources",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    help="A folder with one folder a class, or a CSV file with the columns path,label[,slice …]; repeatable.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The new holdout's folder; default: [validation] holdout_dir."
)
@click.option(
    "--open-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Of each label's photos, the part whose results reports show; the others decide.",
)
@click.option(
    "--open-from",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A holdout whose results people have seen: its photos are open in the new one; repeatable.",
)
@json_option
@click.pass_obj
def freeze(
    config_path: Path | None,
    sources: tuple[Path, ...],
    out: Path | None,
    open_share: float,
    open_from: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Freeze photos that people labelled into a holdout, which never changes again.

    Some photos of each label are open: reports show the results on them. The others are sealed: they
    decide, and what they say is told as a verdict only. Photos that look nearly the same go to one side.
    """
    from serving.decode_pool import DecodePool
    from validation.photos.holdout import freeze_holdout, load_holdout

    settings = Site.load(config_path).settings
    target = out or settings.validation.holdout_dir
    if target is None:
        raise SettingsError("No place for the holdout: give --out, or set [validation] holdout_dir.")
    photos = _read_photos(sources)
    labels = sorted({photo.label for photo in photos})
    disputes: list[str] = []
    with DecodePool(workers=settings.validation.decode_workers) as decoder, counting("photos") as progress:
        holdout = freeze_holdout(
            photos,
            labels=labels,
            out_dir=target,
            decoder=decoder,
            open_share=open_share,
            open_from=[load_holdout(directory).record for directory in open_from],
            tell=disputes.append,
            progress=progress,
        )
    for dispute in disputes:
        say(dispute)
    classes, slices = _sides(holdout.record.items)
    count, opened = len(holdout.record.items), sum(item.is_open for item in holdout.record.items)
    lines = [
        f"holdout {holdout.sha256}",
        f"{count} photos of {len(labels)} classes in {target}: {opened} open, {count - opened} sealed",
        *(f"  {label}: {_sides_text(classes[label])}" for label in labels),
        *(
            f"  {column} = {value}: {_sides_text(sides)}"
            for column, values in slices.items()
            for value, sides in values.items()
        ),
    ]
    document = {
        "sha256": holdout.sha256,
        "photos": count,
        "labels": labels,
        "open": opened,
        "sealed": count - opened,
        "classes": classes,
        "slices": slices,
        "disputes": disputes,
    }
    print_result("\n".join(lines), document, as_json=as_json)


def _sides(items: Iterable[HoldoutItem]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, dict[str, int]]]]:
    """Return how many photos are open and sealed, by label, and by slice column and value."""
    classes: dict[str, dict[str, int]] = {}
    slices: dict[str, dict[str, dict[str, int]]] = {}
    for item in items:
        counted = [classes.setdefault(item.label, {"open": 0, "sealed": 0})]
        for column, value in sorted(item.slices.items()):
            counted.append(slices.setdefault(column, {}).setdefault(value, {"open": 0, "sealed": 0}))
        for sides in counted:
            sides["open" if item.is_open else "sealed"] += 1
    return classes, {column: dict(sorted(values.items())) for column, values in sorted(slices.items())}


def _sides_text(sides: Mapping[str, int]) -> str:
    return f"{sides['open']} open, {sides['sealed']} sealed"


def _read_photos(sources: Sequence[Path]) -> list[LabelledPhoto]:
    """Return the labelled photos of folders and CSV files, in order."""
    from artifact_sync.labelled_photo import LabelledPhoto
    from training_cluster.datasets.readers import photos_from_csv, photos_from_folder

    photos: list[LabelledPhoto] = []
    for source in sources:
        for photo in photos_from_folder(source) if source.is_dir() else photos_from_csv(source):
            if not isinstance(photo, LabelledPhoto):
                raise InputError(
                    f"Freezing refused: {photo.source} names {photo.url}, and a holdout is made of files on this "
                    "machine. Fetch the photos first; `liftgate dataset build --holdout-share` does so for its part."
                )
            photos.append(photo)
    return sorted(photos, key=lambda photo: (photo.source, photo.path))
