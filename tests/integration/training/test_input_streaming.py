"""Datasets in a real S3 bucket: the same blocks as from a folder, through outages, kept on the local disk."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync import s3_ranges
from artifact_sync.errors import IntegrityError, NotFoundError, RefusedError, SettingsError, TrainingError
from artifact_sync.s3_store import S3Store
from artifact_sync.settings import StoreSettings, open_store
from liftgate.local_s3 import LocalS3
from training_cluster.inputs.dataset_copy import copy_dataset
from training_cluster.inputs.source import DataSource, open_source


class Door:
    """A TCP door in front of a server: open, shut (connections are dropped), or ajar (the next answers trickle)."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.is_shut = False
        self.is_ajar = False
        self.bytes_passed = self.accepted = 0
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Door:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.shut()

    def shut(self) -> None:
        self.is_shut = True
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_shut:
                client.close()
                continue
            self.accepted += 1
            server = socket.create_connection(self._upstream)
            self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.bytes_passed += len(data)
                while self.is_ajar and data:
                    target.sendall(data[:256])
                    data = data[256:]
                    time.sleep(0.05)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("seaweedfs"), bucket="photos") as running:
        yield running


@pytest.fixture(scope="module")
def folder(training_lab: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 300 pictures in 32 blocks."""
    directory: Path = tmp_path_factory.mktemp("streamed") / "dataset"
    pixels = np.random.default_rng(5).integers(0, 256, (300, 8, 8, 3), np.uint8)
    classes = np.arange(300) % 3
    training_lab.write_indexed_dataset(directory, pixels, classes, labels=("a", "b", "c"), block_examples=10)
    return directory


@pytest.fixture
def door(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    with Door(int(server.endpoint_url.rpartition(":")[2])) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{opened.port}")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


@pytest.fixture
def address(door: Door, folder: Path, server: LocalS3) -> str:
    copy_dataset(str(folder), "s3://photos/sets/one")
    return "s3://photos/sets/one"


def _blocks(source: DataSource) -> list[bytes]:
    return [source.read_block(index) for index in range(len(source.blocks))]


def test_a_stream_gives_the_blocks_of_the_folder_and_the_second_epoch_comes_from_the_disk(
    address: str, folder: Path, door: Door, tmp_path: Path
) -> None:
    expected = _blocks(open_source(str(folder)))
    source = open_source(address, cache_dir=tmp_path / "cache")
    assert _blocks(source) == expected
    door.shut()
    assert _blocks(source) == expected
    damaged = next((tmp_path / "cache").glob("??/*.block"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    door.is_shut = False
    again = open_source(address, cache_dir=tmp_path / "cache")
    assert _blocks(again) == expected
    assert damaged.read_bytes() != b"x" * damaged.stat().st_size


def test_an_outage_of_seconds_is_waited_for_and_a_longer_one_names_what_could_not_be_read(
    address: str, folder: Path, door: Door
) -> None:
    source = open_source(address, retry_seconds=20)
    door.shut()
    reopening = threading.Timer(1.0, lambda: setattr(door, "is_shut", False))
    reopening.start()
    assert source.read_block(3) == open_source(str(folder)).read_block(3)
    reopening.join()
    impatient = open_source(address, retry_seconds=0.5)
    door.shut()
    with pytest.raises(
        TrainingError, match=r"\.tfrecord in s3://photos/sets/one cannot be read.*goes on from its checkpoint"
    ):
        impatient.read_block(3)


def test_a_connection_that_only_trickles_is_given_up_for_another(
    address: str, folder: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_ranges, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(s3_ranges, "_PART_BYTES", 64)
    source = open_source(address, retry_seconds=20)
    expected = open_source(str(folder)).read_block(2)
    door.is_ajar = True
    healing = threading.Timer(1.5, lambda: setattr(door, "is_ajar", False))
    healing.start()
    before = door.accepted
    assert source.read_block(2) == expected
    healing.join()
    assert door.accepted > before


def test_closing_ends_the_waiting_of_reads(address: str, door: Door) -> None:
    source = open_source(address, retry_seconds=300)
    door.shut()
    threading.Timer(0.5, source.close).start()
    began = time.monotonic()
    with pytest.raises(TrainingError, match="the dataset was closed"):
        source.read_block(0)
    assert time.monotonic() - began < 30


def test_what_is_no_dataset_that_can_be_streamed_is_refused(
    address: str, training_lab: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=r"no dataset in s3://photos/sets/none"):
        open_source("s3://photos/sets/none")
    with pytest.raises(SettingsError, match="not a bucket's name"):
        open_source("s3://Photos/sets")
    pixels = np.random.default_rng(5).integers(0, 256, (20, 2, 2, 1), np.uint8)
    training_lab.write_dataset(tmp_path / "old", pixels, np.arange(20) % 2, labels=("a", "b"))
    copy_dataset(str(tmp_path / "old"), "s3://photos/sets/old")
    with pytest.raises(RefusedError, match="built before datasets had an index"):
        open_source("s3://photos/sets/old")


def test_a_copy_goes_on_where_it_stopped_and_comes_back_the_same(
    address: str, folder: Path, door: Door, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    copy_dataset(address, str(there))
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in there.iterdir()) == names
    assert all((there / name).read_bytes() == (folder / name).read_bytes() for name in names)
    (there / "data_manifest.json").unlink()
    shard = next(there.glob("*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    passed = door.bytes_passed
    report = copy_dataset(address, str(there))
    assert (report.copied, report.kept) == (1, len(names) - 2)
    assert door.bytes_passed - passed < sum(path.stat().st_size for path in folder.glob("*.tfrecord"))
    assert shard.read_bytes() == (folder / shard.name).read_bytes()
    assert copy_dataset(str(folder), address).copied == 0


def test_what_arrives_after_the_listing_is_kept_when_it_is_right_and_refused_when_it_is_not(
    address: str, folder: Path, training_lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when a copy is killed whose last requests the server had in hand.
    monkeypatch.setattr(S3Store, "list", lambda _store, _prefix: iter(()))
    report = copy_dataset(str(folder), address)
    assert (report.copied, report.kept) == (len(list(folder.iterdir())) - 1, 0)
    pixels = np.random.default_rng(7).integers(0, 256, (20, 2, 2, 1), np.uint8)
    manifest = training_lab.write_indexed_dataset(tmp_path / "late", pixels, np.arange(20) % 2, labels=("a", "b"))
    late = open_store(StoreSettings(url="s3://photos/sets/late"))
    late.create(manifest.shards[0].path, b"of somebody else")
    with pytest.raises(IntegrityError, match=f"another {manifest.shards[0].path}"):
        copy_dataset(str(tmp_path / "late"), "s3://photos/sets/late")
    with pytest.raises(NotFoundError):
        open_source("s3://photos/sets/late")


def test_a_place_with_another_dataset_is_refused_before_anything_is_copied(
    address: str, training_lab: ModuleType, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (20, 2, 2, 1), np.uint8)
    training_lab.write_indexed_dataset(tmp_path / "other", pixels, np.arange(20) % 2, labels=("a", "b"))
    with pytest.raises(RefusedError, match="holds another dataset"):
        copy_dataset(str(tmp_path / "other"), address)
    shard = next((tmp_path / "other").glob("*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match=shard.name[:12]):
        copy_dataset(str(tmp_path / "other"), "s3://photos/sets/other")
    with pytest.raises(NotFoundError):
        open_source("s3://photos/sets/other")
