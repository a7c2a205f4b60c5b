"""Streaming hosts and copies that are killed: what they leave is right, within its bound, and gone on from."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync.errors import NotFoundError
from liftgate.local_s3 import LocalS3
from training_cluster.inputs.block_cache import BlockCache
from training_cluster.inputs.dataset_copy import copy_dataset
from training_cluster.inputs.source import open_source

_KEEP = """
import hashlib, sys
from pathlib import Path
from training_cluster.inputs.block_cache import BlockCache
blocks = {hashlib.sha256(data).hexdigest(): data for data in (bytes([n]) * 200_000 for n in range(256))}
cache = BlockCache(Path(sys.argv[1]), most_bytes=int(sys.argv[2]), own=frozenset(list(blocks)[int(sys.argv[3]):]))
cache.open()
print("ready", flush=True)
for digest, data in list(blocks.items())[int(sys.argv[3]):]:
    cache.put(digest, data)
"""
_COPY = """
import sys
from training_cluster.inputs.dataset_copy import copy_dataset
print("ready", flush=True)
copy_dataset(sys.argv[1], sys.argv[2], progress=lambda done, total: print(done, flush=True))
"""


def _killed(program: str, *arguments: str, lines: int, seconds: float) -> bool:
    """Run a program and kill it so long after it has said so many lines; return whether it was still running."""
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_cache_whose_writers_are_killed_holds_whole_blocks_within_its_bound(tmp_path: Path) -> None:
    rng, bound, killed = random.Random(11), 20_000_000, 0
    for round_number in range(5):
        seconds = rng.uniform(0, 0.02)
        killed += _killed(_KEEP, str(tmp_path), str(bound), str(40 * round_number), lines=1, seconds=seconds)
        blocks = list(tmp_path.glob("??/*.block"))
        wrong = [path for path in blocks if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem]
        assert wrong == [], seconds
        # A killed one may leave one unfinished file, which is cleared away later.
        assert sum(path.stat().st_size for path in blocks) <= bound
    assert killed
    for path in tmp_path.glob(".*.*.*"):
        os.utime(path, (0, 0))
    BlockCache(tmp_path, most_bytes=bound, own=frozenset()).open()
    assert list(tmp_path.glob(".*.*.*")) == []
    assert int((tmp_path / "total").read_bytes()) == sum(path.stat().st_size for path in tmp_path.glob("??/*.block"))


def test_a_killed_copy_is_no_dataset_and_the_next_one_goes_on(
    training_lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(8).integers(0, 256, (300, 40, 40, 3), np.uint8)
    first, there, again = str(tmp_path / "set"), "s3://photos/set", str(tmp_path / "again")
    manifest = training_lab.write_indexed_dataset(
        Path(first), pixels, np.arange(300) % 2, labels=("a", "b"), shards=100
    )
    expected = [open_source(first).read_block(index) for index in range(100)]
    with LocalS3(tmp_path / "server", bucket="photos") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for source, target in ((first, there), (there, again)):
            assert _killed(_COPY, source, target, lines=12, seconds=0)
            with pytest.raises(NotFoundError):
                open_source(target)
            report = copy_dataset(source, target)
            assert report.kept >= 5
            assert report.copied + report.kept == 103
            copied = open_source(target)
            assert copied.manifest.sha256 == manifest.sha256
            assert [copied.read_block(index) for index in range(100)] == expected
