"""Bring the newest checkpoint of a run that goes on elsewhere to this machine, to look at it while it trains.

Its place in the flow: `liftgate evaluate` calls this before it looks into a folder of checkpoints. The
training is not disturbed: its files are only read. The network may be cut anywhere: fetching again goes on.
"""

from __future__ import annotations

import os
from pathlib import Path

from artifact_sync.durable import fsync_directory
from artifact_sync.errors import IntegrityError, TrainingError
from training_cluster.hosts.attachment import AttachedHost, Attachment
from training_cluster.hosts.ssh import RemoteFile
from training_cluster.training.checkpoint import read_checkpoint

_TRIES = 5
_KEPT = 2
_PARTIAL_SUFFIX = ".partial"


def fetch_checkpoint(attachment: Attachment, into: Path) -> Path | None:
    """Return the newest checkpoint of a run as a verified file on this machine; None when there is none yet.

    A run of this machine is answered with its own file. Else the chief is asked first and the other hosts
    when it does not answer: each has every checkpoint. `into` keeps the last two.

    Raises:
        TrainingError: no host that can be reached has a checkpoint, and some cannot be reached.
        TrustError: a host's key is not the pinned one.
        IntegrityError: what the host has is not what its digest says.
        CapacityError: the disk has no room for it.
    """
    problems = []
    for host in attachment.hosts:
        try:
            found = (
                _newest_here(Path(host.run_dir) / "checkpoints") if host.connection == "local" else _fetch(host, into)
            )
        except TrainingError as error:
            problems.append(str(error))
            continue
        if found is not None:
            return found
    if problems:
        raise TrainingError(" ".join(problems))
    return None


def _newest_here(folder: Path) -> Path | None:
    return max(folder.glob("step-*.checkpoint"), default=None)


def _fetch(host: AttachedHost, into: Path) -> Path | None:
    folder = host.run_dir / "checkpoints"
    with host.ssh() as transport:
        for _ in range(_TRIES):
            files = [file for file in transport.list_files(folder) if file.name.startswith("step-")]
            newest = max((file for file in files if file.name.endswith(".checkpoint")), default=None, key=_name)
            if newest is None:
                return None
            if _is_here(newest, into):
                return into / newest.name
            # Two newer ones may have been written meanwhile, so that this one is gone.
            if transport.fetch_file(folder / newest.name, _partial(newest, into), size_bytes=newest.size_bytes):
                return _settle(newest, into, host=host)
    raise TrainingError(
        f"Host {host.name} removed each checkpoint before it could be fetched. Checkpoint less often: "
        "raise checkpoint_every_steps."
    )


def _name(file: RemoteFile) -> str:
    return file.name


def _is_here(file: RemoteFile, into: Path) -> bool:
    try:
        found = (into / file.name).stat()
    except FileNotFoundError:
        return False
    return (found.st_size, int(found.st_mtime)) == (file.size_bytes, file.changed_at)


def _partial(file: RemoteFile, into: Path) -> Path:
    # A run that went back may write the same step again: another file, which must not be appended to this one.
    return into / f".{file.name}.{file.size_bytes}.{file.changed_at}{_PARTIAL_SUFFIX}"


def _settle(file: RemoteFile, into: Path, *, host: AttachedHost) -> Path:
    partial = _partial(file, into)
    try:
        read_checkpoint(partial)
    except IntegrityError as error:
        partial.unlink()
        raise IntegrityError(
            f"Checkpoint {file.name} of host {host.name} refused: its bytes are not what its digest says. "
            "Fetch again; if that repeats, look at the host's disk."
        ) from error
    # The host's time tells later whether it is still the same file.
    os.utime(partial, (file.changed_at, file.changed_at))
    partial.replace(into / file.name)
    fsync_directory(into)
    older = sorted(into.glob("step-*.checkpoint"))[:-_KEPT]
    for path in [*older, *into.glob(f".*{_PARTIAL_SUFFIX}")]:
        path.unlink(missing_ok=True)
    return into / file.name
