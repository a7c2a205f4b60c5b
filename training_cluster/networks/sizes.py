"""Which pictures an architecture can take, known without building it.

Its place in the flow: a configuration is checked against a dataset here before TensorFlow is started,
and once more when the network is built.
"""

from __future__ import annotations

from artifact_sync.errors import SettingsError
from artifact_sync.records import InputContract
from training_cluster.config.tables import ModelTable

_SMALLEST_BACKBONE_SIDE = 32


def refuse_other_sizes(table: ModelTable, contract: InputContract) -> None:
    """Check that the architecture takes the dataset's pictures.

    Raises:
        SettingsError: they are smaller than it needs, or not of the configured size.
    """
    found = f"{contract.height}x{contract.width}"
    if table.input_size and table.input_size != found:
        raise SettingsError(
            f"Training refused: model.input_size is {table.input_size}, the dataset's pictures are {found}. "
            f"Build the dataset with --size {table.input_size}, or leave the key out."
        )
    smallest = smallest_side(table)
    if min(contract.height, contract.width) < smallest:
        raise SettingsError(
            f"Training refused: architecture {table.architecture} cannot take pictures of {found} pixels, "
            f"only of {smallest}x{smallest} and more. Build the dataset larger, or use small-cnn."
        )


def smallest_side(table: ModelTable) -> int:
    """Return the pixels that height and width need at least; 1 for a network of the user's own."""
    if ":" in table.architecture:
        return 1
    if table.architecture.startswith("small-cnn"):
        # Each stage halves the picture.
        return int(2 ** len(table.widths))
    return _SMALLEST_BACKBONE_SIDE
