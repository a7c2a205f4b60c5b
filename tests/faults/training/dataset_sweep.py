"""Builds a dataset and is killed before line k of the build, for many k; each time it is then built to its end.

Its place in the flow: test_dataset_kill_sweep.py runs it as a program, since forking wants a process
without threads. Photos are decoded in the process itself: what is swept is the build, not the decoder.

    dataset_sweep.py FOLDER FIRST STEP      prints {"lines": …, "killed": …, "stages": {stage: kills}}
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from artifact_sync import durable
from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from serving.photo import decode_photo
from training_cluster.datasets import (
    build,
    build_stages,
    building_folder,
    comparing,
    grouping,
    listing,
    pixel_parts,
    reading,
    shard_writer,
    writing,
)
from training_cluster.datasets.data_manifest import FILE_NAME, load_data_manifest, verify_shards
from training_cluster.datasets.readers import photos_from_folder

PHOTOS = 24
CONTRACT = InputContract(height=8, width=8, channels=3)
TRACED = {
    module.__file__
    for module in (
        *[build, build_stages, building_folder, comparing, grouping, listing, pixel_parts, reading],
        *[shard_writer, writing, durable],
    )
}


class PoolHere:
    """Decodes in this process, and counts."""

    def __init__(self, *, workers: int) -> None:
        self.decoded = 0

    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *_: object) -> None:
        with Path("decoded").open("ab") as stream:
            stream.write(b"x" * self.decoded)

    def decode_many(self, photos: Iterable[bytes], contract: InputContract) -> Iterator[Any]:
        for data in photos:
            self.decoded += 1
            try:
                yield decode_photo(data, contract)
            except PhotoError as error:
                yield error


def make_photos(folder: Path) -> None:
    """Write photos of two classes: one in two files, two that look nearly the same, one that is no photo."""
    random = np.random.default_rng(7)
    for number in range(PHOTOS - 3):
        directory = folder / ("even", "odd")[number % 2]
        directory.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((24, 24))
        picture.save(directory / f"{number}.png")
    shutil.copy(folder / "even" / "0.png", folder / "even" / "again.png")
    Image.open(folder / "odd" / "1.png").save(folder / "odd" / "near.jpg", quality=95)
    (folder / "odd" / "broken.png").write_bytes((folder / "odd" / "3.png").read_bytes()[:80])


def build_it() -> str:
    manifest = build.build_dataset(
        {"photos": photos_from_folder(Path("photos"))},
        out_dir=Path("set"),
        contract=CONTRACT,
        excluded_sha256s={sha256_hex(Path("photos/even/2.png").read_bytes())},
        workers=1,
        allowed_rejects=1,
        holdout_share=0.2,
    )
    return manifest.sha256


def in_child(act: Callable[[], object]) -> int:
    """Run `act` in a forked child; return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.waitstatus_to_exitcode(status) == 0, "the build failed"
    return 0


def until(line: int) -> None:
    """Build, and be killed before the `line`-th line of the build's modules; note how many there were."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    build_it()
    sys.settrace(None)
    Path("lines").write_text(str(count))


def stage_after_kill() -> tuple[str, int]:
    """Return how far the killed build was, and how many photos the next must decode."""
    if Path("set").exists():
        load_data_manifest(Path("set"))
        return "renamed", 0
    path = Path(".building-set/index.sqlite")
    if not path.exists() or not Path(".building-set/parts").exists():
        return "listing", PHOTOS - 1
    index = sqlite3.connect(path)
    # A photo that is none is tried again by each build; one of the files is there twice.
    left = PHOTOS - 1 - index.execute("SELECT COUNT(*) FROM decoded").fetchone()[0]
    shards = index.execute("SELECT COUNT(*) FROM shard").fetchone()[0]
    placed = index.execute("SELECT COUNT(*) FROM placed").fetchone()[0]
    index.close()
    if left > 1:
        return "reading", left
    return ("writing" if shards else "placed" if placed else "read"), left


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sweep(first: int, step: int) -> dict[str, object]:
    # Small parts and a commit for each photo, so that there is more to be killed in.
    pixel_parts._PART_BYTES, reading._COMMIT_SECONDS = 500, 0.0
    reading.DecodePool = PoolHere  # type: ignore[assignment, misc]
    make_photos(Path("photos"))
    assert in_child(lambda: until(0)) == 0
    lines = int(Path("lines").read_text())
    wanted = files_of(Path("set"))
    verify_shards(Path("set"), load_data_manifest(Path("set")))
    assert "holdout.csv" in wanted
    assert FILE_NAME in wanted
    stages: Counter[str] = Counter()
    for line in range(first, lines + 1, step):
        shutil.rmtree("set")
        assert in_child(lambda line=line: until(line)) in {0, signal.SIGKILL}
        stage, left = stage_after_kill()
        stages[stage] += 1
        Path("decoded").write_bytes(b"")
        assert in_child(build_it) == 0, f"after a kill at line {line}"
        assert files_of(Path("set")) == wanted, f"another dataset after a kill at line {line}"
        assert Path("decoded").stat().st_size == left, f"decoded {Path('decoded').stat().st_size} after line {line}"
        assert not Path(".building-set").exists()
    return {"lines": lines, "killed": sum(stages.values()), "stages": stages}


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    print(json.dumps(sweep(int(sys.argv[2]), int(sys.argv[3]))))
