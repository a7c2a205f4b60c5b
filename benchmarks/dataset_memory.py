"""How many bytes of memory a photo costs `liftgate dataset build`: builds of growing size, each in its own process.

    python benchmarks/dataset_memory.py [--photos 2000 8000 32000] [--workers 2] [--near-share 0.01]

Photos are small real PNG files, all different, some near duplicates; the manifest names these, which costs
about two kilobytes each. The figures are the peak resident memory of the building process (its decoding
children have a size of their own that does not grow), and between two sizes the bytes a further photo cost.
Up to some thousands of photos SQLite's cache of 8 MiB still fills, so look at the larger steps.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # `serving` is the package, not the script beside this one

from artifact_sync.records import InputContract
from training_cluster.datasets.build import build_dataset
from training_cluster.datasets.readers import photos_from_folder

_SIDE = 16


def write_photos(folder: Path, count: int, *, near_share: float = 0.1) -> None:
    """Write so many PNG files of two classes, of which a part looks nearly like the one before."""
    random = np.random.default_rng(count)
    pixels = np.zeros((_SIDE, _SIDE, 3), dtype=np.uint8)
    for number in range(count):
        if random.random() >= near_share:
            pixels = random.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
        else:
            pixels = pixels.copy()
            pixels[0, 0, 0] ^= 1
        directory = folder / ("even", "odd")[number % 2] / f"{number // 1000:04d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number}.png").write_bytes(_png(pixels))


def _png(pixels: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def build(folder: Path, workers: int) -> None:
    """Build in this process and print what it cost."""
    began = time.perf_counter()
    peaks: dict[str, int] = {}

    def note(stage: str) -> None:
        peaks[stage] = _status("VmHWM")

    manifest = build_dataset(
        {"photos": photos_from_folder(folder / "photos")},
        out_dir=folder / "set",
        contract=InputContract(height=_SIDE, width=_SIDE, channels=3),
        excluded_sha256s=set(),
        workers=workers,
        progress=lambda told: note(told.stage),
    )
    seconds = time.perf_counter() - began
    print(json.dumps({"peak": _status("VmHWM"), "seconds": seconds, "examples": manifest.count, "stages": peaks}))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def main() -> None:
    """Build once for each size and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[2_000, 8_000, 32_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--near-share", type=float, default=0.01)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build is not None:
        build(options.build, options.workers)
        return
    before: tuple[int, int] | None = None
    for count in options.photos:
        with tempfile.TemporaryDirectory() as name:
            write_photos(Path(name) / "photos", count, near_share=options.near_share)
            command = [sys.executable, __file__, "--build", name, "--workers", str(options.workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        slope = (
            "" if before is None else f", {(found['peak'] - before[1]) / (count - before[0]):.0f} bytes a photo more"
        )
        stages = ", ".join(f"{stage} {size / 1e6:.0f}" for stage, size in found["stages"].items())
        print(
            f"{count:>8} photos: peak {found['peak'] / 1e6:.1f} MB{slope}; {count / found['seconds']:.0f} photos/s "
            f"({stages} MB up to their ends)",
            flush=True,
        )
        before = (count, found["peak"])


if __name__ == "__main__":
    main()
