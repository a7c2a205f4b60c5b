"""`liftgate dataset build`: labelled photos become shards for training."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from artifact_sync.errors import SettingsError
from liftgate.composition import Site
from liftgate.output import json_option, print_result, say

if TYPE_CHECKING:
    from artifact_sync.labelled_photo import LabelledPhoto
    from artifact_sync.records import InputContract
    from serving.perceptual_hash import PictureHashes
    from training_cluster.datasets.build_progress import BuildProgress
    from training_cluster.datasets.data_manifest import DataManifest
    from training_cluster.datasets.readers import Photo
    from training_cluster.datasets.stored_photos import PhotoStores
    from validation.photos.holdout import Holdout

_SIZE = re.compile(r"^(?P<height>\d+)x(?P<width>\d+)x(?P<channels>[13])$")


class _PhotoSource(click.ParamType[str]):
    """A folder or a file that exists, or "s3://bucket/prefix"."""

    name = "folder|csv|s3://…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).startswith("s3://") and not Path(value).exists():
            self.fail(f"There is no folder or file {value}.", param, ctx)
        return str(value)


@click.command("build")
@click.option(
    "--photos",
    "sources",
    type=_PhotoSource(),
    multiple=True,
    required=True,
    help="A folder or s3://bucket/prefix with one folder a class, or a CSV file with the columns path,label and, if "
    "you like, annotator, source (photos of one source stay together) and slices; repeatable.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The new dataset's folder; default: [training] data_dir.")
@click.option(
    "--size", default="224x224x3", show_default=True, help="HEIGHTxWIDTHxCHANNELS of what the model will see."
)
@click.option("--feedback/--no-feedback", default=True, help="Merge people's corrections from the bucket.")
@click.option("--allow-rejects", default=0, show_default=True, help="How many unusable photos may be left out.")
@click.option(
    "--near-distance",
    type=click.IntRange(0, 7),
    default=4,
    show_default=True,
    help="Photos whose looks differ in at most so many bits of 128 are kept together, and out if the holdout has one.",
)
@click.option(
    "--holdout-share",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="The part of the photos that goes to holdout.csv instead; freeze-holdout takes it.",
)
@json_option
@click.pass_obj
def command(
    config_path: Path | None,
    sources: tuple[str, ...],
    out: Path | None,
    size: str,
    feedback: bool,
    allow_rejects: int,
    near_distance: int,
    holdout_share: float,
    as_json: bool,
) -> None:
    """Turn labelled photos into shards and a data manifest.

    Photos of the holdout, and those that look nearly like one, are kept out. Building again from the same photos
    finds the same dataset; a build that was interrupted goes on where it stopped.
    """
    from training_cluster.datasets.build import build_dataset
    from training_cluster.datasets.data_manifest import HashedDataManifest

    site = Site.load(config_path)
    contract = _contract(size)
    target = out or site.settings.training.data_dir
    stores = _stores(site)
    holdout = _holdout(site)
    lists: dict[str, Iterable[Photo]] = {source: _photos(source, stores) for source in sources}
    if feedback and (corrections := _corrections(site)):
        lists["feedback"] = corrections
    with _interruptible(target), _stages() as progress:
        manifest = build_dataset(
            lists,
            out_dir=target,
            contract=contract,
            excluded_sha256s=holdout.photo_sha256s if holdout else frozenset(),
            excluded_looks=_looks(holdout, contract, workers=site.settings.training.decode_workers),
            workers=site.settings.training.decode_workers,
            progress=progress,
            allowed_rejects=allow_rejects,
            near_distance=near_distance,
            holdout_share=holdout_share,
            stores=stores,
        )
    if not isinstance(manifest, HashedDataManifest):
        say(
            f"{target} was built before datasets held the looks of their photos, so near duplicates of the holdout "
            "cannot be looked for. Build it into another folder to have them."
        )
    print_result("\n".join(_lines(manifest, target, size)), _document(manifest), as_json=as_json)


def _lines(manifest: DataManifest, target: Path, size: str) -> Iterator[str]:
    from training_cluster.datasets.data_manifest import IndexedDataManifest

    yield f"{manifest.count} examples in {len(manifest.shards)} shards of {size}: {target}"
    yield from (f"  {label}: {count}" for label, count in manifest.example_counts.items())
    yield (
        f"{manifest.feedback_count} from people's corrections; left out: {len(manifest.excluded)} in the holdout, "
        f"{len(manifest.duplicates)} twice, {len(manifest.rejects)} unusable"
    )
    if isinstance(manifest, IndexedDataManifest):
        if manifest.near_duplicate_count:
            yield f"{manifest.near_duplicate_count} look nearly like another one; each stays on the side of that one"
        if manifest.holdout_count:
            yield (
                f"{manifest.holdout_count} photos for a holdout, not in the shards: "
                f"liftgate dataset freeze-holdout --photos {target / 'holdout.csv'}"
            )
    yield f"data manifest {manifest.sha256}"


def _document(manifest: DataManifest) -> dict[str, object]:
    from training_cluster.datasets.data_manifest import IndexedDataManifest

    document: dict[str, object] = {
        "sha256": manifest.sha256,
        "examples": manifest.count,
        "shards": len(manifest.shards),
        "example_counts": manifest.example_counts,
        "feedback": manifest.feedback_count,
        "excluded": len(manifest.excluded),
        "duplicates": len(manifest.duplicates),
        "rejects": len(manifest.rejects),
    }
    if isinstance(manifest, IndexedDataManifest):
        document |= {"near_duplicates": manifest.near_duplicate_count, "holdout": manifest.holdout_count}
    return document


@contextmanager
def _interruptible(target: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"Interrupted. What is done of {target} is kept; the same command goes on from there.")
        raise


@contextmanager
def _stages() -> Iterator[Callable[[BuildProgress], None]]:
    """Yield what shows a build's progress: at a terminal a bar with rate and time left for each stage."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(told: BuildProgress) -> None:
            if told.stage not in tasks:
                tasks[told.stage] = bar.add_task(f"{told.stage} photos", total=None, pace="")
            pace = f"{told.rate:.0f}/s" if told.rate else ""
            if told.seconds_left is not None and told.seconds_left >= 1:
                minutes, seconds = divmod(round(told.seconds_left), 60)
                pace += f", {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
            bar.update(tasks[told.stage], completed=told.done, total=told.total, pace=pace)

        yield show


def _photos(source: str, stores: PhotoStores) -> Iterable[Photo]:
    from training_cluster.datasets.readers import photos_from_csv, photos_from_folder

    if source.startswith("s3://"):
        return stores.photos(source)
    path = Path(source)
    return photos_from_folder(path) if path.is_dir() else photos_from_csv(path)


def _stores(site: Site) -> PhotoStores:
    """Return the buckets of photos: on the server of the store, where one is set."""
    from training_cluster.datasets.stored_photos import PhotoStores

    store = site.settings.store
    return PhotoStores(endpoint_url=store.endpoint_url, region=store.region) if store else PhotoStores()


def _corrections(site: Site) -> Sequence[LabelledPhoto]:
    if site.settings.store is None:
        say("No store is set: no corrections are merged.")
        return ()
    from artifact_sync.feedback import feedback_photos

    return feedback_photos(site.registry, site.settings.training.data_dir.parent / "feedback-photos")


def _holdout(site: Site) -> Holdout | None:
    directory = site.settings.validation.holdout_dir
    if directory is None or not directory.exists():
        say("No holdout is set ([validation] holdout_dir): nothing is kept out of the training data.")
        return None
    from validation.photos.holdout import load_holdout

    return load_holdout(directory)


def _looks(holdout: Holdout | None, contract: InputContract, *, workers: int) -> PictureHashes | None:
    if holdout is None:
        return None
    from serving.decode_pool import DecodePool
    from validation.photos.near_duplicates import hashes_of

    with DecodePool(workers=workers or os.cpu_count() or 1) as decoder:
        return hashes_of(holdout, contract, decoder=decoder)


def _contract(size: str) -> InputContract:
    from artifact_sync.records import InputContract

    match = _SIZE.match(size)
    if match is None:
        raise SettingsError(
            f"--size {size} refused: write HEIGHTxWIDTHxCHANNELS with 1 or 3 channels, such as 224x224x3."
        )
    return InputContract.model_validate({name: int(value) for name, value in match.groupdict().items()})
