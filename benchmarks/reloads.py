"""A hundred reloads of distinct versions under load: `python benchmarks/reloads.py`.

Says how many requests failed, what the reloads did to the slowest of them, and whether memory and
open files grow. Ends with 1 when a request failed.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # `serving` is the package, not the script beside this one

from benchmarks.bench_models import ensure_models, predict_request
from benchmarks.load_generator import Load, Request, drive
from serving.model_server import GrpcModelServer, ModelConfig, VersionState

MODEL = "small-cnn"
REPOSITORY = Path(__file__).resolve().parents[1]
_STEADY_SECONDS = 0.3


@dataclass
class Reloads:
    """When versions were on the move, and what the process held after each move."""

    windows: list[tuple[float, float]] = field(default_factory=list)
    resident_mebibytes: list[float] = field(default_factory=list)
    open_files: list[int] = field(default_factory=list)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--requests", type=int, default=120_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    source = ensure_models(REPOSITORY / "build/bench/models")[MODEL] / "1"
    with tempfile.TemporaryDirectory() as directory:
        base_path = Path(directory)
        for version in range(1, arguments.reloads + 2):
            shutil.copytree(source, base_path / str(version))
        port = _free_port()
        process = _start(base_path, port)
        try:
            with GrpcModelServer(f"127.0.0.1:{port}") as server:
                _wait(server, 1)
                loads, reloads = _under_load(server, base_path, port, process.pid, arguments)
        finally:
            process.terminate()
            process.wait(30)
    return _print(loads, reloads, clients=arguments.clients)


def _start(base_path: Path, port: int) -> subprocess.Popen[bytes]:
    parameters = REPOSITORY / f"benchmarks/batching-{MODEL}.pbtxt"
    config = base_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "{MODEL}" base_path: "{base_path}" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 } } } }"
    )
    command = [sys.executable, "-m", "serving.embedded_server", f"--port={port}", f"--model_config_file={config}"]
    command += ["--enable_batching", f"--batching_parameters_file={parameters}"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _under_load(
    server: GrpcModelServer, base_path: Path, port: int, pid: int, arguments: argparse.Namespace
) -> tuple[list[Load], Reloads]:
    request, loads, stopping = _request(port), [], threading.Event()

    def load() -> None:
        while not stopping.is_set() or sum(load.requests for load in loads) < arguments.requests:
            loads.append(drive(request, clients=arguments.clients, requests=arguments.requests // 8))

    thread = threading.Thread(target=load)
    thread.start()
    reloads = Reloads()
    for version in range(2, arguments.reloads + 2):
        time.sleep(_STEADY_SECONDS)
        began = time.time()
        for held in ((version - 1, version), (version,)):
            server.reload((ModelConfig(MODEL, str(base_path), held),), timeout_seconds=60)
            _wait(server, version)
        _wait_for_end(server, version - 1)
        reloads.windows.append((began, time.time()))
        reloads.resident_mebibytes.append(_resident_mebibytes(pid))
        reloads.open_files.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
    stopping.set()
    thread.join()
    return loads, reloads


def _request(port: int) -> Request:
    body = predict_request(MODEL, batch=1).SerializeToString()
    url = f"http://127.0.0.1:{port}/tensorflow.serving.PredictionService/Predict"
    return Request(url, b"\0" + struct.pack(">I", len(body)) + body, is_grpc=True)


def _wait(server: GrpcModelServer, version: int) -> None:
    _until(lambda: _state(server, version) is VersionState.AVAILABLE)


def _wait_for_end(server: GrpcModelServer, version: int) -> None:
    _until(lambda: _state(server, version) is VersionState.END)


def _state(server: GrpcModelServer, version: int) -> VersionState | None:
    try:
        return next((status.state for status in server.status(MODEL) if status.version == version), None)
    except Exception:  # noqa: BLE001  (it is starting)
        return None


def _until(condition: object) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the server did not get there in 120 s")
        time.sleep(0.05)  # about as often as an agent looks


def _print(loads: list[Load], reloads: Reloads, *, clients: int) -> int:
    began = np.concatenate([load.began_seconds for load in loads])
    latencies = np.concatenate([load.latencies_ms for load in loads])
    ended = began + latencies / 1000
    is_during = np.zeros(len(began), dtype=bool)
    for start, end in reloads.windows:
        is_during |= (began < end) & (ended > start)
    whole = loads[0].answer_bytes
    wrong = sum(load.requests for load in loads if abs(load.answer_bytes - whole) > whole * 1e-3)
    failed = sum(load.failed for load in loads) + wrong
    steady, during = (np.percentile(latencies[mask], [50, 99, 100]) for mask in (~is_during, is_during))
    print(f"{len(began):,} requests by {clients} clients, {len(reloads.windows)} reloads, {failed} failed")
    print(f"steady        {np.sum(~is_during):>9,} requests: p50 {steady[0]:.2f} ms, p99 {steady[1]:.2f} ms")
    print(f"during reload {np.sum(is_during):>9,} requests: p50 {during[0]:.2f} ms, p99 {during[1]:.2f} ms")
    print(f"p99 during a reload is {during[1] / steady[1]:.2f} of steady; the longest took {during[2]:.0f} ms")
    for name, unit, series in (
        ("resident memory", "MiB", reloads.resident_mebibytes),
        ("open files", "", reloads.open_files),
    ):
        half = len(series) // 5
        slope = np.polyfit(np.arange(half, len(series)), series[half:], 1)[0]
        print(
            f"{name}: {series[0]:.0f} {unit} after the first, {series[-1]:.0f} after the last, slope {slope:+.3f} each"
        )
    return 1 if failed else 0


def _resident_mebibytes(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
