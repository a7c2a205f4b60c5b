"""How often an epoch shows each example, when classes or slices are boosted.

Its place in the flow: the split asks once which factor each example has, and for each epoch how often
it comes. Examples of the same class and slices are a group; a group of n examples with the factor w
is shown round(w·n) times in every epoch, each example w times rounded down or up. Who gets the one
more goes round, so that over the epochs every example of a group comes equally often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import SettingsError
from training_cluster.config.tables import BoostTable
from training_cluster.datasets.example_table import ExampleTable

_RANK_STREAM = 3


@dataclass(frozen=True, eq=False)
class Repetitions:
    """How often each of the training examples is shown.

    Attributes:
        group: each example's group; int64 [n].
        rank: each example's place in its group, drawn once by the seed; int64 [n].
        sizes: examples of each group; int64 [groups].
        totals: how often each group's examples are shown in an epoch, together; int64 [groups].
    """

    group: NDArray[np.int64]
    rank: NDArray[np.int64]
    sizes: NDArray[np.int64]
    totals: NDArray[np.int64]

    @classmethod
    def of(cls, factors: NDArray[np.float64], group: NDArray[np.int64], *, seed: int) -> Repetitions:
        """Return those of examples with these factors; examples of a group have the same."""
        sizes = np.bincount(group)
        order = np.lexsort((np.random.default_rng([_RANK_STREAM, seed]).random(len(group)), group))
        rank = np.empty(len(group), np.int64)
        rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        factor = np.zeros(len(sizes))
        factor[group] = factors
        return cls(group, rank, sizes, np.floor(factor * sizes + 0.5).astype(np.int64))

    @property
    def total(self) -> int:
        """Examples that one epoch shows."""
        return int(self.totals.sum())

    def in_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return how often each example is shown in an epoch; int64 [n]."""
        each, more = np.divmod(self.totals, self.sizes)
        turn = (self.rank - epoch * more[self.group]) % self.sizes[self.group]
        answer: NDArray[np.int64] = each[self.group] + (turn < more[self.group])
        return answer


def repetitions(
    table: ExampleTable,
    boost: BoostTable,
    *,
    labels: Sequence[str],
    slice_values: Mapping[str, Sequence[str]],
    seed: int,
) -> Repetitions:
    """Return how often examples are shown.

    Raises:
        SettingsError: the boost names a class, a column or a value that the dataset does not have.
    """
    _check(boost, labels=labels, slice_values=slice_values)
    key = table.labels.astype(np.int64)
    factors = np.array([boost.classes.get(label, 1.0) for label in labels])[key]
    for column, values in boost.slices.items():
        known = slice_values[column]
        code = np.minimum(table.slices[column].astype(np.int64), len(known))
        factors *= np.array([*(values.get(value, 1.0) for value in known), 1.0])[code]
        key = key * (len(known) + 1) + code
    group = np.unique(key, return_inverse=True)[1]
    return Repetitions.of(factors, group.astype(np.int64), seed=seed)


def _check(boost: BoostTable, *, labels: Sequence[str], slice_values: Mapping[str, Sequence[str]]) -> None:
    wrong = [f"class {name!r} (it has {_listed(labels)})" for name in boost.classes if name not in labels]
    for column, values in boost.slices.items():
        known = slice_values.get(column)
        if known is None:
            wrong.append(f"slice column {column!r} (it has {_listed(sorted(slice_values))})")
            continue
        wrong += [f"{column} {value!r} (it has {_listed(known)})" for value in values if value not in known]
    if wrong:
        raise SettingsError(
            "Training refused: data.boost names what the dataset does not have:\n  "
            + "\n  ".join(wrong)
            + "\nCorrect the names, or build the dataset with these classes and slices."
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) or "none"
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
