"""Measures each stage of the inputs alone: how many images a second it would give if the others cost nothing.

Its place in the flow: `measure/bench.py` runs them one after the other over one dataset, each with the
threads that the input pipeline gives it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.augmentation import Augmentation
from training_cluster.inputs.records import RecordLayout
from training_cluster.inputs.source import DataSource
from training_cluster.inputs.split import ExampleSplit

StageName = Literal["reading", "parsing", "augmenting", "handing over", "to the device"]

_MOST_AUGMENTERS = 8
_KEPT_BYTES = 64_000_000


@dataclass(frozen=True)
class StageRate:
    """What a stage gives alone.

    Attributes:
        images_per_second: pictures that went through it.
        bytes_per_second: of the records that were read, or of the pixels.
    """

    stage: StageName
    images_per_second: float
    bytes_per_second: float


class StageBench:
    """Measures the stages of one training's inputs, each for so many seconds."""

    def __init__(self, source: DataSource, split: ExampleSplit, config: TrainingConfig, *, seconds: float) -> None:
        self._source = source
        self._config = config
        self._seconds = seconds
        self._layout = RecordLayout(split.contract)
        self._augmentation = Augmentation(config.augmentation, split.contract, seed=config.execution.seed)
        self._picture = (split.contract.height, split.contract.width, split.contract.channels)

    def rates(self, progress: Callable[[str], None]) -> Iterator[StageRate]:
        """Yield the rate of each stage; one that has nothing to do here is left out."""
        progress("reading")
        reading, blocks = self._reading()
        yield reading
        progress("parsing")
        yield self._in_threads("parsing", self._parse, blocks, threads=self._source.connections)
        pictures = self._pictures(blocks, count=self._config.optimization.batch_size)
        if self._augmentation.is_needed:
            progress("augmenting")
            yield self._augmenting(pictures)
        progress("handing over")
        yield self._one_by_one("handing over", self._handed_over(pictures))
        if _has_gpu():
            progress("to the device")
            yield self._one_by_one("to the device", _copied_to_gpu(pictures))

    def _reading(self) -> tuple[StageRate, Sequence[bytes]]:
        """Read blocks as a first epoch does, each digest looked at; return some of them too."""
        counts = self._source.blocks["count"].astype(np.int64)
        order = iter(np.random.default_rng(0).permutation(len(counts)).tolist())
        began = time.perf_counter()
        kept: list[bytes] = []

        def read() -> tuple[int, int]:
            images = size_bytes = 0
            # Taking the next of a list's iterator is one step for the interpreter: no two threads get the same.
            for block in order:
                data = self._source.read_block(block)
                images += int(counts[block])
                size_bytes += len(data)
                if sum(map(len, kept)) < _KEPT_BYTES:
                    kept.append(data)
                if time.perf_counter() - began >= self._seconds:
                    break
            return images, size_bytes

        with ThreadPoolExecutor(self._source.connections) as pool:
            done = [task.result() for task in [pool.submit(read) for _ in range(self._source.connections)]]
        elapsed = time.perf_counter() - began
        images, size_bytes = (sum(column) for column in zip(*done, strict=True))
        return StageRate("reading", images / elapsed, size_bytes / elapsed), kept

    def _parse(self, data: bytes) -> int:
        """Find the pixels of a block and copy them to where a window has its pictures; return how many."""
        return len(self._parsed(data))

    def _parsed(self, data: bytes) -> NDArray[np.uint8]:
        parsed = self._layout.parse(data)
        pixels = np.empty((len(parsed.labels), self._layout.pixel_bytes), np.uint8)
        parsed.copy_into(pixels, rows=np.arange(len(pixels)), slots=np.arange(len(pixels)))
        return pixels

    def _pictures(self, blocks: Sequence[bytes], *, count: int) -> NDArray[np.uint8]:
        """Return so many pictures [count, h, w, c] out of blocks, repeated where there are fewer."""
        rows = []
        for data in blocks:
            rows.append(self._parsed(data))
            if sum(map(len, rows)) >= count:
                break
        return np.resize(np.concatenate(rows), (count, *self._picture))

    def _augmenting(self, pictures: NDArray[np.uint8]) -> StageRate:
        places = np.arange(len(pictures))

        def change(epoch: int) -> int:
            return len(self._augmentation.apply(pictures, epoch=epoch, places=places))

        threads = min(_MOST_AUGMENTERS, os.cpu_count() or 1)
        return self._in_threads("augmenting", change, range(threads), threads=threads)

    def _handed_over(self, pictures: NDArray[np.uint8]) -> Iterator[int]:
        """Take batches that lie ready out of TensorFlow as the training's loop does; yield how many pictures."""
        import tensorflow as tf  # noqa: PLC0415

        deadline = time.perf_counter() + self._seconds + 1

        def produce() -> Iterator[NDArray[np.uint8]]:
            while time.perf_counter() < deadline:
                yield pictures

        signature = tf.TensorSpec(pictures.shape, tf.uint8)
        return (len(batch) for batch in tf.data.Dataset.from_generator(produce, output_signature=signature).prefetch(2))

    def _in_threads(
        self, stage: StageName, act: Callable[[Any], int], parts: Sequence[Any], *, threads: int
    ) -> StageRate:
        """Let each thread act on parts, one after the other, until the time is over."""
        began = time.perf_counter()

        def repeat(start: int) -> int:
            images = 0
            for number in itertools.count(start, threads):
                images += act(parts[number % len(parts)])
                if time.perf_counter() - began >= self._seconds:
                    break
            return images

        with ThreadPoolExecutor(threads) as pool:
            images = sum(pool.map(repeat, range(threads)))
        return self._rate(stage, images, time.perf_counter() - began)

    def _one_by_one(self, stage: StageName, counts: Iterator[int]) -> StageRate:
        # The first one pays for starting.
        next(counts)
        began, images = time.perf_counter(), 0
        for count in counts:
            images += count
            if time.perf_counter() - began >= self._seconds:
                break
        return self._rate(stage, images, time.perf_counter() - began)

    def _rate(self, stage: StageName, images: int, elapsed: float) -> StageRate:
        return StageRate(stage, images / elapsed, images * self._layout.pixel_bytes / elapsed)


def _has_gpu() -> bool:
    import tensorflow as tf  # noqa: PLC0415

    return bool(tf.config.list_physical_devices("GPU"))


def _copied_to_gpu(pictures: NDArray[np.uint8]) -> Iterator[int]:
    import tensorflow as tf  # noqa: PLC0415

    with tf.device("/CPU:0"):
        batch = tf.constant(pictures)
    while True:
        with tf.device("/GPU:0"):
            tf.identity(batch)
        tf.test.experimental.sync_devices()
        yield len(pictures)
