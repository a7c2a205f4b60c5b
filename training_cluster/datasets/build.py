"""Labelled photos become shards of canonical pixels and a manifest that accounts for every photo.

Its place in the flow: `liftgate dataset build`; the trainer reads the result. Photos become pixels
through the photo contract only, in killable children. A dataset appears whole by one rename, and
the same photos give the same digest whatever their order and the number of workers.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.canonical import sha256_hex
from artifact_sync.durable import fsync_directory, write_durably
from artifact_sync.errors import InputError, NotFoundError, PhotoError, RefusedError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.perceptual_hash import perceptual_hash
from training_cluster.datasets.block_index import write_blocks
from training_cluster.datasets.data_manifest import (
    FILE_NAME,
    DataManifest,
    ExampleFile,
    IndexedDataManifest,
    LeftOut,
    load_data_manifest,
)
from training_cluster.datasets.example_table import NO_VALUE, ExampleTable, write_examples
from training_cluster.datasets.hash_file import HashWriter
from training_cluster.datasets.shard_writer import ShardWriter
from training_cluster.datasets.survey import Account, Source, slice_counts, sources_sha256, survey

Progress = Callable[[int, int], None]
"""Told photos done and photos in all."""

_FEEDBACK_PREFIX = "feedback:"
_SHOWN_REJECTS = 50
_PROGRESS_EVERY = 256


def build_dataset(
    photos: Sequence[LabelledPhoto],
    *,
    out_dir: Path,
    contract: InputContract,
    excluded_sha256s: AbstractSet[str],
    workers: int = 0,
    progress: Progress | None = None,
    labels: Sequence[str] | None = None,
    allowed_rejects: int = 0,
) -> DataManifest:
    """Build the dataset `out_dir`, or return the one there when it was built from the same photos.

    Args:
        photos: what people labelled, in any order.
        out_dir: the folder that appears; its parent is made when missing.
        contract: the shape that the pixels get.
        excluded_sha256s: digests of photo files or of canonical pixels that must not be trained on: the holdout.
        workers: decoding processes; 0 takes one for each core.
        progress: told photos done and in all.
        labels: the classes in their order; by default the labels found, sorted.
        allowed_rejects: how many unreadable or mislabelled photos may be left out.

    Raises:
        InputError: more photos than allowed cannot be used (each is named), or fewer than two classes are left.
        RefusedError: `out_dir` holds another dataset or something else.
    """
    account = Account()
    sources = survey(photos, labels=labels, excluded_sha256s=excluded_sha256s, account=account)
    classes = tuple(labels if labels is not None else sorted({source.photo.label for source in sources}))
    build = _Build(sources, account, contract=contract, labels=classes, excluded_sha256s=excluded_sha256s)
    if (existing := _existing(out_dir, build)) is not None:
        return existing
    with _building_directory(out_dir) as directory:
        manifest = build.run(
            directory, workers=workers or os.cpu_count() or 1, progress=progress, allowed=allowed_rejects
        )
        write_durably(directory / FILE_NAME, manifest.to_json())
        directory.rename(out_dir)
        fsync_directory(out_dir.parent)
    return manifest


class _Build:
    """One build: the second pass, from surveyed sources to the manifest."""

    def __init__(
        self,
        sources: tuple[Source, ...],
        account: Account,
        *,
        contract: InputContract,
        labels: tuple[str, ...],
        excluded_sha256s: AbstractSet[str],
    ) -> None:
        self.sources = sources
        self.account = account
        self.contract = contract
        self.labels = labels
        self.excluded_sha256s = excluded_sha256s
        self.sources_sha256 = sources_sha256(sources)
        self.guard_sha256 = sha256_hex("\n".join(sorted(excluded_sha256s)).encode())

    def run(self, directory: Path, *, workers: int, progress: Progress | None, allowed: int) -> IndexedDataManifest:
        """Decode, guard, write; return the manifest."""
        if len(self.labels) < 2:
            # With nothing usable the rejects are the better message.
            self._refuse_rejects(allowed)
            raise InputError(f"Dataset refused: found {len(self.labels)} classes, a classifier needs at least 2.")
        index = {label: number for number, label in enumerate(self.labels)}
        writer = ShardWriter(directory, expected_count=len(self.sources), contract=self.contract)
        accepted: list[Source] = []
        with HashWriter(directory) as hash_writer:
            for source, pixels in self._usable(workers, progress):
                sha256 = bytes.fromhex(source.sha256)
                writer.add(pixels.tobytes(), label=index[source.photo.label], source=sha256)
                hash_writer.add(perceptual_hash(pixels), source=sha256)
                accepted.append(source)
            shards, hashes = writer.close(), hash_writer.finish()
        blocks = write_blocks(directory, writer.blocks)
        self._refuse_rejects(allowed)
        counts = Counter(source.photo.label for source in accepted)
        if missing := [label for label in self.labels if not counts[label]]:
            raise InputError(f"Dataset refused: no usable photo has the label {', '.join(missing)}.")
        return IndexedDataManifest(
            contract=self.contract,
            labels=self.labels,
            shards=shards,
            example_counts={label: counts[label] for label in self.labels},
            slice_counts=slice_counts(source.photo for source in accepted),
            rejects=_in_order(self.account.rejects),
            excluded=_in_order(self.account.excluded),
            duplicates=_in_order(self.account.duplicates),
            feedback_count=sum(source.photo.source.startswith(_FEEDBACK_PREFIX) for source in accepted),
            sources_sha256=self.sources_sha256,
            guard_sha256=self.guard_sha256,
            hashes=hashes,
            blocks=blocks,
            examples=self._write_examples(directory, accepted, index),
            near_duplicates=(),
            sources={},
            holdout_count=0,
        )

    def _write_examples(self, directory: Path, accepted: Sequence[Source], index: dict[str, int]) -> ExampleFile:
        values = {
            column: tuple(sorted({source.photo.slices[column] for source in accepted if column in source.photo.slices}))
            for column in sorted({column for source in accepted for column in source.photo.slices})
        }
        codes = {column: {value: code for code, value in enumerate(found)} for column, found in values.items()}
        table = ExampleTable(
            labels=np.array([index[source.photo.label] for source in accepted], dtype=np.uint16),
            starts_group=np.ones(len(accepted), dtype=np.bool_),
            slices={
                column: np.array(
                    [codes[column].get(source.photo.slices.get(column, ""), NO_VALUE) for source in accepted],
                    dtype=np.uint16,
                )
                for column in values
            },
        )
        return write_examples(directory, table, slice_values=values)

    def _usable(self, workers: int, progress: Progress | None) -> Iterator[tuple[Source, NDArray[np.uint8]]]:
        """Yield the sources whose pixels are readable, not in the holdout, and not there yet."""
        seen: dict[str, LabelledPhoto] = {}
        with DecodePool(workers=workers) as pool:
            decoded = pool.decode_many((_read(source) for source in self.sources), self.contract)
            for done, (source, answer) in enumerate(zip(self.sources, decoded, strict=True), start=1):
                if progress is not None and (done % _PROGRESS_EVERY == 0 or done == len(self.sources)):
                    progress(done, len(self.sources))
                if isinstance(answer, PhotoError):
                    self.account.reject(source.photo, str(answer))
                    continue
                sha256 = sha256_hex(answer.tobytes())
                if sha256 in self.excluded_sha256s:
                    self.account.exclude(source.photo, "its pixels")
                elif (first := seen.setdefault(sha256, source.photo)) is source.photo:
                    yield source, answer
                elif first.label == source.photo.label:
                    self.account.duplicate(source.photo, first, "pixels")
                else:
                    self.account.reject(
                        source.photo,
                        f"labelled {source.photo.label}, but its pixels are those of "
                        f"{first.source}, labelled {first.label}",
                    )

    def _refuse_rejects(self, allowed: int) -> None:
        rejects = _in_order(self.account.rejects)
        if len(rejects) <= allowed:
            return
        lines = [f"  {reject.source}: {reject.reason}" for reject in rejects[:_SHOWN_REJECTS]]
        if len(rejects) > _SHOWN_REJECTS:
            lines.append(f"  and {len(rejects) - _SHOWN_REJECTS} more")
        raise InputError(
            f"Dataset refused: {len(rejects)} photos cannot be used and {allowed} may be left out:\n"
            + "\n".join(lines)
            + f"\nCorrect or remove these rows, or allow {len(rejects)} rejects."
        )


def _read(source: Source) -> bytes:
    try:
        data = source.photo.path.read_bytes()
    except OSError as error:
        raise InputError(f"Dataset refused: {source.photo.path} went away meanwhile ({error.strerror}).") from None
    if sha256_hex(data) != source.sha256:
        raise InputError(f"Dataset refused: {source.photo.path} was changed meanwhile. Build again when it is at rest.")
    return data


def _in_order(left_out: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    return tuple(sorted(left_out, key=lambda entry: (entry.source, entry.reason)))


def _existing(out_dir: Path, build: _Build) -> DataManifest | None:
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return None
    try:
        manifest = load_data_manifest(out_dir)
    except NotFoundError:
        raise RefusedError(f"Dataset refused: {out_dir} is not empty and is no dataset. Name another folder.") from None
    made_of = (manifest.sources_sha256, manifest.guard_sha256, manifest.contract, manifest.labels)
    if made_of != (build.sources_sha256, build.guard_sha256, build.contract, build.labels):
        raise RefusedError(
            f"Dataset refused: {out_dir} holds a dataset of other photos, labels, size or holdout, and a dataset is "
            "never changed. Name another folder, or remove this one."
        )
    return manifest


@contextmanager
def _building_directory(out_dir: Path) -> Iterator[Path]:
    """Yield a new folder beside `out_dir`, locked while in use; those of dead builds are removed."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".building-{out_dir.name}-"
    for leftover in out_dir.parent.glob(f"{prefix}*"):
        with _locked(leftover) as is_mine:
            if is_mine:
                shutil.rmtree(leftover)
    directory = out_dir.parent / f"{prefix}{secrets.token_hex(4)}"
    directory.mkdir()
    try:
        with _locked(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
