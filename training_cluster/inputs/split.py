"""The examples of a dataset, divided into those for validation and those for training.

Its place in the flow: the trainer makes one from the data source and the configuration; the session
takes its lengths from it, the loss its shares of the classes, the input pipeline what it reads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import SettingsError
from training_cluster.config.training_config import TrainingConfig
from training_cluster.datasets.data_manifest import IndexedDataManifest
from training_cluster.datasets.example_table import ExampleTable
from training_cluster.inputs.boost import Repetitions, repetitions
from training_cluster.inputs.source import DataSource


class ExampleSplit:
    """What of a source is for validation, and what an epoch of training shows.

    The first groups of the shards' order are for validation: shards are in the order of photos' digests,
    so these are a random sample, which hardly changes when photos are added, and near duplicates stay together.

    Attributes:
        source: the dataset.
        contract: the shape of the pixels.
        labels: the classes.
        validation_count: examples for validation.
        training_count: examples that one epoch of training shows; a boosted one counts as often as it is shown.
        steps_per_epoch: the last of them may not be full.
        label_shares: each class' share of what an epoch shows.

    Raises:
        SettingsError: too few examples are left for training, or the boost names what is not there.
    """

    def __init__(self, source: DataSource, config: TrainingConfig) -> None:
        manifest, table = source.manifest, source.examples
        self.source = source
        self.contract = manifest.contract
        self.labels = manifest.labels
        self.validation_count = _validation_count(table, share=config.data.validation_share)
        last = manifest.count
        if config.data.max_examples:
            last = min(last, self.validation_count + config.data.max_examples)
        self._used = slice(self.validation_count, last)
        self._repetitions = self._repetitions_of(config)
        self.training_count = self._repetitions.total
        self.steps_per_epoch = -(-self.training_count // config.optimization.batch_size)
        if self.training_count < config.optimization.batch_size:
            raise SettingsError(
                f"Training refused: {self.training_count} examples are left for training, fewer than one batch of "
                f"{config.optimization.batch_size}. Label more photos or lower optimization.batch_size."
            )

    @property
    def label_shares(self) -> dict[str, float]:
        """Each class' share of what an epoch shows."""
        return {label: count / self.training_count for label, count in self.distribution().items()}

    def distribution(self) -> dict[str, int]:
        """Return how many examples of each class an epoch shows, the boost included."""
        shown = self._repetitions.in_epoch(0)
        counts = np.bincount(self.source.examples.labels[self._used], weights=shown, minlength=len(self.labels))
        return {label: int(count) for label, count in zip(self.labels, counts.tolist(), strict=True)}

    def repetitions(self, epoch: int) -> NDArray[np.int64]:
        """Return how often an epoch shows each example of the dataset, 0 for those of the validation; int64 [n]."""
        answer = np.zeros(self.source.manifest.count, np.int64)
        answer[self._used] = self._repetitions.in_epoch(epoch)
        return answer

    def _repetitions_of(self, config: TrainingConfig) -> Repetitions:
        manifest, table = self.source.manifest, self.source.examples
        values = manifest.examples.slice_values if isinstance(manifest, IndexedDataManifest) else {}
        slices = {name: codes[self._used] for name, codes in table.slices.items()}
        used = ExampleTable(table.labels[self._used], table.starts_group[self._used], slices)
        return repetitions(used, config.data.boost, labels=self.labels, slice_values=values, seed=config.execution.seed)


def _validation_count(table: ExampleTable, *, share: float) -> int:
    """Return how many examples the first groups have that come nearest to the share."""
    starts = np.flatnonzero(table.starts_group)
    edges = starts[starts > 0]
    if not len(edges):
        raise SettingsError(
            f"Training refused: all {len(table.labels)} examples are near duplicates of each other or of one source, "
            "so none can be kept from training. Add other photos."
        )
    wanted = max(1, round(len(table.labels) * share))
    return int(edges[np.abs(edges - wanted).argmin()])
