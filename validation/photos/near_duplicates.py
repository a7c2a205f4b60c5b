"""Photos of the holdout that look like training photos: re-encoded, resized or cut by a little, no digest shows them.

Its place in the flow: `liftgate validate` brings the looks of the training photos, validate.py leaves
the photos found here out of all figures and the report names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from artifact_sync.records import InputContract
from serving.hash_search import nearest
from serving.perceptual_hash import PictureHashes, perceptual_hash
from validation.photos.holdout import Holdout, HoldoutItem, PhotoDecoder
from validation.reports.report import NearDuplicate

_BATCH = 64


def hashes_of(
    holdout: Holdout,
    contract: InputContract,
    *,
    decoder: PhotoDecoder,
    progress: Callable[[int, int], None] | None = None,
) -> PictureHashes:
    """Return the looks of the holdout's photos in the order of its items, from the pixels that the model gets.

    `contract` must be the training data's: a look depends on the crop and, a little, on the size.

    Raises:
        PhotoError: the photo contract refuses a photo.
    """
    items = holdout.record.items
    hashes: list[bytes] = []
    for batch in holdout.pixel_batches(contract, decoder=decoder, batch_size=_BATCH):
        hashes.extend(perceptual_hash(pixels) for pixels in batch)
        if progress is not None:
            progress(len(hashes), len(items))
    sources = b"".join(bytes.fromhex(item.sha256) for item in items)
    return PictureHashes(
        sources=np.frombuffer(sources, dtype=np.uint8).reshape(len(items), -1),
        hashes=np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(items), -1),
    )


def find(
    items: Sequence[HoldoutItem], hashes: PictureHashes, training: PictureHashes, *, maximum_distance: int
) -> tuple[NearDuplicate, ...]:
    """Return the items that look like a training photo, each with the nearest one, in the items' order.

    Args:
        items: the holdout's.
        hashes: their looks, by `hashes_of`.
        training: the looks of the training photos, from pixels of the same contract.
        maximum_distance: how many of 128 bits may differ, at most 7.
    """
    found = nearest(hashes.hashes, training.hashes, maximum_distance=maximum_distance)
    return tuple(
        NearDuplicate(
            sha256=items[one].sha256,
            label=items[one].label,
            training_sha256=training.sources[other].tobytes().hex(),
            distance=int(distance),
        )
        for one, other, distance in zip(found.one.tolist(), found.other.tolist(), found.distance, strict=True)
    )
