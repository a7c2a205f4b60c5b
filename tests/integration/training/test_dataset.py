"""Dataset build over real photo files: pixels by the contract, the holdout kept out, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import CapacityError, InputError, IntegrityError, RefusedError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.records import InputContract
from serving.decode_pool import DecodePool
from serving.perceptual_hash import perceptual_hash
from serving.photo import decode_photo
from training_cluster.datasets import build_progress, pixel_parts
from training_cluster.datasets.build import build_dataset
from training_cluster.datasets.build_progress import BuildProgress
from training_cluster.datasets.building_folder import locked_building_folder
from training_cluster.datasets.data_manifest import DataManifest, IndexedDataManifest, load_data_manifest, verify_shards
from training_cluster.datasets.example_table import parse_examples
from training_cluster.datasets.readers import photos_from_csv, photos_from_folder
from training_cluster.datasets.sources import picture_hashes, source_sha256s
from training_cluster.datasets.tfrecord import read_frames
from validation.photos.holdout import freeze_holdout

_CONTRACT = InputContract(height=8, width=8, channels=3)


@pytest.fixture
def photos(tmp_path: Path) -> tuple[LabelledPhoto, ...]:
    """Forty photos of two classes, different in pixels."""
    random = np.random.default_rng(3)
    for index in range(40):
        directory = tmp_path / "photos" / ("dark", "light")[index % 2]
        directory.mkdir(parents=True, exist_ok=True)
        level = 60 if index % 2 == 0 else 160
        picture = random.integers(level, level + 60, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(picture).save(directory / f"{index:02d}.png")
    return tuple(sorted(photos_from_folder(tmp_path / "photos"), key=lambda photo: photo.path))


def _records(directory: Path) -> list[bytes]:
    records: list[bytes] = []
    for shard in load_data_manifest(directory).shards:
        with (directory / shard.path).open("rb") as stream:
            records.extend(read_frames(stream))
    return records


def test_shards_hold_the_very_pixels_of_the_photo_contract(photos: tuple[LabelledPhoto, ...], tmp_path: Path) -> None:
    seen: list[BuildProgress] = []
    manifest = build_dataset(
        {"photos": photos},
        out_dir=tmp_path / "set",
        contract=_CONTRACT,
        excluded_sha256s=set(),
        workers=2,
        progress=seen.append,
    )
    verify_shards(tmp_path / "set", manifest)
    assert manifest.labels == ("dark", "light")
    assert manifest.example_counts == {"dark": 20, "light": 20}
    ends = {told.stage: (told.done, told.total) for told in seen}
    assert ends == {"listing": (40, None), "reading": (40, 40), "comparing": (0, None), "writing": (40, 40)}
    in_order = sorted((photo.path.read_bytes() for photo in photos), key=sha256_hex)
    records = _records(tmp_path / "set")
    assert len(records) == 40
    for data, record in zip(in_order, records, strict=True):
        assert decode_photo(data, _CONTRACT).tobytes() in record
        assert bytes.fromhex(sha256_hex(data)) in record


def test_the_look_of_each_example_lies_beside_the_shards(photos: tuple[LabelledPhoto, ...], tmp_path: Path) -> None:
    manifest = build_dataset(
        {"photos": photos}, out_dir=tmp_path / "set", contract=_CONTRACT, excluded_sha256s=set(), workers=2
    )
    assert isinstance(manifest, IndexedDataManifest)
    found = picture_hashes(tmp_path / "set", manifest)
    assert found is not None
    in_order = sorted((photo.path.read_bytes() for photo in photos), key=sha256_hex)
    assert [source.tobytes().hex() for source in found.sources] == [sha256_hex(data) for data in in_order]
    for data, picture in zip(in_order, found.hashes, strict=True):
        assert picture.tobytes() == perceptual_hash(decode_photo(data, _CONTRACT))
    shards = {shard.path for shard in manifest.shards}
    others = {path.name for path in (tmp_path / "set").iterdir()} - shards
    assert others == {"data_manifest.json", manifest.hashes.path, manifest.blocks.path, manifest.examples.path}


def test_a_dataset_from_before_there_were_hashes_is_found_again_as_it_is(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    out_dir = tmp_path / "set"
    built = build_dataset({"photos": photos}, out_dir=out_dir, contract=_CONTRACT, excluded_sha256s=set())
    older = DataManifest.model_validate(built.model_dump(include=set(DataManifest.model_fields)))
    (out_dir / "data_manifest.json").write_bytes(older.to_json())
    for path in out_dir.glob("*.hashes"):
        path.unlink()
    assert build_dataset({"photos": photos}, out_dir=out_dir, contract=_CONTRACT, excluded_sha256s=set()) == older


def test_the_same_photos_give_the_same_digest_in_any_order_with_any_workers(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    one = build_dataset(
        {"photos": photos}, out_dir=tmp_path / "one", contract=_CONTRACT, excluded_sha256s=set(), workers=1
    )
    two = build_dataset(
        {"photos": photos[::-1]}, out_dir=tmp_path / "two", contract=_CONTRACT, excluded_sha256s=set(), workers=3
    )
    assert one.sha256 == two.sha256


def test_building_again_returns_what_is_there_and_something_else_is_refused(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    out_dir = tmp_path / "set"
    first = build_dataset({"photos": photos}, out_dir=out_dir, contract=_CONTRACT, excluded_sha256s=set())
    before = {path: path.stat().st_mtime_ns for path in out_dir.iterdir()}
    assert build_dataset({"photos": photos}, out_dir=out_dir, contract=_CONTRACT, excluded_sha256s=set()) == first
    assert {path: path.stat().st_mtime_ns for path in out_dir.iterdir()} == before
    with pytest.raises(RefusedError, match="holds a dataset of other photos"):
        build_dataset({"photos": photos[1:]}, out_dir=out_dir, contract=_CONTRACT, excluded_sha256s=set())
    for rule in ({"near_distance": 1}, {"holdout_share": 0.1}):
        with pytest.raises(RefusedError, match="holds a dataset of other photos"):
            build_dataset({"photos": photos}, out_dir=out_dir, contract=_CONTRACT, excluded_sha256s=set(), **rule)  # type: ignore[arg-type]
    assert not (tmp_path / ".building-set").exists()
    with pytest.raises(RefusedError, match="is not empty and is no dataset"):
        build_dataset({"photos": photos}, out_dir=tmp_path / "photos", contract=_CONTRACT, excluded_sha256s=set())


def test_photos_of_the_holdout_are_kept_out_by_bytes_and_by_pixels(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    by_bytes, by_pixels = photos[0], photos[1]
    again = tmp_path / "again.bmp"
    Image.open(by_pixels.path).save(again.with_suffix(".webp"), lossless=True)
    renamed = LabelledPhoto(again.with_suffix(".webp"), label=by_pixels.label, source="again")
    excluded = {
        sha256_hex(by_bytes.path.read_bytes()),
        sha256_hex(decode_photo(by_pixels.path.read_bytes(), _CONTRACT).tobytes()),
    }
    manifest = build_dataset(
        {"photos": [*photos, renamed]}, out_dir=tmp_path / "set", contract=_CONTRACT, excluded_sha256s=excluded
    )
    assert {(entry.source, entry.reason) for entry in manifest.excluded} == {
        (by_bytes.source, "its bytes are in the holdout"),
        (by_pixels.source, "its pixels are in the holdout"),
        ("again", "its pixels are in the holdout"),
    }
    assert manifest.count == 38


def test_every_photo_that_cannot_be_used_is_named_and_nothing_is_built(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(photos[0].path.read_bytes()[:60])
    bad = [
        LabelledPhoto(tmp_path / "broken.png", label="dark", source="photos.csv:17"),
        LabelledPhoto(tmp_path / "none.png", label="dark", source="photos.csv:18"),
        LabelledPhoto(photos[3].path, label="dusk", source="photos.csv:19"),
    ]
    out_dir = tmp_path / "set"
    with pytest.raises(InputError) as refusal:
        build_dataset(
            {"photos": [*photos, *bad]},
            out_dir=out_dir,
            contract=_CONTRACT,
            excluded_sha256s=set(),
            labels=("dark", "light"),
        )
    text = str(refusal.value)
    assert "3 photos cannot be used and 0 may be left out" in text
    for line in ("photos.csv:17:", "photos.csv:18:", "photos.csv:19: label 'dusk' is none of dark, light"):
        assert line in text
    assert not out_dir.exists()

    manifest = build_dataset(
        {"photos": [*photos, *bad]},
        out_dir=out_dir,
        contract=_CONTRACT,
        excluded_sha256s=set(),
        labels=("dark", "light"),
        allowed_rejects=3,
    )
    assert [reject.source for reject in manifest.rejects] == ["photos.csv:17", "photos.csv:18", "photos.csv:19"]
    assert manifest.count == 40
    assert not list(tmp_path.glob(".building-*"))


def test_the_same_pixels_under_another_label_are_rejected_and_under_the_same_are_a_duplicate(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    # Bytes behind the end of a PNG change the file's digest and no pixel.
    copy = tmp_path / "copy.png"
    copy.write_bytes(photos[0].path.read_bytes() + b"\0")
    arguments = {"contract": _CONTRACT, "excluded_sha256s": set[str]()}
    same = LabelledPhoto(copy, label=photos[0].label, source="copy")
    manifest = build_dataset({"photos": [*photos, same]}, out_dir=tmp_path / "same", **arguments)  # type: ignore[arg-type]
    assert len(manifest.duplicates) == 1
    assert manifest.count == 40
    other = LabelledPhoto(copy, label="light", source="copy")
    with pytest.raises(InputError, match="its pixels are those of"):
        build_dataset({"photos": [*photos, other]}, out_dir=tmp_path / "other", **arguments)  # type: ignore[arg-type]


def test_feedback_and_slices_are_counted(photos: tuple[LabelledPhoto, ...], tmp_path: Path) -> None:
    mixed = [
        LabelledPhoto(
            photo.path,
            label=photo.label,
            source=f"feedback:{index}" if index < 3 else photo.source,
            slices={"site": "north" if index < 10 else "south"},
        )
        for index, photo in enumerate(photos)
    ]
    manifest = build_dataset({"photos": mixed}, out_dir=tmp_path / "set", contract=_CONTRACT, excluded_sha256s=set())
    assert manifest.feedback_count == 3
    assert manifest.slice_counts == {"site": {"north": 10, "south": 30}}


def test_one_class_is_no_classifier(photos: tuple[LabelledPhoto, ...], tmp_path: Path) -> None:
    dark = [photo for photo in photos if photo.label == "dark"]
    with pytest.raises(InputError, match="found 1 classes"):
        build_dataset({"photos": dark}, out_dir=tmp_path / "set", contract=_CONTRACT, excluded_sha256s=set())
    with pytest.raises(InputError, match="no usable photo has the label light"):
        build_dataset(
            {"photos": dark},
            out_dir=tmp_path / "set",
            contract=_CONTRACT,
            excluded_sha256s=set(),
            labels=("dark", "light"),
        )


class StoppedError(Exception):
    """Stands for whatever ends a build in its middle."""


def _stop_at(stage: str, done: int) -> Callable[[BuildProgress], None]:
    def told(progress: BuildProgress) -> None:
        if progress.stage == stage and progress.done >= done:
            raise StoppedError

    return told


def _decoded(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "index.sqlite")) as index:
        return int(index.execute("SELECT COUNT(*) FROM decoded").fetchone()[0])


def test_a_build_goes_on_where_it_stopped_also_with_other_photos_and_rules(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A part for each few photos, so that some are used up before the build stops; told at every photo.
    monkeypatch.setattr(pixel_parts, "_PART_BYTES", 600)
    monkeypatch.setattr(build_progress, "_SECONDS_BETWEEN", 0.0)
    seen: list[BuildProgress] = []
    arguments = {"out_dir": tmp_path / "set", "contract": _CONTRACT, "excluded_sha256s": set[str](), "workers": 2}
    building = tmp_path / ".building-set"
    with pytest.raises(StoppedError):
        build_dataset({"photos": photos[:30]}, progress=_stop_at("reading", 20), **arguments)  # type: ignore[arg-type]
    before = _decoded(building)
    assert 0 < before < 30
    with pytest.raises(StoppedError):
        build_dataset({"photos": photos[:30]}, progress=_stop_at("writing", 25), **arguments)  # type: ignore[arg-type]
    assert _decoded(building) == 30
    assert len(list(building.glob("dataset/*.tfrecord"))) >= 5
    parts = sorted(path.name for path in (building / "parts").iterdir())
    assert len(parts) < 9, "parts that no later shard needs are freed"

    # Ten more photos, and one that was changed: its old digest is not believed.
    Image.open(photos[35].path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos[5].path)
    again = build_dataset({"photos": photos}, progress=seen.append, **arguments)  # type: ignore[arg-type]
    fresh = build_dataset({"photos": photos}, **{**arguments, "out_dir": tmp_path / "fresh"})  # type: ignore[arg-type]
    assert again == fresh
    assert _records(tmp_path / "set") == _records(tmp_path / "fresh")
    assert not building.exists()
    # These first; then, since the order is another, those whose pixels were used up.
    assert next(progress for progress in seen if progress.stage == "reading").done >= 29


def test_nothing_is_lost_when_the_disk_gets_full_or_another_builds_the_same(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"out_dir": tmp_path / "set", "contract": _CONTRACT, "excluded_sha256s": set[str](), "workers": 1}

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(CapacityError, match="is full"):
            build_dataset({"photos": photos}, **arguments)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10_000, 9_000, 1_000))  # type: ignore[attr-defined]
        with pytest.raises(CapacityError, match="GB left"):
            build_dataset({"photos": photos}, **arguments)  # type: ignore[arg-type]
    with locked_building_folder(tmp_path / "set"), pytest.raises(RefusedError, match="another process is building"):
        build_dataset({"photos": photos}, **arguments)  # type: ignore[arg-type]
    (tmp_path / ".building-set" / "index.sqlite").write_bytes(b"no index" * 1000)
    with pytest.raises(IntegrityError, match="Remove that folder and build again"):
        build_dataset({"photos": photos}, **arguments)  # type: ignore[arg-type]
    shutil.rmtree(tmp_path / ".building-set")
    assert build_dataset({"photos": photos}, **arguments).count == 40  # type: ignore[arg-type]


def test_near_duplicates_lie_together_and_the_holdouts_side_becomes_a_list_to_freeze(
    photos: tuple[LabelledPhoto, ...], tmp_path: Path
) -> None:
    rows = ["path,label,source,site"]
    for number, photo in enumerate(photos):
        site = ("north", "south")[number % 2]
        rows.append(f"{photo.path},{photo.label},{f'burst {number}' if number < 4 else ''},{site}")
        copy = photo.path.with_suffix(".webp")
        if number < 10:
            Image.open(photo.path).save(copy, quality=95)
            rows.append(f"{copy},{photo.label},{f'burst {number ^ 1}' if number < 4 else ''},")
    (tmp_path / "photos.csv").write_text("\n".join(rows) + "\n")
    manifest = build_dataset(
        {"photos.csv": photos_from_csv(tmp_path / "photos.csv")},
        out_dir=tmp_path / "set",
        contract=_CONTRACT,
        excluded_sha256s=set(),
        holdout_share=0.3,
    )
    assert isinstance(manifest, IndexedDataManifest)
    assert manifest.near_duplicate_count == len(manifest.near_duplicates) >= 3
    assert manifest.count + manifest.holdout_count == 50
    assert set(manifest.sources) == {"photos.csv"}
    table = parse_examples((tmp_path / "set" / manifest.examples.path).read_bytes(), manifest.examples)
    assert manifest.examples.slice_values == {"site": ("", "north", "south")}
    assert np.bincount(table.slices["site"]).tolist() == [
        manifest.slice_counts["site"][key] for key in ("", "north", "south")
    ]
    assert np.bincount(table.labels).tolist() == list(manifest.example_counts.values())

    held_out = list(photos_from_csv(tmp_path / "set" / "holdout.csv"))
    assert len(held_out) == manifest.holdout_count > 3
    digests = {sha256_hex(photo.path.read_bytes()) for photo in held_out if isinstance(photo, LabelledPhoto)}
    assert not digests & source_sha256s(tmp_path / "set", manifest)
    # Each of the first bursts holds the other photo's copy.
    for one, other in ((0, 1), (2, 3)):
        files = [photos[number].path.with_suffix(kind) for number in (one, other) for kind in (".png", ".webp")]
        assert len({sha256_hex(path.read_bytes()) in digests for path in files}) == 1
    assert {entry.source for entry in manifest.near_duplicates} <= {f"photos.csv:{line}" for line in range(2, 22)}
    with DecodePool(workers=1) as decoder:
        frozen = freeze_holdout(
            [photo for photo in held_out if isinstance(photo, LabelledPhoto)],
            labels=manifest.labels,
            out_dir=tmp_path / "holdout",
            decoder=decoder,
            open_share=0.3,
        )
    assert frozen.photo_sha256s == digests
