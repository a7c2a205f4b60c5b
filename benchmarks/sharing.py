"""Many workers, one model: N processes that share a model server, beside N that each hold the model.

`python benchmarks/sharing.py` prints memory (the proportional share of all processes together) and
images a second, with MobileNetV2 and one photo a request.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # `serving` is the package, not the script beside this one

from benchmarks.bench_models import SHAPES, ensure_models
from benchmarks.contenders import family, pss_kibibytes

MODEL = "mobilenet-v2"


def main() -> None:
    """Measure both ways, or be one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--share", help="be a worker of the server at this address")
    parser.add_argument("--hold", help="be a worker that holds this SavedModel")
    arguments = parser.parse_args()
    if arguments.share or arguments.hold:
        _work(arguments)
        return
    base_path = ensure_models(REPOSITORY / "build/bench/models")[MODEL]
    print(f"{'':>8}{'one server':>25}{'each holds the model':>25}{'ratio':>17}")
    print(f"{'workers':>8}" + 2 * f"{'images/s':>18}{'MiB':>7}" + f"{'memory':>9}{'speed':>8}")
    for count in arguments.workers:
        shared_rate, shared_memory = _shared(base_path, count, arguments.seconds)
        own_rate, own_memory = _measure([f"--hold={base_path / '1'}"], count, arguments.seconds)
        ratios = f"{shared_memory / own_memory:>9.2f}{shared_rate / own_rate:>8.2f}"
        print(f"{count:>8}{shared_rate:>18.0f}{shared_memory:>7.0f}{own_rate:>18.0f}{own_memory:>7.0f}{ratios}")


def _shared(base_path: Path, count: int, seconds: float) -> tuple[float, float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "serving.embedded_server", f"--port={port}", f"--model_name={MODEL}"]
    command += [f"--model_base_path={base_path}", "--enable_batching"]
    command += [f"--batching_parameters_file={REPOSITORY / f'benchmarks/batching-{MODEL}.pbtxt'}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while "READY" not in server.stdout.readline():
            pass
        return _measure([f"--share=127.0.0.1:{port}"], count, seconds, beside=server.pid)
    finally:
        server.terminate()
        server.wait(30)


def _measure(flags: list[str], count: int, seconds: float, *, beside: int | None = None) -> tuple[float, float]:
    command = [sys.executable, __file__, f"--seconds={seconds}", *flags]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(count)
    ]
    for worker in workers:
        worker.stdout.readline()  # it has answered once
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    time.sleep(seconds / 2)
    pids = [worker.pid for worker in workers] + ([beside] if beside else [])
    mebibytes = sum(pss_kibibytes(pid) for root in pids for pid in family(root)) / 1024
    rate = sum(json.loads(worker.communicate()[0]) for worker in workers)
    return rate, mebibytes


def _work(arguments: argparse.Namespace) -> None:
    import numpy as np

    pixels = np.zeros((1, *SHAPES[MODEL]), np.uint8)
    predict = _asking(arguments.share, pixels) if arguments.share else _holding(arguments.hold, pixels)
    predict()
    print("ready", flush=True)
    sys.stdin.readline()
    count, end = 0, time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        predict()
        count += 1
    print(json.dumps(count / arguments.seconds))


def _asking(address: str, pixels: object) -> Callable[[], object]:
    from serving.model_server import GrpcModelServer

    server = GrpcModelServer(address)
    return lambda: server.predict(MODEL, pixels).scores


def _holding(model: str, pixels: object) -> Callable[[], object]:
    sys.path.append(str(REPOSITORY / "benchmarks/peers"))
    from saved_model import load

    run = load(model)
    return lambda: run(pixels)


if __name__ == "__main__":
    main()
