"""Dataset build from a real S3 server: a prefix a class and rows of a CSV file, and a holdout that is fetched."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import InputError, StoreError
from artifact_sync.records import InputContract
from artifact_sync.settings import StoreSettings, open_store
from artifact_sync.store import ObjectStore
from liftgate.local_s3 import LocalS3
from training_cluster.datasets.build import build_dataset
from training_cluster.datasets.data_manifest import IndexedDataManifest
from training_cluster.datasets.readers import photos_from_csv, photos_from_folder
from training_cluster.datasets.stored_photos import PhotoStores

_CONTRACT = InputContract(height=8, width=8, channels=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("seaweedfs"), bucket="scans") as running:
        yield running


@pytest.fixture
def bucket(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(StoreSettings(url="s3://scans", endpoint_url=server.endpoint_url))


def _photos() -> dict[str, bytes]:
    random = np.random.default_rng(11)
    photos: dict[str, bytes] = {}
    for number in range(30):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(stream, "PNG")
        photos[f"{('crack', 'sound')[number % 2]}/{number:02d}.png"] = stream.getvalue()
    return photos


def test_a_dataset_from_a_bucket_is_the_one_from_the_same_files(
    bucket: ObjectStore, server: LocalS3, tmp_path: Path
) -> None:
    for name, data in _photos().items():
        bucket.create(f"parts/{name}", data)
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    stores = PhotoStores(endpoint_url=server.endpoint_url)
    arguments = {"contract": _CONTRACT, "excluded_sha256s": set[str](), "workers": 1, "holdout_share": 0.2}
    stored = build_dataset(
        {"s3://scans/parts": stores.photos("s3://scans/parts")},
        out_dir=tmp_path / "stored",
        stores=stores,
        **arguments,  # type: ignore[arg-type]
    )
    local = build_dataset(
        {"files": photos_from_folder(tmp_path / "files")},
        out_dir=tmp_path / "local",
        **arguments,  # type: ignore[arg-type]
    )
    assert isinstance(stored, IndexedDataManifest)
    assert stored.shards == local.shards
    assert stored.sources_sha256 == local.sources_sha256
    assert set(stored.sources) == {"s3://scans/parts"}

    listed = list(photos_from_csv(tmp_path / "stored" / "holdout.csv"))
    assert len(listed) == stored.holdout_count > 0
    contents = {sha256_hex(data) for data in _photos().values()}
    for path in (tmp_path / "stored" / "holdout-photos").iterdir():
        assert path.stem == sha256_hex(path.read_bytes())
        assert path.stem in contents

    rows = [f"s3://scans/parts/{name},{name.partition('/')[0]}" for name in _photos()]
    (tmp_path / "rows.csv").write_text("\n".join(["path,label", *rows, "s3://scans/parts/gone.png,crack"]) + "\n")
    with pytest.raises(InputError, match=r"rows.csv:32: .*gone.png"):
        build_dataset(
            {"rows": photos_from_csv(tmp_path / "rows.csv")},
            out_dir=tmp_path / "rows",
            stores=stores,
            **arguments,  # type: ignore[arg-type]
        )
    by_rows = build_dataset(
        {"rows": photos_from_csv(tmp_path / "rows.csv")},
        out_dir=tmp_path / "rows",
        stores=stores,
        allowed_rejects=1,
        **arguments,  # type: ignore[arg-type]
    )
    assert by_rows.shards == local.shards


def test_keys_that_are_no_photos_of_a_class_are_named_and_hidden_ones_passed_over(
    bucket: ObjectStore, server: LocalS3
) -> None:
    stores = PhotoStores(endpoint_url=server.endpoint_url)
    for key in ("mixed/cat/a.png", "mixed/stray.png"):
        bucket.create(key, b"not looked at here")
    # As other programs write keys: through the client, since a store writes plain names only.
    client = bucket._client  # type: ignore[attr-defined]
    for key in ("mixed/cat/two words.png", "mixed/cat/.hidden", "mixed/dog/"):
        client.call(lambda s3, key=key: s3.put_object(Bucket="scans", Key=key, Body=b""), act="put")
    with pytest.raises(InputError) as refusal:
        list(stores.photos("s3://scans/mixed"))
    text = str(refusal.value)
    assert "2 objects of s3://scans/mixed are wrong" in text
    assert "'stray.png': it lies under no class prefix" in text
    assert "'cat/two words.png': its key is not made of plain names" in text
    with pytest.raises(InputError, match="holds none"):
        list(stores.photos("s3://scans/nothing"))


def test_a_bucket_that_cannot_be_reached_ends_the_build_and_rejects_nothing(
    bucket: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("path,label\ns3://nowhere/a.png,cat\ns3://nowhere/b.png,dog\n")
    with pytest.raises(StoreError):
        build_dataset(
            {"rows": photos_from_csv(tmp_path / "rows.csv")},
            out_dir=tmp_path / "set",
            contract=_CONTRACT,
            excluded_sha256s=set(),
            workers=1,
            stores=PhotoStores(endpoint_url="http://127.0.0.1:9"),
        )
