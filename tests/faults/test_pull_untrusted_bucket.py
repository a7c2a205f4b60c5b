"""Pull from a bucket whose bytes are wrong, short, long, endless or cut, onto disks that are full or not ours."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import CapacityError, IntegrityError, NotFoundError, StoreError
from artifact_sync.manifest import build_manifest, find_differences
from artifact_sync.pull import pull_version
from artifact_sync.push import push_export
from artifact_sync.records import Evidence, InputContract, Lineage, Manifest, VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.store import ObjectInfo

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
DIGEST = "0" * 64
PULL = """
import sys
from pathlib import Path
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.pull import pull_version
from artifact_sync.records import VersionRecord
from artifact_sync.registry import Registry
bucket, record, models = sys.argv[1:]
version = VersionRecord.from_json(Path(record).read_bytes())
print(pull_version(Registry(DirectoryStore(Path(bucket)), model="m"), version, models_dir=Path(models)))
"""


class MeanStore:
    """A store that hands out what a test wants instead of an object's bytes."""

    def __init__(self, inner: DirectoryStore) -> None:
        self.inner = inner
        self.streams: dict[str, object] = {}
        self.opened: list[str] = []

    def create(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
        self.inner.create(key, body, sha256=sha256)

    def replace(self, key: str, body: bytes) -> None:
        self.inner.replace(key, body)

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        make = self.streams.get(key)
        return self.inner.open(key) if make is None else make()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)


class EndlessStream(io.RawIOBase):
    """Zeros without end; counts what was taken."""

    def __init__(self) -> None:
        self.taken_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.taken_bytes += len(buffer)
        return len(buffer)


class CutStream(io.BytesIO):
    """Some bytes, then the network is gone."""

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise StoreError("the connection is gone")
        return data


class World:
    """A pushed version, its bucket and a serving host."""

    def __init__(self, root: Path) -> None:
        self.export = root / "export"
        (self.export / "variables").mkdir(parents=True)
        (self.export / "saved_model.pb").write_bytes(b"graph" * 100)
        (self.export / "weights").write_bytes(random.Random(3).randbytes(1_500_000))
        (self.export / "variables" / "index").write_bytes(b"")
        self.files = build_manifest(self.export)
        self.version = version_of(self.files)
        self.bucket = root / "bucket"
        self.store = MeanStore(DirectoryStore(self.bucket))
        self.registry = Registry(self.store, model="m")
        push_export(self.registry, self.export, self.files)
        self.models = root / "models" / "m"

    def blob(self, path: str) -> str:
        return next(self.registry.blob_key(entry.sha256) for entry in self.files.files if entry.path == path)

    def pull(self, **options: int) -> Path:
        return pull_version(self.registry, self.version, models_dir=self.models, **{"reserve_bytes": 0, **options})

    @property
    def visible(self) -> list[str]:
        return sorted(path.name for path in self.models.iterdir() if not path.name.startswith("."))


def version_of(files: Manifest) -> VersionRecord:
    return VersionRecord(
        model="m",
        version=7,
        manifest=files,
        lineage=Lineage(
            run_id="run-1",
            code_commit="c",
            code_dirty=False,
            config_sha256=DIGEST,
            data_manifest_sha256=DIGEST,
            trained_by="t",
            trained_at=NOW,
        ),
        input_contract=InputContract(height=1, width=1, channels=1),
        labels=("a", "b"),
        evidence=Evidence(
            report_sha256=DIGEST,
            verdict_sha256=DIGEST,
            policy_sha256=DIGEST,
            holdout_sha256=DIGEST,
            champion_version=None,
        ),
        created_at=NOW,
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_flip_of_any_bit_is_refused_and_nothing_appears(world: World) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}: 100 flips")
    randomness = random.Random(seed)
    for _ in range(100):
        path = randomness.choice(["weights", "saved_model.pb"])
        blob = world.bucket / world.blob(path)
        right = blob.read_bytes()
        wrong = bytearray(right)
        wrong[randomness.randrange(len(wrong))] ^= 1 << randomness.randrange(8)
        blob.write_bytes(wrong)
        with pytest.raises(IntegrityError, match=f"File {path} refused"):
            world.pull()
        assert world.visible == []
        blob.write_bytes(right)
        # What was right is kept and not read again, so the next flip needs a fresh host.
        shutil.rmtree(world.models)
    assert not find_differences(world.pull(), world.files)


def test_a_blob_that_is_short_is_refused_at_every_length(world: World) -> None:
    blob = world.bucket / world.blob("weights")
    right = blob.read_bytes()
    for percent in range(100):
        blob.write_bytes(right[: len(right) * percent // 100])
        with pytest.raises(IntegrityError, match="bytes short of the 1500000 signed"):
            world.pull()
        assert world.visible == []
    blob.write_bytes(right)
    assert not find_differences(world.pull(), world.files)


@pytest.mark.parametrize("path", ["weights", "variables/index"])
def test_a_blob_that_is_longer_than_signed_is_refused(world: World, path: str) -> None:
    blob = world.bucket / world.blob(path)
    blob.write_bytes(blob.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=f"File {path} refused.*longer than"):
        world.pull()
    assert world.visible == []


def test_of_an_endless_blob_no_more_is_read_than_was_signed(world: World) -> None:
    stream = EndlessStream()
    world.store.streams[world.blob("weights")] = lambda: io.BufferedReader(stream, 4096)
    with pytest.raises(IntegrityError, match="longer than the 1500000 bytes signed"):
        world.pull()
    assert 1_500_000 < stream.taken_bytes < 1_600_000
    assert world.visible == []


def test_a_blob_that_is_missing_is_refused_by_name(world: World) -> None:
    (world.bucket / world.blob("weights")).unlink()
    with pytest.raises(IntegrityError, match=r"File weights refused.*not in the bucket"):
        world.pull()
    assert world.visible == []


def test_a_pull_that_was_cut_fetches_only_what_is_not_there_yet(world: World) -> None:
    half = (world.bucket / world.blob("weights")).read_bytes()[:700_000]
    world.store.streams[world.blob("weights")] = lambda: CutStream(half)
    with pytest.raises(StoreError, match="the connection is gone"):
        world.pull(workers=1)
    assert world.visible == []
    world.store.streams.clear()
    world.store.opened.clear()
    seen: list[tuple[int, int]] = []
    pull_version(
        world.registry,
        world.version,
        models_dir=world.models,
        reserve_bytes=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert world.store.opened == [world.blob("weights")]
    total = world.files.size_bytes
    assert seen[0] == (total - 1_500_000, total)
    assert seen[-1] == (total, total)
    assert not find_differences(world.models / "7", world.files)


def test_files_of_an_unfinished_pull_are_believed_by_their_digest_only(world: World) -> None:
    incoming = world.models / ".incoming-7"
    (incoming / "variables").mkdir(parents=True)
    (incoming / "weights").write_bytes(b"x" * 1_500_000)
    (incoming / "saved_model.pb").write_bytes(b"graph" * 100)
    assert not find_differences(world.pull(), world.files)
    assert world.blob("saved_model.pb") not in world.store.opened


@pytest.mark.parametrize("litter", ["file", "link", "pipe", "extra"])
def test_litter_in_place_of_an_unfinished_pull_is_cleared(world: World, litter: str, tmp_path: Path) -> None:
    incoming = world.models / ".incoming-7"
    world.models.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").write_bytes(b"mine")
    if litter == "file":
        incoming.write_bytes(b"x")
    elif litter == "link":
        incoming.symlink_to(elsewhere)
    else:
        incoming.mkdir()
        if litter == "pipe":
            os.mkfifo(incoming / "weights")
        else:
            (incoming / "evil.so").write_bytes(b"x")
    assert not find_differences(world.pull(), world.files)
    assert (elsewhere / "keep").read_bytes() == b"mine"
    assert world.visible == ["7"]


def test_a_version_that_is_there_and_right_is_not_fetched_again(world: World) -> None:
    first = world.pull()
    world.store.opened.clear()
    assert world.pull() == first
    assert world.store.opened == []


def test_a_version_that_was_changed_on_the_host_is_refused_with_every_difference(world: World) -> None:
    target = world.pull()
    (target / "weights").write_bytes(b"changed")
    (target / "variables" / "index").unlink()
    (target / "extra").write_bytes(b"")
    (target / "link").symlink_to("weights")
    with pytest.raises(IntegrityError) as caught:
        world.pull()
    for word in ("missing variables/index", "extra extra", "changed weights", "refused link: a link"):
        assert word in str(caught.value)


def test_a_link_in_place_of_a_version_is_refused(world: World, tmp_path: Path) -> None:
    world.models.mkdir(parents=True)
    (world.models / "7").symlink_to(world.export)
    with pytest.raises(IntegrityError, match="not a directory of its own"):
        world.pull()


def test_without_room_on_the_disk_nothing_is_downloaded(world: World) -> None:
    with pytest.raises(CapacityError, match="Remove versions that are no longer served"):
        world.pull(reserve_bytes=2**60)
    assert world.store.opened == []
    assert world.visible == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_in_the_middle_is_told_and_the_pull_goes_on_later(world: World, tmp_path: Path) -> None:
    disk = tmp_path / "small-disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        world.models = disk / "m"
        filler = disk / "filler"

        class FillingStream(io.BytesIO):
            """Fills the disk while it is read."""

            def read(self, size: int = -1) -> bytes:
                filler.write_bytes(b"x" * 1_400_000)
                return super().read(size)

        data = (world.bucket / world.blob("weights")).read_bytes()
        world.store.streams[world.blob("weights")] = lambda: FillingStream(data)
        with pytest.raises(CapacityError, match="make room and pull again"):
            world.pull(workers=1)
        assert world.visible == []
        filler.unlink()
        world.store.streams.clear()
        assert not find_differences(world.pull(), world.files)
        for body in (b"x" * 3_000_000, tmp_path / "export" / "weights"):
            store = DirectoryStore(disk / "bucket")
            with pytest.raises(CapacityError, match=r"No space left on device\. Nothing was stored"):
                store.create("m/blob", body)
            with pytest.raises(NotFoundError):
                store.open("m/blob")
            assert list(store.list("")) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_pulls_at_the_same_time_end_in_one_good_version(world: World, tmp_path: Path) -> None:
    record = tmp_path / "version.json"
    record.write_bytes(world.version.to_json())
    command = [sys.executable, "-c", PULL, str(world.bucket), str(record), str(world.models)]
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, check=False), range(4))
        )
    assert [result.returncode for result in results] == [0] * 4, [result.stderr for result in results]
    assert {result.stdout.strip() for result in results} == {str(world.models / "7")}
    assert not find_differences(world.models / "7", world.files)
    assert world.visible == ["7"]


def test_a_pull_that_waited_for_one_that_was_killed_takes_over(world: World) -> None:
    world.models.mkdir(parents=True)
    lock = world.models / ".pull.lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(600)",
            str(lock),
        ],
        stdout=subprocess.PIPE,
    )
    with holder, ThreadPoolExecutor(1) as pool:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = pool.submit(world.pull)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        holder.kill()
        assert not find_differences(waiting.result(), world.files)


def test_pulls_of_threads_of_one_process_end_in_one_good_version(world: World) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: world.pull(), range(4)))
    assert set(paths) == {world.models / "7"}
    assert len(world.store.opened) == 3
