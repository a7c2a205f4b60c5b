"""From shards to batches: read, shuffle, share out over the replicas, parse, augment.

Its place in the flow: the training loop iterates one of these datasets for each epoch. Everything
random is drawn from the seed, the epoch and the position, so that a run which starts again in the
middle of an epoch sees exactly the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.training_config import TrainingConfig
from training_cluster.datasets.data_manifest import DataManifest

_INTERLEAVED_SHARDS = 8
_INTERLEAVED_RECORDS = 16
_RECORD_OVERHEAD_BYTES = 128


@dataclass(frozen=True)
class ShardSlice:
    """Records `skip` to `skip + count` of one shard."""

    path: Path
    skip: int
    count: int


@dataclass(frozen=True)
class ReplicaShare:
    """Which part of each global batch an input pipeline feeds: `replicas` of `replicas * pipelines` in all."""

    pipelines: int = 1
    pipeline: int = 0
    replicas: int = 1


class ExampleSplit:
    """The examples of a dataset, divided into those for validation and those for training.

    Shards hold examples in the order of their photos' digests, so a leading part of that order is a
    random sample that needs no reading to be found and hardly changes when photos are added.
    """

    def __init__(self, data_dir: Path, manifest: DataManifest, config: TrainingConfig) -> None:
        self.contract = manifest.contract
        validation_count = max(1, round(manifest.count * config.data.validation_share))
        training_count = manifest.count - validation_count
        if config.data.max_examples:
            training_count = min(training_count, config.data.max_examples)
        self.validation = _slices(data_dir, manifest, start=0, count=validation_count)
        self.training = _slices(data_dir, manifest, start=validation_count, count=training_count)
        self.validation_count = validation_count
        self.training_count = training_count
        self.steps_per_epoch = training_count // config.optimization.batch_size
        if self.steps_per_epoch == 0:
            raise SettingsError(
                f"Training refused: {training_count} examples are left for training, fewer than one batch of "
                f"{config.optimization.batch_size}. Label more photos or lower optimization.batch_size."
            )


def training_batches(
    split: ExampleSplit,
    config: TrainingConfig,
    *,
    epoch: int,
    first_step: int = 0,
    share: ReplicaShare = ReplicaShare(),
) -> tf.data.Dataset:
    """Return one epoch from `first_step` on: pixels uint8 [b, h, w, c], labels int64 [b].

    `b` is the batch of one replica; a pipeline with several replicas yields their batches in turn.
    The examples of a global batch do not depend on the number of replicas.

    Raises:
        SettingsError: the batch size is not a multiple of the number of replicas.
    """
    total_replicas = share.replicas * share.pipelines
    batch_size, rest = divmod(config.optimization.batch_size, total_replicas)
    if rest:
        raise SettingsError(
            f"Training refused: optimization.batch_size {config.optimization.batch_size} cannot be shared out "
            f"evenly over {total_replicas} replicas. Use a multiple of {total_replicas}."
        )
    order = np.random.default_rng([config.execution.seed, epoch]).permutation(len(split.training))
    records = _read([split.training[index] for index in order])
    records = records.shuffle(_buffer_size(split, config), seed=_seed(config, epoch), reshuffle_each_iteration=False)
    batches = records.batch(batch_size, drop_remainder=True).enumerate()
    # Batch i of the epoch belongs to replica i modulo their number, so skipping steps skips whole rounds.
    batches = batches.take(split.steps_per_epoch * total_replicas).skip(first_step * total_replicas)
    if total_replicas > 1:
        mine = range(share.pipeline * share.replicas, (share.pipeline + 1) * share.replicas)
        batches = batches.filter(lambda index, _: tf.reduce_any(index % total_replicas == list(mine)))
    seed = tf.constant([_seed(config, epoch), 0], tf.int64)
    batches = batches.map(
        lambda index, serialized: _augmented(
            *_parse(serialized, split.contract), config=config, seed=seed + tf.stack([0, index])
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def validation_batches(split: ExampleSplit, *, batch_size: int = 256) -> tf.data.Dataset:
    """Return the validation examples in their fixed order: pixels uint8 [≤ batch_size, h, w, c], labels int64."""
    batches = _read(split.validation).batch(batch_size)
    return batches.map(lambda serialized: _parse(serialized, split.contract)).prefetch(2)


def _slices(data_dir: Path, manifest: DataManifest, *, start: int, count: int) -> tuple[ShardSlice, ...]:
    slices: list[ShardSlice] = []
    position = 0
    for shard in manifest.shards:
        first, last = max(start, position), min(start + count, position + shard.count)
        if first < last:
            slices.append(ShardSlice(data_dir / shard.path, skip=first - position, count=last - first))
        position += shard.count
    return tuple(slices)


def _read(slices: Sequence[ShardSlice]) -> tf.data.Dataset:
    parts = (
        [str(part.path) for part in slices],
        np.array([part.skip for part in slices], np.int64),
        np.array([part.count for part in slices], np.int64),
    )
    return tf.data.Dataset.from_tensor_slices(parts).interleave(
        lambda path, skip, count: tf.data.TFRecordDataset(path).skip(skip).take(count),
        cycle_length=_INTERLEAVED_SHARDS,
        block_length=_INTERLEAVED_RECORDS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _buffer_size(split: ExampleSplit, config: TrainingConfig) -> int:
    contract = split.contract
    record_bytes = contract.height * contract.width * contract.channels + _RECORD_OVERHEAD_BYTES
    affordable = config.data.shuffle_megabytes * 1_000_000 // record_bytes
    return max(1, min(split.training_count, affordable))


def _seed(config: TrainingConfig, epoch: int) -> int:
    return int(np.random.SeedSequence([config.execution.seed, epoch]).generate_state(1)[0])


def _parse(serialized: Any, contract: InputContract) -> tuple[Any, Any]:
    parsed = tf.io.parse_example(
        serialized, {"pixels": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    )
    shape = [contract.height, contract.width, contract.channels]
    pixels = tf.io.decode_raw(parsed["pixels"], tf.uint8, fixed_length=int(np.prod(shape)))
    return tf.reshape(pixels, [-1, *shape]), parsed["label"]


def _augmented(pixels: Any, labels: Any, *, config: TrainingConfig, seed: Any) -> tuple[Any, Any]:
    table = config.augmentation
    if table.flip_horizontal:
        chance = tf.random.stateless_uniform([tf.shape(pixels)[0], 1, 1, 1], seed)
        pixels = tf.where(chance < 0.5, pixels, tf.reverse(pixels, axis=[2]))
    if table.shift_pixels:
        pixels = _shifted(pixels, reach=table.shift_pixels, seed=seed + tf.constant([1, 0], tf.int64))
    return pixels, labels


def _shifted(pixels: Any, *, reach: int, seed: Any) -> Any:
    """Move each picture by up to `reach` pixels in both directions; what comes in repeats the mirrored edge."""
    count, height, width = tf.shape(pixels)[0], pixels.shape[1], pixels.shape[2]
    padded = tf.pad(pixels, [[0, 0], [reach, reach], [reach, reach], [0, 0]], mode="SYMMETRIC")
    offsets = tf.random.stateless_uniform([count, 2], seed, maxval=2 * reach + 1, dtype=tf.int32)
    rows = tf.gather(padded, offsets[:, :1] + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(rows, offsets[:, 1:] + tf.range(width), axis=2, batch_dims=1)
