"""Photos and datasets for the training benchmarks, made once under build/bench/training.

Its place in the flow: every part of `benchmarks/training.py` asks for what it needs. The photos have the
size of ImageNet's usual ones (500×375, JPEG of quality 90) and the entropy of photos: soft forms with grain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from artifact_sync.records import InputContract
from benchmarks.training_figures import say
from training_cluster.datasets.build import build_dataset
from training_cluster.datasets.readers import photos_from_folder

CLASSES = 4


def photos(directory: Path, *, count: int) -> list[Path]:
    """Return so many JPEG files, one folder a class."""
    folder = directory / f"photos-{count}"
    paths = [folder / f"class-{number % CLASSES}" / f"{number:06d}.jpg" for number in range(count)]
    if not paths[-1].exists():
        say(f"making {count} photos")
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            _photo(number).save(path, "JPEG", quality=90)
    return paths


def dataset(directory: Path, *, count: int, pixels: int) -> Path:
    """Return the dataset of so many photos at pixels × pixels × 3, built by Liftgate."""
    folder = directory / f"dataset-{count}-{pixels}"
    if not folder.exists():
        source = photos(directory, count=count)[0].parents[1]
        say(f"building a dataset of {pixels}×{pixels}")
        build_dataset(
            {"photos": photos_from_folder(source)},
            out_dir=folder,
            contract=InputContract(height=pixels, width=pixels, channels=3),
            excluded_sha256s=frozenset(),
        )
    return folder


def _photo(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    soft = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (500, 375), Image.Resampling.BICUBIC
    )
    grain = random.normal(0, 10, (375, 500, 1))
    return Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8))
