"""What the model really sees: examples beside the pictures that epochs of a training make of them.

Its place in the flow: `liftgate data look` shows a person whether the augmentation keeps what the label
says. Each picture is the very one that the input pipeline gives in that epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training_cluster.config.training_config import TrainingConfig
from training_cluster.inputs.augmentation import Augmentation
from training_cluster.inputs.order import epoch_row
from training_cluster.inputs.records import RecordLayout
from training_cluster.inputs.source import DataSource
from training_cluster.inputs.split import ExampleSplit

Picture = NDArray[np.uint8]

_CHOICE_STREAM = 17


@dataclass(frozen=True, eq=False)
class SeenExample:
    """One example.

    Attributes:
        number: its place in the dataset.
        label: its class.
        original: its pixels in the shards; uint8 [h, w, c].
        seen: what each epoch, from the first on, makes of it; None where the boost leaves it out.
    """

    number: int
    label: str
    original: Picture
    seen: tuple[Picture | None, ...]


def seen_examples(
    source: DataSource, split: ExampleSplit, config: TrainingConfig, *, count: int, epochs: int
) -> tuple[SeenExample, ...]:
    """Return so many training examples, classes in turn, with what the first epochs make of each."""
    shown = split.repetitions(0) > 0
    chosen = classes_in_turn(source.examples.labels, np.flatnonzero(shown), count=count, seed=config.execution.seed)
    originals = [_pixels(source, split, number) for number in chosen]
    augmentation = Augmentation(config.augmentation, split.contract, seed=config.execution.seed)
    seen: list[list[Picture | None]] = [[] for _ in chosen]
    for epoch in range(epochs):
        row = _row(source, split, config, epoch=epoch)
        for column, number, original in zip(seen, chosen, originals, strict=True):
            places = np.flatnonzero(row == number)[:1]
            column.append(augmentation.apply(original[None], epoch=epoch, places=places)[0] if len(places) else None)
    labels = source.examples.labels
    return tuple(
        SeenExample(number, split.labels[labels[number]], original, tuple(column))
        for number, original, column in zip(chosen, originals, seen, strict=True)
    )


def classes_in_turn(labels: NDArray[np.uint16], candidates: NDArray[np.int64], *, count: int, seed: int) -> list[int]:
    """Return so many candidates drawn by the seed, one of each class after the other, grouped by class."""
    drawn = np.random.default_rng([_CHOICE_STREAM, seed]).permutation(candidates)
    of_class = labels[drawn]
    rank = np.empty(len(drawn), np.int64)
    for label in np.unique(of_class):
        mine = of_class == label
        rank[mine] = np.arange(mine.sum())
    chosen = np.lexsort((of_class, rank))[:count]
    by_class = chosen[np.argsort(of_class[chosen], kind="stable")]
    return [int(number) for number in drawn[by_class]]


def _row(source: DataSource, split: ExampleSplit, config: TrainingConfig, *, epoch: int) -> NDArray[np.int64]:
    return epoch_row(
        source.blocks,
        split.repetitions(epoch),
        seed=config.execution.seed,
        epoch=epoch,
        interleaved_shards=config.data.interleaved_shards,
    )


def _pixels(source: DataSource, split: ExampleSplit, number: int) -> Picture:
    first = source.blocks["first"].astype(np.int64)
    block = int(np.searchsorted(first, number, side="right")) - 1
    layout, contract = RecordLayout(split.contract), split.contract
    pixels = np.empty((1, layout.pixel_bytes), np.uint8)
    rows = np.array([number - first[block]])
    layout.parse(source.read_block(block)).copy_into(pixels, rows=rows, slots=np.array([0]))
    return pixels.reshape(contract.height, contract.width, contract.channels)
