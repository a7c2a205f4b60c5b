"""How much an example of each class counts in the loss.

Its place in the flow: the session asks once it knows which labels the dataset has and what an epoch
shows of each, and hands the numbers to the training loop.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from artifact_sync.errors import SettingsError
from training_cluster.config.tables import OptimizationTable


def class_weights(table: OptimizationTable, label_shares: Mapping[str, float]) -> tuple[float, ...]:
    """Return one weight for each label, in the order of `label_shares`.

    Args:
        table: the configuration's [optimization].
        label_shares: each label's share of the examples that an epoch shows.

    Raises:
        SettingsError: a label is named that the dataset does not have.
    """
    given = table.class_weights
    if given == "none":
        return (1.0,) * len(label_shares)
    if given == "balanced":
        # The mean over the examples is 1, so that the learning rate means the same; a class that is not shown has none.
        present = sum(share > 0 for share in label_shares.values())
        return tuple(1 / (present * share) if share else 1.0 for share in label_shares.values())
    unknown = [_explained(label, list(label_shares)) for label in given if label not in label_shares]
    if unknown:
        raise SettingsError(
            "Training refused: optimization.class_weights names what the dataset does not have:\n  "
            + "\n  ".join(unknown)
        )
    return tuple(given.get(label, 1.0) for label in label_shares)


def _explained(label: str, labels: list[str]) -> str:
    near = difflib.get_close_matches(label, labels, n=1, cutoff=0.6)
    return f"{label}: did you mean {near[0]}?" if near else f"{label}: its labels are {', '.join(sorted(labels)[:20])}"
