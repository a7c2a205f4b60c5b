"""The stages of one build in their order, over the building folder; each goes on where an earlier build stopped.

Its place in the flow: build.py calls it with the lists in the index; it leaves a finished dataset but for its name.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.canonical import canonical_json, sha256_hex
from artifact_sync.durable import TEMPORARY_PREFIX
from artifact_sync.errors import CapacityError, InputError
from artifact_sync.records import InputContract
from training_cluster.datasets.build_account import (
    ensure_account_fits,
    manifest_of,
    refuse_rejects,
    refuse_without_labels,
)
from training_cluster.datasets.build_progress import Meter, Progress
from training_cluster.datasets.building_folder import UNFINISHED
from training_cluster.datasets.comparing import Digests, compare_files, compare_pixels
from training_cluster.datasets.data_manifest import IndexedDataManifest
from training_cluster.datasets.grouping import Rules, group_examples
from training_cluster.datasets.holdout_list import write_holdout_list
from training_cluster.datasets.photo_index import clear, get_setting, put_setting
from training_cluster.datasets.pixel_parts import PixelParts, part_count
from training_cluster.datasets.reading import Reader, pending_count, photo_count, read_digests, read_photos
from training_cluster.datasets.writing import finished_shards, write_descriptions, write_shards

DATASET = "dataset"
"""The subfolder of the building folder that becomes the dataset."""

_ROOM_FACTOR = 1.05


@dataclass(frozen=True)
class Plan:
    """What a dataset is to be.

    Attributes:
        contract: the shape of the pixels.
        labels: the classes in their order; None takes those found, sorted.
        excluded_sha256s: digests of files and of pixels that are forbidden.
        rules: how examples are grouped and split.
        allowed_rejects: how many photos may be unusable.
    """

    contract: InputContract
    labels: tuple[str, ...] | None
    excluded_sha256s: AbstractSet[str]
    rules: Rules
    allowed_rejects: int

    @property
    def record_bytes(self) -> int:
        """The size of one photo's pixels."""
        return self.contract.height * self.contract.width * self.contract.channels

    @property
    def exact_guard_sha256(self) -> str:
        """A digest over the forbidden digests, without looks: datasets from before there were looks have it."""
        return sha256_hex("\n".join(sorted(self.excluded_sha256s)).encode())

    @property
    def guard_sha256(self) -> str:
        """A digest over everything that is forbidden."""
        looks = self.rules.excluded_looks
        if looks is None or not len(looks):
            return self.exact_guard_sha256
        return sha256_hex(self.exact_guard_sha256.encode() + b"".join(sorted(look.tobytes() for look in looks.hashes)))


class Build:
    """One build over an index whose lists are filled.

    Args:
        index: of photo_index.
        directory: the building folder.
        plan: what is to be built.
        reader: how photos are read.
        progress: told how far it is.
    """

    def __init__(
        self, index: sqlite3.Connection, directory: Path, *, plan: Plan, reader: Reader, progress: Progress | None
    ) -> None:
        self._index, self._directory = index, directory
        self._plan, self._reader, self._progress = plan, reader, progress

    def digests(self) -> tuple[Digests, tuple[str, ...]]:
        """Return the digests of what was handed in, and the classes, without decoding anything."""
        read_digests(self._index, self._reader, progress=self._progress)
        return compare_files(self._index, excluded=self._plan.excluded_sha256s), self._labels()

    def run(self) -> IndexedDataManifest:
        """Build the dataset in the subfolder DATASET; its manifest is returned and not written.

        Raises:
            InputError: photos cannot be used.
            CapacityError: there is no room for the pixels.
            StoreError: a bucket cannot be reached.
        """
        dataset = self._directory / DATASET
        with self._parts() as parts:
            lost = parts.missing()
            while True:
                self._read(parts)
                digests, labels, order = self._compare()
                if self._goes_on(order, parts, lost):
                    break
                lost = []
            self._tidy(dataset)
            write_shards(
                self._index, parts, dataset, contract=self._plan.contract, labels=labels, progress=self._progress
            )
        files = write_descriptions(self._index, dataset, labels=labels)
        write_holdout_list(self._index, dataset, stores=self._reader.stores)
        rules = self._plan.rules
        return manifest_of(
            self._index,
            files,
            contract=self._plan.contract,
            labels=labels,
            sources_sha256=digests.sources,
            sources=digests.lists,
            guard_sha256=self._plan.guard_sha256,
            near_distance=rules.near_distance,
            holdout_share=rules.holdout_share,
        )

    def forget(self) -> None:
        """Give up what the building folder holds: the dataset is there."""
        shutil.rmtree(self._directory / UNFINISHED, ignore_errors=True)

    def _parts(self) -> PixelParts:
        """Return the parts of earlier builds, or none when these were of another shape."""
        shape = canonical_json(self._plan.contract.model_dump(mode="json")).decode()
        directory = self._directory / UNFINISHED
        if get_setting(self._index, "contract") != shape:
            self._forget_shards()
            clear(self._index, "decoded", "part")
            shutil.rmtree(directory, ignore_errors=True)
            parts = part_count(photo_count(self._index), self._plan.record_bytes)
            self._index.executemany("INSERT INTO part VALUES (?, 0)", ((number,) for number in range(parts)))
            put_setting(self._index, "contract", shape)
            self._index.commit()
        slots = [int(count) for (count,) in self._index.execute("SELECT slots FROM part ORDER BY number")]
        return PixelParts(directory, record_bytes=self._plan.record_bytes, slots=slots)

    def _read(self, parts: PixelParts) -> None:
        pending = pending_count(self._index)
        needed = int(pending * self._plan.record_bytes * _ROOM_FACTOR)
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise CapacityError(
                f"Dataset refused: the pixels still to be made need {needed / 1e9:.1f} GB, and the disk of "
                f"{self._directory} has {free / 1e9:.1f} GB left. Make room, or build on another disk."
            )
        read_photos(self._index, parts, self._reader, pending=pending, progress=self._progress)

    def _compare(self) -> tuple[Digests, tuple[str, ...], str]:
        """Return the digests of the lists, the classes, and a digest of the shards' contents in their order."""
        plan = self._plan
        meter = Meter(self._progress, "comparing")
        digests = compare_files(self._index, excluded=plan.excluded_sha256s)
        labels = self._labels()
        compare_pixels(self._index, excluded=plan.excluded_sha256s)
        refuse_rejects(self._index, allowed=plan.allowed_rejects)
        if len(labels) < 2:
            raise InputError(f"Dataset refused: found {len(labels)} classes, a classifier needs at least 2.")
        examples = group_examples(self._index, plan.rules)
        refuse_without_labels(self._index, labels, holdout_share=plan.rules.holdout_share)
        ensure_account_fits(self._index)
        meter.finish()
        return digests, labels, sha256_hex(canonical_json([labels, digests.sources, examples]))

    def _labels(self) -> tuple[str, ...]:
        if self._plan.labels is not None:
            return self._plan.labels
        query = "SELECT DISTINCT label FROM candidate JOIN listed ON listed.id = candidate.listed"
        return tuple(sorted(label for (label,) in self._index.execute(query)))

    def _goes_on(self, order: str, parts: PixelParts, lost: list[int]) -> bool:
        """Return whether the shards can be written now: those of another order are forgotten, with pixels used up."""
        if get_setting(self._index, "order") == order:
            return True
        self._forget_shards()
        for part in lost:
            self._index.execute("DELETE FROM decoded WHERE part = ?", (part,))
            self._index.execute("UPDATE part SET slots = 0 WHERE number = ?", (part,))
            parts.slots[part] = 0
            parts.free(part)
        put_setting(self._index, "order", order)
        self._index.commit()
        return not lost

    def _tidy(self, dataset: Path) -> None:
        """Make the subfolder, and remove from it what a killed build was writing."""
        dataset.mkdir(exist_ok=True)
        finished = {shard.path for shard in finished_shards(self._index)}
        for path in dataset.rglob("*"):
            # What lies deeper, the holdout's photos from a bucket, is whole unless it is still temporary.
            is_whole = path.name in finished if path.parent == dataset else not path.name.startswith(TEMPORARY_PREFIX)
            if path.is_file() and not is_whole:
                path.unlink()

    def _forget_shards(self) -> None:
        clear(self._index, "shard")
        self._index.execute("DELETE FROM setting WHERE name = 'order'")
        self._index.commit()
        shutil.rmtree(self._directory / DATASET, ignore_errors=True)
