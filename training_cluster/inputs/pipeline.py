"""From a plan of an epoch to batches: read ahead, augment, hand over to TensorFlow.

Its place in the flow: the training loop iterates one of these datasets for each epoch. Everything
random is drawn from the seed, the epoch and the place in it, so that a run which starts again in the
middle of an epoch sees exactly the examples that were left, whatever number of hosts goes on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.augmentation import Augmentation
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.order import HostPlan, OrderRules, epoch_row, host_plan
from training_cluster.inputs.position import EpochPosition, ReplicaShare
from training_cluster.inputs.split import ExampleSplit
from training_cluster.inputs.windows import Window, WindowReader

_RECORD_OVERHEAD_BYTES = 128
_MOST_WORKERS = 8
_VALIDATION_WINDOW_BYTES = 32 * 1024 * 1024

Batch = tuple[Any, ...]

_ALL_ALONE = ReplicaShare()


def training_batches(
    split: ExampleSplit,
    config: TrainingConfig,
    *,
    position: EpochPosition,
    share: ReplicaShare = _ALL_ALONE,
    meter: InputMeter | None = None,
) -> tf.data.Dataset:
    """Return an epoch from a position on: pixels uint8 [b, h, w, c], labels int64 [b], weights float32 [b].

    `b` is the batch of one replica; a pipeline with several replicas yields their batches in turn. The
    last step is filled up with examples of weight 0, all others have weight 1.

    Raises:
        SettingsError: the batch size is not a multiple of the number of replicas, or the pictures cannot
            be augmented like that.
    """
    total_replicas = share.replicas * share.pipelines
    batch_size, rest = divmod(config.optimization.batch_size, total_replicas)
    if rest:
        raise SettingsError(
            f"Training refused: optimization.batch_size {config.optimization.batch_size} cannot be shared out "
            f"evenly over {total_replicas} replicas. Use a multiple of {total_replicas}."
        )
    augmentation = Augmentation(config.augmentation, split.contract, seed=config.execution.seed)
    meter = meter or InputMeter()

    def produce() -> Iterator[Batch]:
        row, plan = _planned(split, config, position=position, share=share)
        cutter = _Cutter(split, augmentation, epoch=position.epoch, batch_size=batch_size, meter=meter)
        reader = WindowReader(split.source, meter=meter)
        with meter.keeping_errors():
            yield from cutter.batches(reader.windows(row[plan.places], plan.windows), plan)

    return tf.data.Dataset.from_generator(
        produce,
        output_signature=(
            *_signature(split.contract, batch_size),
            tf.TensorSpec([batch_size], tf.float32),
        ),
    ).prefetch(2)


def validation_batches(
    split: ExampleSplit,
    *,
    batch_size: int = 256,
    share: ReplicaShare = _ALL_ALONE,
    meter: InputMeter | None = None,
) -> tf.data.Dataset:
    """Return the validation examples in their fixed order: pixels uint8 [≤ batch_size, h, w, c], labels int64.

    Of several pipelines each gets every so many-th batch, and reads no others.
    """
    meter = meter or InputMeter()
    picture = (split.contract.height, split.contract.width, split.contract.channels)
    batches = np.arange(split.validation_count) // batch_size
    examples = np.flatnonzero(batches % share.pipelines == share.pipeline)
    step = batch_size * max(1, _VALIDATION_WINDOW_BYTES // (batch_size * int(np.prod(picture))))
    edges = [(begin, min(begin + step, len(examples))) for begin in range(0, len(examples), step)]

    def produce() -> Iterator[Batch]:
        reader = WindowReader(split.source, meter=meter)
        with meter.keeping_errors():
            for window in reader.windows(examples, edges):
                for begin in range(0, len(window.labels), batch_size):
                    pixels = window.pixels[begin : begin + batch_size]
                    yield pixels.reshape(-1, *picture), window.labels[begin : begin + batch_size]

    return tf.data.Dataset.from_generator(produce, output_signature=_signature(split.contract, None)).prefetch(2)


class _Cutter:
    """Cuts windows into batches and changes their pictures, a few batches ahead of their use."""

    def __init__(
        self, split: ExampleSplit, augmentation: Augmentation, *, epoch: int, batch_size: int, meter: InputMeter
    ) -> None:
        self._shape = (batch_size, split.contract.height, split.contract.width, split.contract.channels)
        self._augmentation = augmentation
        self._epoch = epoch
        self._batch_size = batch_size
        self._meter = meter

    def batches(self, windows: Iterator[Window], plan: HostPlan) -> Iterator[Batch]:
        """Yield pixels, labels and weights of each batch of one replica."""
        tasks = self._tasks(windows, plan)
        if not self._augmentation.is_needed:
            yield from (task() for task in tasks)
            return
        workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="augment")
        try:
            ahead: deque[Future[Batch]] = deque()
            for task in tasks:
                ahead.append(pool.submit(task))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _tasks(self, windows: Iterator[Window], plan: HostPlan) -> Iterator[Callable[[], Batch]]:
        weights = plan.is_shown.astype(np.float32)
        for window, (first, last) in zip(windows, plan.windows, strict=True):
            for begin in range(first, last, self._batch_size):
                rows = slice(begin - first, begin - first + self._batch_size)
                chosen = slice(begin, begin + self._batch_size)
                yield lambda window=window, rows=rows, chosen=chosen: self._batch(  # type: ignore[misc]
                    window.pixels[rows], window.labels[rows], weights[chosen], places=plan.places[chosen]
                )

    def _batch(self, pixels: Any, labels: Any, weights: Any, *, places: Any) -> Batch:
        with self._meter.stage("augmenting", images=len(labels)):
            pictures = pixels.reshape(self._shape)
            if self._augmentation.is_needed:
                pictures = self._augmentation.apply(pictures, epoch=self._epoch, places=places)
            return pictures, labels, weights


def _planned(
    split: ExampleSplit, config: TrainingConfig, *, position: EpochPosition, share: ReplicaShare
) -> tuple[Any, HostPlan]:
    """Return the example at each place of the epoch, and which places this pipeline shows."""
    seed = config.execution.seed
    row = epoch_row(
        split.source.blocks,
        split.repetitions(position.epoch),
        seed=seed,
        epoch=position.epoch,
        interleaved_shards=config.data.interleaved_shards,
    )
    rules = OrderRules(seed, config.optimization.batch_size, _window_examples(split, config))
    plan = host_plan(len(row), rules, position=position, pipelines=share.pipelines, pipeline=share.pipeline)
    return row, plan


def _window_examples(split: ExampleSplit, config: TrainingConfig) -> int:
    """Return how many examples fit into half of the memory for shuffling; the other half is the window ahead."""
    contract = split.contract
    record_bytes = contract.height * contract.width * contract.channels + _RECORD_OVERHEAD_BYTES
    return max(1, config.data.shuffle_megabytes * 1_000_000 // 2 // record_bytes)


def _signature(contract: InputContract, batch_size: int | None) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    shape = [batch_size, contract.height, contract.width, contract.channels]
    return tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([batch_size], tf.int64)
