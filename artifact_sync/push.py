"""Push: an export's files into the bucket as blobs, each once, and none whose bytes have changed.

Its place in the flow: `liftgate promote` pushes before it creates the version. Blobs that nobody
refers to are harmless, so a push that was killed is finished by the same push again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.manifest import verify_manifest
from artifact_sync.records import FileEntry, Manifest
from artifact_sync.registry import Registry
from artifact_sync.transfer import Progress, ProgressCallback, run_all


@dataclass(frozen=True)
class PushReport:
    """What a push did; files of equal content count once."""

    uploaded_files: int
    uploaded_bytes: int
    present_files: int
    present_bytes: int


def push_export(
    registry: Registry,
    export_dir: Path,
    manifest: Manifest,
    *,
    progress: ProgressCallback | None = None,
    workers: int = 4,
) -> PushReport:
    """Upload what the bucket lacks of `manifest`.

    The export is compared with the manifest before the first byte is sent, and each file again while
    it is stored, so bytes that changed in between never become a blob.

    Args:
        registry: the model's part of the bucket.
        export_dir: the directory that `manifest` describes.
        manifest: what to upload.
        progress: told the bytes done and in all.
        workers: files in flight at once.

    Raises:
        IntegrityError: the export is not what the manifest says.
        StoreError: the bucket cannot be used; push again to go on.
    """
    verify_manifest(export_dir, manifest)
    blobs = {entry.sha256: entry for entry in manifest.files}
    counter = Progress(progress, total_bytes=sum(entry.size_bytes for entry in blobs.values()))
    stop = threading.Event()

    def push_one(entry: FileEntry) -> bool:
        was_present = registry.has_blob(entry.sha256, size_bytes=entry.size_bytes)
        if not was_present:
            registry.put_blob(export_dir / entry.path, sha256=entry.sha256)
        counter.add(entry.size_bytes)
        return was_present

    entries = list(blobs.values())
    outcomes = run_all(push_one, entries, workers=workers, stop=stop)
    return _report(entries, outcomes)


def _report(entries: list[FileEntry], outcomes: list[bool]) -> PushReport:
    present = [entry.size_bytes for entry, was_present in zip(entries, outcomes, strict=True) if was_present]
    total_bytes = sum(entry.size_bytes for entry in entries)
    return PushReport(
        uploaded_files=len(entries) - len(present),
        uploaded_bytes=total_bytes - sum(present),
        present_files=len(present),
        present_bytes=sum(present),
    )
