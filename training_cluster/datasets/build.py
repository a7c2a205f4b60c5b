"""Labelled photos become shards of canonical pixels and a manifest that accounts for every photo.

Its place in the flow: `liftgate dataset build`; the trainer reads the result.

    lists → listing → reading: digest, pixels, look → comparing: double, contradictory, forbidden, groups, sides
        → writing: shards → hashes, blocks, examples → manifest → one rename

Photos become pixels through the photo contract only, in killable children. What a stage has done lies
in a folder beside the dataset-to-be, so a build that was interrupted or killed goes on where it stopped.
A dataset appears whole by one rename, and the same photos give the same digest whatever their order,
the number of workers and the interruptions.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from pathlib import Path

from artifact_sync.durable import fsync_directory, write_durably
from artifact_sync.errors import CapacityError, IntegrityError, NotFoundError, RefusedError, SettingsError
from artifact_sync.records import InputContract
from serving.hash_search import MAX_DISTANCE
from serving.perceptual_hash import PictureHashes
from training_cluster.datasets.build_progress import Meter, Progress
from training_cluster.datasets.build_stages import DATASET, Build, Plan
from training_cluster.datasets.building_folder import locked_building_folder
from training_cluster.datasets.data_manifest import FILE_NAME, DataManifest, IndexedDataManifest, load_data_manifest
from training_cluster.datasets.grouping import Rules
from training_cluster.datasets.listing import PhotoLists, list_photos
from training_cluster.datasets.photo_index import open_index
from training_cluster.datasets.reading import Reader
from training_cluster.datasets.stored_photos import PhotoStores

_INDEX = "index.sqlite"


def build_dataset(
    photos: PhotoLists,
    *,
    out_dir: Path,
    contract: InputContract,
    excluded_sha256s: AbstractSet[str],
    excluded_looks: PictureHashes | None = None,
    workers: int = 0,
    progress: Progress | None = None,
    labels: Sequence[str] | None = None,
    allowed_rejects: int = 0,
    near_distance: int = 4,
    holdout_share: float = 0.0,
    stores: PhotoStores | None = None,
) -> DataManifest:
    """Build the dataset `out_dir`, or return the one there when it was built from the same photos.

    Args:
        photos: what people labelled, by the name of each list; they are iterated once.
        out_dir: the folder that appears; its parent is made when missing.
        contract: the shape that the pixels get.
        excluded_sha256s: digests of photo files or of canonical pixels that must not be trained on: the holdout.
        excluded_looks: looks, at the same contract, to which no example may be near: the holdout's.
        workers: decoding processes; 0 takes one for each core.
        progress: told how far it is.
        labels: the classes in their order; by default the labels found, sorted.
        allowed_rejects: how many unreadable or mislabelled photos may be left out.
        near_distance: photos whose looks differ in at most so many bits of 128 are near duplicates; 0 to 7.
        holdout_share: share of the groups of near duplicates that goes to `holdout.csv` instead of the shards.
        stores: the buckets that photos in s3:// are read from; by default those of the AWS chain.

    Raises:
        InputError: a list is wrong, more photos than allowed cannot be used (each is named), or fewer than two
            classes are left.
        RefusedError: `out_dir` holds another dataset or something else, or is being built by another process.
        CapacityError: the disk has no room, or gets full; what is done is kept.
        SettingsError: a distance or share is out of range.
    """
    if not 0 <= near_distance <= MAX_DISTANCE:
        raise SettingsError(f"Dataset refused: the distance of near duplicates is 0 to {MAX_DISTANCE} bits.")
    if not 0 <= holdout_share < 1:
        raise SettingsError(f"Dataset refused: the holdout's share is {holdout_share}; write one from 0 to below 1.")
    existing = _existing(out_dir)
    plan = Plan(
        contract=contract,
        labels=None if labels is None else tuple(labels),
        excluded_sha256s=excluded_sha256s,
        rules=Rules(near_distance=near_distance, holdout_share=holdout_share, excluded_looks=excluded_looks),
        allowed_rejects=allowed_rejects,
    )
    reader = Reader(contract=contract, stores=stores or PhotoStores(), workers=workers or os.cpu_count() or 1)
    with locked_building_folder(out_dir) as directory, _in_words(directory), closing(_index(directory)) as index:
        list_photos(index, photos, labels=labels, meter=Meter(progress, "listing"))
        build = Build(index, directory, plan=plan, reader=reader, progress=progress)
        if existing is not None:
            return _same(existing, build, plan, out_dir)
        manifest = build.run()
        write_durably(directory / DATASET / FILE_NAME, manifest.to_json())
        (directory / DATASET).rename(out_dir)
        fsync_directory(out_dir.parent)
        build.forget()
    return manifest


def _index(directory: Path) -> sqlite3.Connection:
    return open_index(directory / _INDEX)


def _existing(out_dir: Path) -> DataManifest | None:
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return None
    try:
        return load_data_manifest(out_dir)
    except NotFoundError:
        raise RefusedError(f"Dataset refused: {out_dir} is not empty and is no dataset. Name another folder.") from None


def _same(existing: DataManifest, build: Build, plan: Plan, out_dir: Path) -> DataManifest:
    """Return the dataset that is there.

    Raises:
        RefusedError: it is not the one that was to be built.
    """
    digests, labels = build.digests()
    build.forget()
    wanted: tuple[object, ...] = (digests.sources, plan.contract, labels)
    found: tuple[object, ...] = (existing.sources_sha256, existing.contract, existing.labels)
    guard = plan.exact_guard_sha256
    if isinstance(existing, IndexedDataManifest):
        guard = plan.guard_sha256
        wanted += (plan.rules.near_distance, plan.rules.holdout_share)
        found += (existing.near_distance, existing.holdout_share)
    if (*wanted, guard) != (*found, existing.guard_sha256):
        raise RefusedError(
            f"Dataset refused: {out_dir} holds a dataset of other photos, labels, size, holdout or rules, and a "
            "dataset is never changed. Name another folder, or remove this one."
        )
    return existing


@contextmanager
def _in_words(directory: Path) -> Iterator[None]:
    """Translate what the disk and SQLite say."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _full(directory) from None
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise _full(directory) from None
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            f"Dataset refused: what earlier builds left in {directory} was changed ({error}). Remove that folder and "
            "build again."
        ) from None


def _full(directory: Path) -> CapacityError:
    return CapacityError(
        f"Dataset not finished: the disk of {directory} is full. What is decoded is kept there; make room and build "
        "again."
    )
