"""Pull on a healthy bucket; what it does with a bad one, and under kills, is in tests/faults."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import CapacityError, InputError, SettingsError
from artifact_sync.manifest import build_manifest, verify_manifest
from artifact_sync.pull import incoming_path, pull_version
from artifact_sync.push import push_export
from artifact_sync.records import Evidence, InputContract, Lineage, VersionRecord
from artifact_sync.registry import Registry

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DIGEST = "0" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "bucket"), model="m")


@pytest.fixture
def version(registry: Registry, tmp_path: Path) -> VersionRecord:
    export = tmp_path / "export"
    (export / "variables").mkdir(parents=True)
    (export / "saved_model.pb").write_bytes(b"graph")
    (export / "variables" / "data").write_bytes(b"x" * 1000)
    (export / "variables" / "same-as-data").write_bytes(b"x" * 1000)
    files = build_manifest(export)
    push_export(registry, export, files)
    return VersionRecord(
        model="m",
        version=43,
        manifest=files,
        lineage=Lineage(
            run_id="run-1",
            code_commit="c",
            code_dirty=False,
            config_sha256=DIGEST,
            data_manifest_sha256=DIGEST,
            trained_by="t",
            trained_at=NOON,
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
        created_at=NOON,
    )


def test_a_version_lies_under_its_number_with_exactly_its_files(
    registry: Registry, version: VersionRecord, tmp_path: Path
) -> None:
    models = tmp_path / "models" / "m"
    assert pull_version(registry, version, models_dir=models) == models / "43"
    verify_manifest(models / "43", version.manifest)
    assert sorted(path.name for path in models.iterdir()) == [".pull.lock", "43"]


def test_progress_counts_bytes_from_none_to_all(registry: Registry, version: VersionRecord, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pull_version(registry, version, models_dir=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (seen[0], seen[-1]) == ((0, 2005), (2005, 2005))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_files_are_durable_before_the_rename_and_the_rename_before_the_return(
    registry: Registry, version: VersionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        calls.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> Path:
        calls.append(f"rename to {target.name}")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    models = tmp_path / "m"
    models.mkdir()
    pull_version(registry, version, models_dir=models, workers=1)
    assert calls == [
        "saved_model.pb",
        "data",
        "same-as-data",
        "variables",
        ".incoming-43",
        "rename to 43",
        "m",
    ]


def test_room_is_counted_with_the_reserve_and_without_what_is_there(
    registry: Registry, version: VersionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = incoming_path(tmp_path, version=43)
    incoming.mkdir()
    (incoming / "saved_model.pb").write_bytes(b"graph")
    free = SimpleNamespace(free=2000 + 99)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(CapacityError, match=r"2,000 bytes are needed .* 100 must stay free, but 2,099 are free"):
        pull_version(registry, version, models_dir=tmp_path, reserve_bytes=100)
    free.free += 1
    pull_version(registry, version, models_dir=tmp_path, reserve_bytes=100)


def test_a_version_of_another_model_is_refused(version: VersionRecord, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is of model m, not of n"):
        pull_version(Registry(registry.store, model="n"), version, models_dir=tmp_path)


def test_a_place_that_cannot_be_written_is_told(registry: Registry, version: VersionRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"Cannot pull into .*file/m: .*Check that models_dir exists"):
        pull_version(registry, version, models_dir=tmp_path / "file" / "m")
