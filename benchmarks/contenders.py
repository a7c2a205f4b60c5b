"""The servers that the serving benchmark compares: how each is started, asked and weighed.

Each is a script in benchmarks/peers that serves a SavedModel on a port, in the environment
build/peers/NAME, and prints the request that asks it in its natural protocol.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_models import SHAPES
from benchmarks.load_generator import Request, drive

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = REPOSITORY / "build/peers"
SCRIPTS = REPOSITORY / "benchmarks/peers"
_AT_HOME = ("liftgate", "plain_grpcio")  # they run in Liftgate's own environment
_READY_SECONDS = 120.0


@dataclass(frozen=True)
class Contender:
    """A server: its name, which is its script's, and the Python that runs it."""

    name: str
    python: Path

    @property
    def script(self) -> Path:
        """What starts it, and prints a request for it."""
        return SCRIPTS / f"peer_{self.name}.py"


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    request: Request
    pid: int

    def memory_mebibytes(self) -> float:
        """Return the proportional share of memory of the process and its descendants."""
        return sum(pss_kibibytes(pid) for pid in family(self.pid)) / 1024


def contenders(names: Sequence[str]) -> list[Contender]:
    """Return the contenders of these names, or all that are installed."""
    found = []
    for script in sorted(SCRIPTS.glob("peer_*.py")):
        name = script.stem.removeprefix("peer_")
        python = Path(sys.executable) if name in _AT_HOME else PEERS / name / "bin/python"
        if python.exists():
            found.append(Contender(name, python))
    return [contender for contender in found if not names or contender.name in names]


@contextmanager
def running(contender: Contender, model: str, base_path: Path) -> Iterator[Running]:
    """Start a server with version 1 of a model, wait for its first good answer, end it afterwards.

    Raises:
        RuntimeError: it does not answer.
    """
    port = _free_port()
    request = _request(contender, model, port)
    log = REPOSITORY / f"build/bench/{contender.name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(contender.python), str(contender.script), f"--model={base_path / '1'}", f"--port={port}"],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        _wait_for_answer(process, request, log)
        yield Running(request, process.pid)
    finally:
        _end(process)


def _request(contender: Contender, model: str, port: int) -> Request:
    # Each knows its own protocol: it prints path, headers, an empty line and the body for these pixels.
    pixels = np.random.default_rng(0).integers(0, 256, (1, *SHAPES[model]), dtype=np.uint8)
    command = [str(contender.python), str(contender.script), "--request", ",".join(map(str, pixels.shape))]
    done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=True)
    head, _, body = done.stdout.partition(b"\n\n")
    path, *lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    is_grpc = headers.pop("protocol", "") == "grpc"
    return Request(f"http://127.0.0.1:{port}{path}", body, headers, is_grpc=is_grpc)


def _wait_for_answer(process: subprocess.Popen[bytes], request: Request, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            load = drive(request, clients=1, requests=1)
            if not load.failed and load.answer_bytes > 0:
                return
        except RuntimeError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"no answer; its log ends: {log.read_text(errors='replace')[-1500:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    processes = family(process.pid)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += children.get(current, [])
    return found


def pss_kibibytes(pid: int) -> int:
    """Return the proportional share of memory of a process: what it shares counts by how many share it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
