"""`liftgate dataset`: labelled photos become shards for training, or a frozen holdout for the gate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import SettingsError
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say
from liftgate.progress import counting

if TYPE_CHECKING:
    from artifact_sync.labelled_photo import LabelledPhoto
    from artifact_sync.records import InputContract
    from validation.photos.holdout import HoldoutItem

_SIZE = re.compile(r"^(?P<height>\d+)x(?P<width>\d+)x(?P<channels>[13])$")

photos_option = click.option(
    "--photos",
    "sources",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    help="A folder with one folder a class, or a CSV file with the columns path,label[,slice …]; repeatable.",
)


@click.group("dataset")
def command() -> None:
    """Build training shards; freeze a holdout."""


@command.command("build")
@photos_option
@click.option("--out", type=click.Path(path_type=Path), help="The new dataset's folder; default: [training] data_dir.")
@click.option(
    "--size", default="224x224x3", show_default=True, help="HEIGHTxWIDTHxCHANNELS of what the model will see."
)
@click.option("--feedback/--no-feedback", default=True, help="Merge people's corrections from the bucket.")
@click.option("--allow-rejects", default=0, show_default=True, help="How many unusable photos may be left out.")
@json_option
@click.pass_obj
def build(
    config_path: Path | None,
    sources: tuple[Path, ...],
    out: Path | None,
    size: str,
    feedback: bool,
    allow_rejects: int,
    as_json: bool,
) -> None:
    """Turn labelled photos into shards and a data manifest.

    Photos of the holdout are kept out. Building again from the same photos finds the same dataset.
    """
    from training_cluster.datasets.build import build_dataset
    from training_cluster.datasets.data_manifest import HashedDataManifest

    site = Site.load(config_path)
    contract = _contract(size)
    target = out or site.settings.training.data_dir
    photos = [*read_photos(sources), *(_corrections(site) if feedback else ())]
    with counting("photos") as progress:
        manifest = build_dataset(
            photos,
            out_dir=target,
            contract=contract,
            excluded_sha256s=_holdout_digests(site),
            workers=site.settings.training.decode_workers,
            progress=progress,
            allowed_rejects=allow_rejects,
        )
    if not isinstance(manifest, HashedDataManifest):
        say(
            f"{target} was built before datasets held the looks of their photos, so near duplicates of the holdout "
            "cannot be looked for. Build it into another folder to have them."
        )
    lines = [f"{manifest.count} examples in {len(manifest.shards)} shards of {size}: {target}"]
    lines += [f"  {label}: {count}" for label, count in manifest.example_counts.items()]
    lines.append(
        f"{manifest.feedback_count} from people's corrections; left out: {len(manifest.excluded)} in the holdout, "
        f"{len(manifest.duplicates)} twice, {len(manifest.rejects)} unusable"
    )
    lines.append(f"data manifest {manifest.sha256}")
    document = {
        "sha256": manifest.sha256,
        "examples": manifest.count,
        "shards": len(manifest.shards),
        "example_counts": manifest.example_counts,
        "feedback": manifest.feedback_count,
        "excluded": len(manifest.excluded),
        "duplicates": len(manifest.duplicates),
        "rejects": len(manifest.rejects),
    }
    print_result("\n".join(lines), document, as_json=as_json)


@command.command("freeze-holdout")
@photos_option
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
    photos = read_photos(sources)
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


def read_photos(sources: Sequence[Path]) -> list[LabelledPhoto]:
    """Return the labelled photos of folders and CSV files, in the order given."""
    from training_cluster.datasets.readers import photos_from_csv, photos_from_folder

    return [
        photo
        for source in sources
        for photo in (photos_from_folder(source) if source.is_dir() else photos_from_csv(source))
    ]


def _corrections(site: Site) -> Sequence[LabelledPhoto]:
    if site.settings.store is None:
        say("No store is set: no corrections are merged.")
        return ()
    from artifact_sync.feedback import feedback_photos

    return feedback_photos(site.registry, site.settings.training.data_dir.parent / "feedback-photos")


def _holdout_digests(site: Site) -> frozenset[str]:
    directory = site.settings.validation.holdout_dir
    if directory is None or not directory.exists():
        say("No holdout is set ([validation] holdout_dir): nothing is kept out of the training data.")
        return frozenset()
    from validation.photos.holdout import load_holdout

    return load_holdout(directory).photo_sha256s


def _contract(size: str) -> InputContract:
    from artifact_sync.records import InputContract

    match = _SIZE.match(size)
    if match is None:
        raise SettingsError(
            f"--size {size} refused: write HEIGHTxWIDTHxCHANNELS with 1 or 3 channels, such as 224x224x3."
        )
    return InputContract.model_validate({name: int(value) for name, value in match.groupdict().items()})
