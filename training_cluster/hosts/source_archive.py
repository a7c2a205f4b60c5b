"""The packages that training needs, packed into one archive that is named by its digest.

Its place in the flow: the playbook packs the controlling machine's source tree and unpacks it on a
training host under the digest, so that what trains is exactly what was checked out here, and a
second run of the same code copies nothing.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.canonical import canonical_json, sha256_hex
from artifact_sync.durable import write_durably
from artifact_sync.errors import LiftgateError, NotFoundError

_PACKAGES = ("artifact_sync", "serving", "training_cluster")
_CODE_FILE = "code.json"
_SUFFIXES = (".py", ".typed", ".proto", ".pyi")


@dataclass(frozen=True)
class SourceArchive:
    """An archive of the source tree.

    Attributes:
        path: the .tar.gz file.
        sha256: the digest of what is in it, also its name.
        commit: the commit that was checked out, "unknown" outside a repository.
        is_dirty: whether the tree differs from the commit.
    """

    path: Path
    sha256: str
    commit: str
    is_dirty: bool


def pack_source(tree: Path, *, out_dir: Path) -> SourceArchive:
    """Pack the packages of `tree` into `out_dir`/<sha256>.tar.gz; equal sources give equal bytes.

    `code.json` with the commit is the last member: when it is there, the archive was unpacked whole.

    Raises:
        NotFoundError: the packages are not in `tree`.
    """
    commit, is_dirty = _commit(tree)
    members = [(path.relative_to(tree).as_posix(), path.read_bytes()) for path in _source_files(tree)]
    members.append((_CODE_FILE, canonical_json({"commit": commit, "dirty": is_dirty})))
    data = _tar(members)
    sha256 = sha256_hex(data)
    path = out_dir / f"{sha256}.tar.gz"
    if not path.exists():
        write_durably(path, gzip.compress(data, mtime=0))
    return SourceArchive(path.absolute(), sha256, commit, is_dirty)


def placed_commit(tree: Path) -> tuple[str, bool] | None:
    """Return the commit that an unpacked archive came from and whether it was dirty; None for any other tree."""
    try:
        document = json.loads((tree / _CODE_FILE).read_bytes())
    except FileNotFoundError:
        return None
    return str(document["commit"]), bool(document["dirty"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack the tree that this file is in and print where the archive is as JSON."""
    parser = argparse.ArgumentParser(prog="python -m training_cluster.hosts.source_archive")
    parser.add_argument("--out-dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        archive = pack_source(Path(__file__).parents[2], out_dir=options.out_dir)
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    document = {"path": str(archive.path), "sha256": archive.sha256, "commit": archive.commit}
    sys.stdout.write(json.dumps({**document, "dirty": archive.is_dirty}) + "\n")
    return 0


def _source_files(tree: Path) -> list[Path]:
    files = [
        path
        for package in _PACKAGES
        for path in (tree / package).rglob("*")
        if path.suffix in _SUFFIXES and path.is_file()
    ]
    if not files:
        raise NotFoundError(f"{tree} holds none of {', '.join(_PACKAGES)}: run from a checkout of Liftgate.")
    return sorted(files)


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members:
            # A fresh TarInfo has no owner and the time 0: only names and bytes count.
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _commit(tree: Path) -> tuple[str, bool]:
    try:
        commit = _git(tree, "rev-parse", "HEAD").strip()
        return commit, bool(_git(tree, "status", "--porcelain", "--", *_PACKAGES).strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def _git(tree: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(tree), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
