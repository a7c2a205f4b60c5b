"""Measures the inputs of a training on this machine: each stage alone, all together, and the first batch.

Its place in the flow: `liftgate data bench` asks before a training of days whether its GPUs would wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.position import EpochPosition
from training_cluster.inputs.source import open_source
from training_cluster.inputs.split import ExampleSplit
from training_cluster.measure.stages import StageBench, StageRate

Progress = Callable[[str], None]

# A store that is away ends a measurement sooner than a training.
_RETRY_SECONDS = 20.0


@dataclass(frozen=True)
class InputBench:
    """What the inputs gave.

    Attributes:
        stages: each stage alone; one that there is nothing to do for is left out.
        images_per_second: all stages together, from the second batch on.
        first_batch_seconds: from opening the dataset to the first batch.
        cores: that this process may use.
        batch_size: of the configuration.
        picture: height, width and channels.
    """

    stages: tuple[StageRate, ...]
    images_per_second: float
    first_batch_seconds: float
    cores: int
    batch_size: int
    picture: tuple[int, int, int]


def bench_inputs(data: str, config: TrainingConfig, *, seconds: float, progress: Progress) -> InputBench:
    """Measure the inputs of `config` over a dataset, each stage for so many seconds.

    What the kernel holds of a local dataset's files is let go first, so that they come from the disk as in a
    first epoch.

    Raises:
        NotFoundError: there is no dataset.
        SettingsError: it is too small for one batch, or cannot be used as the configuration says.
        TrainingError: it cannot be read.
        IntegrityError: it is not what its manifest says.
    """
    progress("all stages together")
    _forget_pages(data)
    rate, first_batch_seconds = _together(data, config, seconds=seconds)
    _forget_pages(data)
    source = open_source(data, retry_seconds=_RETRY_SECONDS)
    try:
        split = ExampleSplit(source, config)
        stages = tuple(StageBench(source, split, config, seconds=seconds).rates(progress))
    finally:
        source.close()
    contract = split.contract
    return InputBench(
        stages=stages,
        images_per_second=rate,
        first_batch_seconds=first_batch_seconds,
        cores=len(os.sched_getaffinity(0)),
        batch_size=config.optimization.batch_size,
        picture=(contract.height, contract.width, contract.channels),
    )


def _together(data: str, config: TrainingConfig, *, seconds: float) -> tuple[float, float]:
    """Return images per second after the first batch, and the seconds until it came."""
    # TensorFlow takes seconds to import, which are not the inputs'.
    from training_cluster.inputs.pipeline import training_batches  # noqa: PLC0415

    began = time.perf_counter()
    source = open_source(data, retry_seconds=_RETRY_SECONDS)
    try:
        split, meter = ExampleSplit(source, config), InputMeter()

        def batches() -> Generator[Any, None, None]:
            epoch = 0
            while True:
                position = EpochPosition(epoch)
                yield from meter.watch(training_batches(split, config, position=position, meter=meter))
                epoch += 1

        endless = batches()
        next(endless)
        first = time.perf_counter()
        images = 0
        while (elapsed := time.perf_counter() - first) < seconds:
            images += len(next(endless)[1])
        endless.close()
    finally:
        source.close()
    return images / elapsed, first - began


def _forget_pages(data: str) -> None:
    """Ask the kernel to let go what it holds of a local folder's shards."""
    for path in Path(data).glob("*.tfrecord"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
