"""How well copies of photos are found, and how fast: `python benchmarks/perceptual_hash.py [--photos FOLDER]`.

Prints the shares that serving/perceptual_hash.py states. It needs CIFAR-10 as `make data` leaves it
(in ~/.cache/liftgate), uses the photographs that come with scikit-learn, and any others in FOLDER.
Debian's dataset-fashion-mnist is measured where it is installed or named by --fashion.
"""

from __future__ import annotations

import argparse
import gzip
import io
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import sklearn
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # `serving` is the package, not the script beside this one

from artifact_sync.records import InputContract
from serving.hash_search import Hashes, near_pairs, nearest
from serving.perceptual_hash import perceptual_hash
from serving.photo import decode_photo

SEED = 20261120
DISTANCES = (0, 2, 4, 7)
_TILE = 240


def encoded(image: Image.Image, **options: object) -> bytes:
    """Return the image as a file, PNG unless told otherwise."""
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **options})  # type: ignore[arg-type]
    return stream.getvalue()


def _scaled(factor: float) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image.resize((round(image.width * factor), round(image.height * factor))))


def _lit(change: Callable[[float], float]) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image.point(lambda value: max(0, min(255, int(change(value))))))


CHANGES: Mapping[str, Callable[[Image.Image], bytes]] = {
    "JPEG, quality 95": lambda image: encoded(image, format="JPEG", quality=95),
    "JPEG, quality 75": lambda image: encoded(image, format="JPEG", quality=75),
    "JPEG, quality 50": lambda image: encoded(image, format="JPEG", quality=50),
    "WebP, quality 75": lambda image: encoded(image, format="WEBP", quality=75),
    "3/4 of the size": _scaled(0.75),
    "half the size": _scaled(0.5),
    "3/2 of the size": _scaled(1.5),
    "outermost pixels cut": lambda image: encoded(image.crop((1, 1, image.width - 1, image.height - 1))),
    "one row and column cut": lambda image: encoded(image.crop((1, 1, image.width, image.height))),
    "5 % lighter": _lit(lambda value: value * 1.05),
    "10 % darker": _lit(lambda value: value * 0.9),
    "10 levels lighter": _lit(lambda value: value + 10),
    "mirrored (not to be found)": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def hashes_of(photos: Sequence[bytes], contract: InputContract) -> Hashes:
    """Return the looks of encoded photos."""
    return _joined([perceptual_hash(decode_photo(data, contract)) for data in photos])


def found(images: Sequence[Image.Image], contract: InputContract, name: str) -> None:
    """Print the share of changed copies that are near their original."""
    originals = hashes_of([encoded(image) for image in images], contract)
    print(
        f"\n{name}: {len(images)} pictures at {contract.height} x {contract.width}; share of copies found at distance"
    )
    print(f"  {'':28}" + "".join(f"{f'<= {distance}':>8}" for distance in DISTANCES))
    for change, apply in CHANGES.items():
        copies = hashes_of([apply(image) for image in images], contract)
        distances = np.bitwise_count(originals ^ copies).sum(axis=1)
        shares = "".join(f"{(distances <= distance).mean():8.1%}" for distance in DISTANCES)
        print(f"  {change:28}{shares}")


def alike(pixels: np.ndarray, name: str, *, training: int) -> None:
    """Print how many pairs of different pictures are near, and of the last ones how many are near a former one."""
    hashes = _joined([perceptual_hash(picture) for picture in pixels])
    pairs = len(hashes) * (len(hashes) - 1) / 2
    print(f"\n{name}: near pairs among {len(hashes):,} pictures ({pairs:,.0f} pairs)")
    for distance in DISTANCES:
        seen: set[tuple[int, int]] = set()
        for part in near_pairs(hashes, hashes, maximum_distance=distance):
            upper = part.one < part.other
            seen.update(zip(part.one[upper].tolist(), part.other[upper].tolist(), strict=True))
        close = len(nearest(hashes[training:], hashes[:training], maximum_distance=distance).one)
        print(
            f"  <= {distance}: {len(seen):,}, {len(seen) / pairs * 1e6:.3f} in a million; "
            f"{close / (len(hashes) - training):.2%} of the last {len(hashes) - training:,} near one of the others"
        )


def speed() -> None:
    """Print how long a search takes among a million hashes, against comparing each with each."""
    random = np.random.default_rng(SEED)
    training = random.integers(0, 256, (1_000_000, 16), dtype=np.uint8)
    hashes = random.integers(0, 256, (10_000, 16), dtype=np.uint8)
    hashes[:1000] = training[:1000]
    words, few = training.view(np.uint64), hashes[:20].view(np.uint64)
    begun = time.process_time()
    for word in few:
        np.flatnonzero(np.bitwise_count(words ^ word).sum(axis=1) <= 4)
    each = (time.process_time() - begun) / len(few) * len(hashes)
    print("\n10,000 photos against 1,000,000 training photos (processor seconds)")
    for distance in (4, 7):
        begun = time.process_time()
        number = len(nearest(hashes, training, maximum_distance=distance).one)
        took = time.process_time() - begun
        print(f"  <= {distance}: {took:.1f} s, each with each {each:.0f} s ({each / took:.0f} x); {number:,} found")
    pixels = random.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    begun = time.process_time()
    for _ in range(500):
        perceptual_hash(pixels)
    print(f"  hashing a picture of 224 x 224: {(time.process_time() - begun) / 500 * 1000:.2f} ms")
    print(f"  most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def views(paths: Sequence[Path]) -> list[Image.Image]:
    """Return the photographs and their tiles of 240 x 240 pixels."""
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            whole = image.convert("RGB")
        pictures.append(whole)
        pictures += [
            whole.crop((left, top, left + _TILE, top + _TILE))
            for top in range(0, whole.height - _TILE, _TILE)
            for left in range(0, whole.width - _TILE, _TILE)
        ]
    return pictures


def _joined(hashes: Sequence[bytes]) -> Hashes:
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)


def _read_idx(path: Path) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of further photographs")
    parser.add_argument("--cifar", type=Path, default=Path.home() / ".cache" / "liftgate" / "images.npz")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    options = parser.parse_args()
    speed()
    photographs = sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    if options.photos is not None:
        photographs += sorted(path for path in options.photos.iterdir() if path.suffix.lower() in {".jpg", ".png"})
    found(views(photographs), InputContract(height=224, width=224, channels=3), "Photographs")
    if options.cifar.is_file():
        with np.load(options.cifar) as cifar:
            training, test = cifar["train_pixels"], cifar["test_pixels"]
        small = [Image.fromarray(picture) for picture in test[:2000]]
        found(small, InputContract(height=32, width=32, channels=3), options.cifar.name)
        alike(np.concatenate([training, test]), options.cifar.name, training=len(training))
    if options.fashion.is_dir():
        pictures = [_read_idx(options.fashion / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
        alike(np.concatenate(pictures), "Fashion-MNIST", training=len(pictures[0]))


if __name__ == "__main__":
    main()
