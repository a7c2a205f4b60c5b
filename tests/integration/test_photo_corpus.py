"""The same photo gives the same pixels in a dataset and in the front end, for every kind of photo."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from artifact_sync.canonical import sha256_hex
from artifact_sync.clock import ManualClock
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.model_server import ModelSignature, Prediction
from serving.traffic.recorder import TrafficRecorder
from serving.traffic.routing import TrafficSplit
from training_cluster.datasets.build import build_dataset
from training_cluster.datasets.tfrecord import example, example_source, read_frames
from web.app import create_app
from web.catalog import ModelCard
from web.database import open_database
from web.settings import WebSettings

CONTRACT = InputContract(height=40, width=56, channels=3)
CARD = ModelCard(1, ("even", "odd"), CONTRACT)


class WatchedServer:
    """Answers anything and remembers the pixels that it was asked about."""

    def __init__(self) -> None:
        self.pixels: list[np.ndarray] = []

    def predict(self, model, pixels, **_options):
        self.pixels.append(pixels[0])
        return Prediction(np.array([[0.4, 0.6]], dtype=np.float32), 1)

    def signature(self, model, **_options):
        return ModelSignature(1, {}, {})


class OneCard:
    """A catalogue of one version."""

    def split(self) -> TrafficSplit:
        return TrafficSplit(CARD.version)

    def card(self, version: int) -> ModelCard:
        return CARD


def pixels_of_dataset(folder: Path, corpus) -> dict[str, bytes]:
    """Build a dataset of the corpus and return each photo's example by the digest of its file."""
    photos = []
    (folder / "photos").mkdir()
    for number, kind in enumerate(corpus):
        path = folder / "photos" / f"{number:03d}.jpg"
        path.write_bytes(kind.data)
        photos.append(LabelledPhoto(path=path, label=CARD.labels[number % 2], source=f"folder:{path.name}"))
    manifest = build_dataset(
        {"photos": photos},
        out_dir=folder / "dataset",
        contract=CONTRACT,
        excluded_sha256s=set(),
        workers=2,
        allowed_rejects=len(photos),
    )
    found = {}
    for shard in manifest.shards:
        data = (folder / "dataset" / shard.path).read_bytes()
        for record in read_frames(io.BytesIO(data)):
            found[example_source(record).hex()] = record
    return found


def pixels_of_front_end(folder: Path, kind_data: list[bytes]) -> tuple[list[int], list[np.ndarray]]:
    """Send each photo over HTTP's application interface; return the statuses and what the model server got."""
    server, database = WatchedServer(), open_database(f"sqlite:///{folder / 'web.sqlite3'}")
    clock = ManualClock(datetime(2026, 11, 20, tzinfo=UTC))
    with DecodePool(workers=2) as decode_pool:
        client = create_app(
            WebSettings(data_dir=folder, max_upload_bytes=25 * 1024 * 1024),
            model="photos",
            secret_key=b"k" * 32,
            model_server=server,
            catalog=OneCard(),
            decode_pool=decode_pool,
            database=database,
            recorder=TrafficRecorder(model="photos", front_end="front-1", clock=clock),
            clock=clock,
        ).test_client()
        statuses = [
            client.post("/api/v1/classify", data=data or b"\0", content_type="image/jpeg").status_code
            for data in kind_data
        ]
    database.close()
    return statuses, server.pixels


def test_dataset_and_front_end_see_the_same_pixels(tmp_path, corpus):
    dataset = pixels_of_dataset(tmp_path, corpus)
    statuses, seen = pixels_of_front_end(tmp_path, [kind.data for kind in corpus])
    accepted = [kind for kind, status in zip(corpus, statuses, strict=True) if status == 200]
    assert [kind.name for kind in accepted] == [kind.name for kind in corpus if kind.reason is None]
    assert len(accepted) == len(seen) >= 60
    in_dataset, left_out = {}, {}
    for kind, pixels in zip(accepted, seen, strict=True):
        record = dataset.get(sha256_hex(kind.data))
        if record is None:
            left_out[kind.name] = pixels.tobytes()
            continue
        label = corpus.index(kind) % 2
        source = bytes.fromhex(sha256_hex(kind.data))
        assert record == example(pixels=pixels.tobytes(), label=label, source=source), kind.name
        in_dataset[kind.name] = pixels.tobytes()
    assert len(in_dataset) == len(dataset) >= 50
    # A dataset holds equal pixels once, under the first photo that gave them.
    assert set(left_out.values()) <= set(in_dataset.values())
