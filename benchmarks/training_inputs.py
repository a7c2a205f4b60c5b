"""How fast pictures come: from shards, from JPEG files, from S3, beside the tightest loop of a decoder.

Its place in the flow: two parts of `benchmarks/training.py`. Nothing trains here; who consumes takes
batches as fast as they come.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.training_figures import Figure, compared, medians
from benchmarks.training_photos import dataset, photos
from liftgate.local_s3 import LocalS3
from training_cluster.config.tables import AugmentationTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.dataset_copy import copy_dataset
from training_cluster.inputs.position import EpochPosition
from training_cluster.inputs.source import DataSource, open_source
from training_cluster.inputs.split import ExampleSplit

PIXELS = 224
_BATCH = 64
_PLAIN = AugmentationTable()
_FLIPPED = AugmentationTable(flip_horizontal=True)
_CROPPED = AugmentationTable(flip_horizontal=True, crop_share=0.3)


def shards_and_files(directory: Path, *, count: int, seconds: float, rounds: int) -> list[Figure]:
    """Compare shards with a loop that does nothing but decode, and with photos straight from their files."""
    files = photos(directory, count=count)
    source = open_source(str(dataset(directory, count=count, pixels=PIXELS)))
    found = medians(
        rounds,
        {
            "shards": lambda: _rate(_epochs(source), seconds=seconds),
            "shards, mirrored": lambda: _rate(_epochs(source, _FLIPPED), seconds=seconds),
            "shards, cropped and mirrored": lambda: _rate(_epochs(source, _CROPPED), seconds=seconds),
            "decode_and_crop_jpeg": lambda: _rate(_decode_loop(files), seconds=seconds),
            "JPEG files, decoded and resized": lambda: _rate(_from_files(files), seconds=seconds),
        },
    )
    source.close()
    ours = [name for name in found if name.startswith("shards")]
    others = [name for name in found if name not in ours]
    return [
        compared("inputs", f"{one}, {PIXELS} px", found[one], against=other, against_value=found[other])
        for one in ours
        for other in others
    ]


def streamed(directory: Path, *, count: int, seconds: float, rounds: int) -> list[Figure]:
    """Compare a dataset that is streamed from an S3 server on this machine with the same one in a folder."""
    folder = dataset(directory, count=count, pixels=PIXELS)
    cache = directory / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    with copied_to_s3(directory, folder) as address:
        first = {name: _first_batch_seconds(place) for name, place in (("S3", address), ("folder", str(folder)))}
        near, far, kept = open_source(str(folder)), open_source(address), open_source(address, cache_dir=cache)
        for source in (near, far, kept):
            _rate(_one_epoch(source), seconds=600)
        found = medians(
            rounds,
            {
                "folder": lambda: _rate(_epochs(near), seconds=seconds),
                "S3, streamed each time": lambda: _rate(_epochs(far), seconds=seconds),
                "S3, kept on the local disk": lambda: _rate(_epochs(kept), seconds=seconds),
            },
        )
        for source in (near, far, kept):
            source.close()
    local = found.pop("folder")
    return [
        Figure("s3", "first batch from S3", first["S3"], "s", "from a folder", first["folder"]),
        *(compared("s3", name, rate, against="folder", against_value=local) for name, rate in found.items()),
    ]


@contextmanager
def copied_to_s3(directory: Path, folder: Path) -> Iterator[str]:
    """Run an S3 server with a copy of a dataset; yield its address. This process and its children may read it."""
    with LocalS3(directory / "s3") as server:
        os.environ.update(server.environment, AWS_ENDPOINT_URL=server.endpoint_url)
        address = f"s3://{server.bucket}/{folder.name}"
        copy_dataset(str(folder), address)
        yield address


def _config(augmentation: AugmentationTable) -> TrainingConfig:
    return TrainingConfig(optimization=OptimizationTable(batch_size=_BATCH), augmentation=augmentation)


def _epochs(source: DataSource, augmentation: AugmentationTable = _PLAIN) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from _one_epoch(source, augmentation, epoch=epoch)
        epoch += 1


def _one_epoch(source: DataSource, augmentation: AugmentationTable = _PLAIN, *, epoch: int = 0) -> Iterator[Any]:
    from training_cluster.inputs.pipeline import training_batches

    config = _config(augmentation)
    split = ExampleSplit(source, config)
    yield from (labels for _, labels, _ in training_batches(split, config, position=EpochPosition(epoch)))


def _first_batch_seconds(data: str) -> float:
    import tensorflow as tf

    tf.data.Dataset.range(1)
    began = time.perf_counter()
    source = open_source(data)
    next(_one_epoch(source))
    elapsed = time.perf_counter() - began
    source.close()
    return elapsed


def _decode_loop(files: list[Path]) -> Iterator[Any]:
    """Do nothing but decode the middle of pictures that lie in memory, on all cores."""
    import tensorflow as tf

    encoded = tf.constant([path.read_bytes() for path in files[:256]])
    window = [(375 - PIXELS) // 2, (500 - PIXELS) // 2, PIXELS, PIXELS]
    data = tf.data.Dataset.from_tensor_slices(encoded).repeat()
    data = data.map(lambda jpeg: tf.io.decode_and_crop_jpeg(jpeg, window), num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(_BATCH).prefetch(2))


def _from_files(files: list[Path]) -> Iterator[Any]:
    """Read, decode and resize photos, as a training without shards does in each epoch."""
    import tensorflow as tf

    def load(path: Any) -> Any:
        return tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), (PIXELS, PIXELS))

    data = tf.data.Dataset.from_tensor_slices([str(path) for path in files]).shuffle(len(files)).repeat()
    return iter(data.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(_BATCH).prefetch(2))


def _rate(batches: Iterable[Any], *, seconds: float) -> float:
    """Return images per second after the first batches, which pay for starting."""
    iterator = iter(batches)
    for _ in range(3):
        next(iterator)
    began, images = time.perf_counter(), 0
    for batch in iterator:
        images += len(batch)
        if time.perf_counter() - began >= seconds:
            break
    elapsed = time.perf_counter() - began
    return images / elapsed
