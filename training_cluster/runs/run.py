"""What a run was executed from and on: the start record that binds it, the run record that describes it.

Its place in the flow: the trainer writes `started.json` before the first step, so that the same run
id cannot go on with another configuration or other data, and `run.json` when training ended.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from artifact_sync.canonical import Record, Sha256, Timestamp
from artifact_sync.durable import create_durably
from artifact_sync.errors import AlreadyExistsError, RefusedError
from artifact_sync.records import ModelName, RunId
from training_cluster.hosts.source_archive import placed_commit

PACKAGE_DIR = Path(__file__).parents[1]
"""Where this code lies; its repository is the one whose commit a run records."""

_PACKAGES = ("liftgate", "tensorflow", "tensorflow-cpu", "keras", "numpy", "pillow", "protobuf")


class TrainingStart(Record):
    """`started.json`: what the run's first start was asked to do."""

    schema_name: ClassVar[str] = "liftgate.training-start/1"
    run_id: RunId
    model: ModelName
    trained_by: str
    started_at: Timestamp
    config: dict[str, Any]
    config_sha256: Sha256
    data_manifest_sha256: Sha256

    def begin(self, run_dir: Path) -> TrainingStart:
        """Bind the run folder to this, or return what it was bound to before.

        Raises:
            RefusedError: the run was begun as another model, with another configuration or from other data.
        """
        path = run_dir / "started.json"
        try:
            create_durably(path, self.to_json())
        except AlreadyExistsError:
            first = TrainingStart.from_json(path.read_bytes())
            self._refuse_difference(first)
            return first
        return self

    def _refuse_difference(self, first: TrainingStart) -> None:
        bound = ("model", "config_sha256", "data_manifest_sha256")
        changed = [name for name in bound if getattr(self, name) != getattr(first, name)]
        if changed:
            raise RefusedError(
                f"Training refused: run {self.run_id} was begun on {first.started_at:%Y-%m-%d %H:%M} with another "
                f"{' and another '.join(name.removesuffix('_sha256').replace('_', ' ') for name in changed)}. "
                "Go on with the same, or train under another run id."
            )


@dataclass(frozen=True)
class CodeState:
    """Which code ran: a git commit, or the version that is installed where there is no repository."""

    commit: str
    is_dirty: bool


def code_state(package_dir: Path) -> CodeState:
    """Return the state of the code in `package_dir`."""
    placed = placed_commit(package_dir.parent)
    if placed is not None:
        return CodeState(*placed)
    # Only a repository that holds this file is the code's own; a virtual environment may lie in any.
    if _git(package_dir, "ls-files", "--error-unmatch", "__init__.py") is None:
        return CodeState(f"liftgate {_version('liftgate') or 'of unknown version'}", is_dirty=False)
    commit = _git(package_dir, "rev-parse", "HEAD") or "unknown"
    return CodeState(commit, is_dirty=bool(_git(package_dir, "status", "--porcelain", "--untracked-files=no")))


def environment(*, threads: Mapping[str, int]) -> dict[str, str]:
    """Return versions and switches that change what the same code computes; `threads` by pool."""
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    return {
        "python": platform.python_version(),
        **versions,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        **{f"{pool}_threads": str(count) for pool, count in threads.items()},
    }


def hardware(*, accelerators: tuple[str, ...]) -> dict[str, str]:
    """Return what the machine is made of."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "processor": _processor_name(),
        "cores": str(os.cpu_count() or 0),
        "memory_gib": f"{memory_bytes / 2**30:.1f}",
        "accelerators": ", ".join(accelerators) or "none",
    }


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
