"""`liftgate dataset` over real photo files: what is open and sealed is said, and looks lie beside the shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from artifact_sync.canonical import sha256_hex
from liftgate.cli import liftgate
from training_cluster.datasets.data_manifest import DataManifest, IndexedDataManifest
from validation.photos.holdout import load_holdout


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty photos of two labels, taken with two devices, and one of them saved again with the other label."""
    random = np.random.default_rng(4)
    rows = ["path,label,device"]
    for index in range(60):
        noise = Image.fromarray(random.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        noise.resize((80, 80), Image.Resampling.BICUBIC).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{('crack', 'sound')[index % 2]},{('phone', 'tablet')[index % 3 == 0]}")
    Image.open(tmp_path / "0.png").save(tmp_path / "again.jpg", quality=90)
    rows.append("again.jpg,sound,phone")
    (tmp_path / "photos.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "liftgate.toml").write_text('model = "parts"\n[training]\ndata_dir = "data"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _first_rows(site: Path, count: int) -> None:
    rows = (site / "photos.csv").read_text().splitlines(keepends=True)
    (site / "some.csv").write_text("".join(rows[:count]))


def _run(*words: str) -> Result:
    return CliRunner().invoke(liftgate, ["dataset", *words])


def test_freezing_says_what_is_open_and_sealed_by_label_and_slice(site: Path) -> None:
    words = ("freeze-holdout", "--photos", "photos.csv", "--open-share", "0.2")
    told = _run(*words, "--out", "one")
    assert told.exit_code == 0, told.output
    assert "61 photos of 2 classes" in told.stdout
    assert "12 open, 49 sealed" in told.stdout
    assert "  crack: 6 open, 24 sealed" in told.stdout
    assert "  device = tablet: " in told.stdout
    assert "nearly the same with different labels: " in told.stderr
    for named in ("photos.csv:2 (crack)", "photos.csv:62 (sound)"):
        assert named in told.stderr
    document = json.loads(_run(*words, "--out", "two", "--json").stdout)
    assert document["sha256"] == load_holdout(site / "one").sha256
    assert (document["open"], document["sealed"]) == (12, 49)
    assert document["classes"] == {"crack": {"open": 6, "sealed": 24}, "sound": {"open": 6, "sealed": 25}}
    devices = document["slices"]["device"]
    assert sum(sides["open"] for sides in devices.values()) == 12
    assert sum(devices["tablet"].values()) == 20
    assert len(document["disputes"]) == 1


def test_photos_of_a_holdout_that_was_looked_at_are_open_in_the_next(site: Path) -> None:
    _first_rows(site, 11)
    assert _run("freeze-holdout", "--photos", "some.csv", "--out", "old").exit_code == 0
    words = ("freeze-holdout", "--photos", "photos.csv", "--out", "new", "--open-from", "old")
    assert _run(*words).exit_code == 0
    opened = {item.sha256 for item in load_holdout(site / "new").record.items if item.is_open}
    old = load_holdout(site / "old").photo_sha256s
    assert old < opened
    # again.jpg looks like a photo of the old holdout.
    assert len(opened - old) == 1
    refused = _run("freeze-holdout", "--photos", "some.csv", "--out", "none", "--open-from", "new")
    assert refused.exit_code != 0
    assert not (site / "none").exists()


def test_a_dataset_without_looks_is_said_to_have_none(site: Path) -> None:
    _first_rows(site, 21)
    words = ("build", "--photos", "some.csv", "--size", "16x16x3", "--no-feedback")
    built = _run(*words)
    assert built.exit_code == 0, built.output
    assert "near duplicates" not in built.stderr
    manifest = site / "data" / "data_manifest.json"
    document = json.loads(manifest.read_bytes())
    assert (site / "data" / document["hashes"]["path"]).stat().st_size == 20 * 48
    later = set(IndexedDataManifest.model_fields) - set(DataManifest.model_fields)
    document = {name: value for name, value in document.items() if name not in later}
    document["schema"] = "liftgate.data-manifest/1"
    manifest.write_text(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    again = _run(*words)
    assert again.exit_code == 0, again.output
    assert "near duplicates of the holdout cannot be looked for" in again.stderr


def test_a_part_of_the_photos_becomes_the_holdout_which_then_guards_the_next_build(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("build", "--photos", "photos.csv", "--size", "16x16x3", "--no-feedback")
    built = _run(*words, "--out", "one", "--holdout-share", "0.3")
    assert built.exit_code == 0, built.output
    assert "1 look nearly like another one" in built.stdout
    (line,) = [line for line in built.stdout.splitlines() if "photos for a holdout, not in the shards" in line]
    count = int(line.split()[0])
    assert line.endswith("liftgate dataset freeze-holdout --photos one/holdout.csv")
    frozen = _run("freeze-holdout", "--photos", "one/holdout.csv", "--open-share", "0.4", "--out", "holdout")
    assert frozen.exit_code == 0, frozen.output
    assert f"{count} photos of 2 classes" in frozen.stdout

    # With the holdout set, neither its photos nor one that looks nearly like one of them is trained on.
    settings = (site / "liftgate.toml").read_text()
    (site / "liftgate.toml").write_text(f'{settings}[validation]\nholdout_dir = "holdout"\n')
    sources = {item.sha256 for item in load_holdout(site / "holdout").record.items}
    held_out = next(path for path in site.glob("[0-9]*.png") if sha256_hex(path.read_bytes()) in sources)
    Image.open(held_out).save(site / "nearly.jpg", quality=90)
    label = ("crack", "sound")[int(held_out.stem) % 2]
    (site / "more.csv").write_text((site / "photos.csv").read_text() + f"nearly.jpg,{label},phone\n")
    guarded = _run("build", "--photos", "more.csv", "--size", "16x16x3", "--no-feedback", "--json")
    assert guarded.exit_code == 0, guarded.output
    document = json.loads(guarded.stdout)
    assert (document["excluded"], document["examples"]) == (count + 1, 61 - count)

    for refused in ("none.csv", "s3://BAD_NAME/x"):
        told = _run("build", "--photos", refused, "--out", "none")
        assert told.exit_code != 0
        assert not (site / "none").exists()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training_cluster.datasets.build.build_dataset", interrupt)
    assert "the same command goes on from there" in _run(*words, "--out", "two").stderr
