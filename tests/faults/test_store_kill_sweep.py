"""kill -9 before every line of push and of pull, one after the other until the job completes.

A child process is forked for each line, traces its own lines and kills itself before line k runs, so
the sweep sees every state that a crash between two lines can leave. After each kill the state is
inspected; then the same job runs again and must finish. The file is also the program that does it:
forking wants a process without threads.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soak

from artifact_sync import directory_store, durable, manifest, pull, push, registry, transfer
from artifact_sync.canonical import sha256_hex
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.manifest import build_manifest, find_differences
from artifact_sync.pull import pull_version
from artifact_sync.push import push_export
from artifact_sync.records import Manifest, VersionRecord
from artifact_sync.registry import Registry

TRACED = {module.__file__ for module in (directory_store, durable, manifest, pull, push, registry, transfer)}
MOST_LINES = 20_000


class World:
    """An export, a bucket and a serving host under one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.export = root / "export"
        self.models = root / "host" / "models" / "m"

    @property
    def registry(self) -> Registry:
        return Registry(DirectoryStore(self.root / "bucket"), model="m")

    def make_export(self) -> None:
        (self.export / "variables").mkdir(parents=True)
        (self.export / "saved_model.pb").write_bytes(b"graph" * 100)
        (self.export / "variables" / "variables.index").write_bytes(b"")
        # More than two chunks, so that the sweep also kills in the middle of a file.
        (self.export / "variables" / "variables.data").write_bytes(random.Random(5).randbytes(2_500_000))

    def forget(self, *, bucket: bool) -> None:
        shutil.rmtree(self.root / "host", ignore_errors=True)
        if bucket:
            shutil.rmtree(self.root / "bucket", ignore_errors=True)

    def push(self, files: Manifest) -> None:
        push_export(self.registry, self.export, files, workers=1)

    def pull(self, files: Manifest) -> None:
        pull_version(self.registry, version_of(files), models_dir=self.models, reserve_bytes=0, workers=1)

    def check_no_half_state(self, files: Manifest) -> None:
        for info in self.registry.store.list(""):
            with self.registry.store.open(info.key) as stream:
                data = stream.read()
            assert sha256_hex(data) == info.key.rpartition("/")[2], f"half-visible blob {info.key}"
        names = {path.name for path in self.models.iterdir()} if self.models.exists() else set()
        assert names <= {".pull.lock", ".incoming-7", "7"}, names
        if "7" in names:
            assert not find_differences(self.models / "7", files), "half-visible version"
            assert ".incoming-7" not in names

    def check_pushed(self, files: Manifest) -> None:
        for entry in files.files:
            assert self.registry.has_blob(entry.sha256, size_bytes=entry.size_bytes)

    def check_pulled(self, files: Manifest) -> None:
        assert {path.name for path in self.models.iterdir()} == {".pull.lock", "7"}
        assert not find_differences(self.models / "7", files)


def version_of(files: Manifest) -> VersionRecord:
    # Pull looks at these three fields; the rest of a version is not the subject here.
    return VersionRecord.model_construct(model="m", version=7, manifest=files)


def run_and_kill(job: Callable[[], None], *, before_line: int | None) -> bool:
    """Run `job` in a child that is killed before its k-th line; return whether it completed."""
    child = os.fork()
    if child == 0:
        if before_line is not None:
            _trace(before_line)
        status = 1
        try:
            job()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the job failed by itself"
    return True


def _trace(before_line: int) -> None:
    lines = itertools.count(1)

    def trace(frame, event, _):
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line" and next(lines) == before_line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def sweep(root: Path, verb: str, *, first: int, step: int) -> dict[str, int]:
    world = World(root)
    world.make_export()
    files = build_manifest(world.export)
    if verb == "pull":
        world.push(files)
    job, check = {"push": (world.push, world.check_pushed), "pull": (world.pull, world.check_pulled)}[verb]
    kills = 0
    for line in range(first, MOST_LINES, step):
        world.forget(bucket=verb == "push")
        has_completed = run_and_kill(lambda: job(files), before_line=line)
        world.check_no_half_state(files)
        if not has_completed:
            kills += 1
            assert run_and_kill(lambda: job(files), before_line=None)
        check(files)
        world.check_no_half_state(files)
        if has_completed:
            return {"kills": kills}
    raise AssertionError(f"{verb} did not complete within {MOST_LINES} lines")


def histories(root: Path, verb: str, *, seed: int, count: int) -> dict[str, int]:
    """Kill the same job again and again at random lines until it gets through."""
    randomness = random.Random(seed)
    world = World(root)
    world.make_export()
    files = build_manifest(world.export)
    kills = 0
    for _ in range(count):
        world.forget(bucket=True)
        for job, check in ((world.push, world.check_pushed), (world.pull, world.check_pulled)):
            while not run_and_kill(lambda job=job: job(files), before_line=randomness.randint(1, 400)):
                kills += 1
                world.check_no_half_state(files)
                # A machine that dies all the time would never end the test.
                if randomness.random() < 0.1:
                    assert run_and_kill(lambda job=job: job(files), before_line=None)
                    break
            check(files)
    return {"histories": count, "kills": kills}


def run_program(*arguments: str) -> dict[str, int]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: kill -9 loses no page cache, and thousands of fsyncs take minutes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="liftgate-") as directory:
        yield Path(directory)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_kill_before_any_line_leaves_nothing_half_done_and_the_next_run_finishes(verb: str, workspace: Path) -> None:
    at = soak.every(6)
    report = run_program("sweep", str(workspace), verb, str(at.first), str(at.step))
    print(f"{verb}: {report['kills']} kills, {at}")
    assert report["kills"] >= soak.fewest(200, step=6)


def test_a_job_that_is_killed_again_and_again_still_finishes(workspace: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    report = run_program("histories", str(workspace), "both", str(seed), str(soak.rounds(6, soak=20)))
    print(f"{report['histories']} histories, {report['kills']} kills")
    assert report["kills"] > 6


if __name__ == "__main__":
    mode, root_argument, verb_argument, *rest = sys.argv[1:]
    if mode == "sweep":
        print(json.dumps(sweep(Path(root_argument), verb_argument, first=int(rest[0]), step=int(rest[1]))))
    else:
        print(json.dumps(histories(Path(root_argument), verb_argument, seed=int(rest[0]), count=int(rest[1]))))
