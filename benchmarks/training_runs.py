"""How fast whole trainings go: two workers beside one, the start, checkpoints, determinism, GPUs.

Its place in the flow: parts of `benchmarks/training.py`. Every figure comes from the real trainer in
processes of its own, from what it writes into its progress and from what the kernel says of its time.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact_sync.run_folder import RunFolder
from benchmarks.training_figures import Figure, compared, medians
from benchmarks.training_inputs import copied_to_s3
from benchmarks.training_photos import dataset
from training_cluster.cluster import TrainingRequest
from training_cluster.hosts.local_cluster import LocalCluster

PIXELS = 96
GPU_PIXELS = 224
# NVIDIA's DGX-1, as the comparison that the project was given: images per second on 1, 2 and 5 GPUs.
REFERENCE = {1: 210.0, 2: 404.0, 5: 934.0}
_BATCH, _LARGE_BATCH = 32, 128
_EARLY_WINDOWS = 2


@dataclass(frozen=True)
class Pace:
    """How a training went on.

    Attributes:
        images_per_second: of all workers together.
        cpu_seconds_per_image: of the processor, an image of one worker's own.
    """

    images_per_second: float
    cpu_seconds_per_image: float


def two_workers(directory: Path, *, count: int, windows: int, rounds: int) -> list[Figure]:
    """Compare two workers of one thread on a core each with one alone, and with two that train apart at the same time.

    The latter share the machine's memory and caches, too, so what is left is the price of training together.
    """
    data = dataset(directory, count=count, pixels=PIXELS)
    figures = [
        figure
        for batch in (_BATCH, _LARGE_BATCH)
        for figure in _two_workers(directory, data, batch=batch, windows=windows, rounds=rounds)
    ]
    reference = REFERENCE[2] / REFERENCE[1] / 2
    return [
        *figures,
        Figure("workers", "reference, 2 GPUs", REFERENCE[2], "images/s", "2 × 1 GPU", 2 * REFERENCE[1], reference),
        Figure(
            "workers",
            "reference, 5 GPUs",
            REFERENCE[5],
            "images/s",
            "5 × 1 GPU",
            5 * REFERENCE[1],
            REFERENCE[5] / REFERENCE[1] / 5,
        ),
    ]


def _two_workers(directory: Path, data: str | Path, *, batch: int, windows: int, rounds: int) -> list[Figure]:
    one, apart, two = [], [], []
    for _ in range(rounds):
        one.append(_pace(directory, data, windows=windows, threads=1, batch=batch))
        apart.append(_two_apart(directory, data, windows=windows, batch=batch))
        two.append(_pace(directory, data, workers=2, windows=windows, threads=1, batch=batch))
    alone, both, together = (statistics.median(pace.images_per_second for pace in paces) for paces in (one, apart, two))
    cost, shared = (statistics.median(pace.cpu_seconds_per_image for pace in paces) for paces in (apart, two))
    what = f"2 workers, batches of {batch} each"
    return [
        Figure("workers", what, together, "images/s", "2 × 1 alone", 2 * alone, together / 2 / alone),
        Figure("workers", what, together, "images/s", "2 that train apart", both, together / both),
        Figure("workers", what, shared * 1e3, "CPU ms/image", "2 that train apart", cost * 1e3, cost / shared),
    ]


def _two_apart(directory: Path, data: str | Path, *, windows: int, batch: int) -> Pace:
    """Train twice at once, on a core each; neither knows of the other."""
    own = [directory / f"apart-{core}" for core in (0, 1)]
    for folder in own:
        folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(len(own)) as executor:
        tasks = [
            executor.submit(_pace, folder, data, windows=windows, threads=1, batch=batch, core=core)
            for core, folder in enumerate(own)
        ]
        paces = [task.result() for task in tasks]
    return Pace(
        sum(pace.images_per_second for pace in paces), statistics.mean(pace.cpu_seconds_per_image for pace in paces)
    )


def first_step(directory: Path, *, count: int, rounds: int) -> list[Figure]:
    """Measure from `liftgate train` to the first step that is done, on this machine."""
    data = dataset(directory, count=count, pixels=PIXELS)
    figures = []
    for architecture in ("small-cnn", "mobilenet-v2"):
        config = _config(directory, architecture, log_every=1)
        seconds = [_start_seconds(directory, config, data) for _ in range(rounds)]
        figures.append(Figure("first step", architecture, statistics.median(seconds), "s"))
    return figures


def checkpoints(directory: Path, *, count: int) -> list[Figure]:
    """Measure a whole run that saves often, and what that costs at the usual rhythm."""
    data = dataset(directory, count=count, pixels=PIXELS)
    config = _config(directory, "mobilenet-v2", max_examples=_BATCH * 16, checkpoint_every=4)
    folder = _new_folder(directory, "checkpoints")
    _process(folder, config, data).communicate()
    metrics = folder.read_run().metrics
    rates = [line["images_per_second"] for line in _steps(folder)]
    step_seconds = _BATCH / statistics.median(rates)
    seconds = metrics["checkpoint_seconds_mean"]
    return [
        Figure("checkpoints", "one checkpoint of mobilenet-v2", seconds, "s", "one step", step_seconds),
        Figure(
            "checkpoints", "share of the time at every 500 steps", 100 * seconds / (seconds + 500 * step_seconds), "%"
        ),
    ]


def determinism(directory: Path, *, count: int, windows: int, rounds: int) -> list[Figure]:
    """Compare a training whose bits can be had again with one that does not promise it."""
    data = dataset(directory, count=count, pixels=PIXELS)

    def rate(is_deterministic: bool) -> float:
        return _pace(directory, data, windows=windows, is_deterministic=is_deterministic).images_per_second

    found = medians(rounds, {"deterministic": lambda: rate(True), "not deterministic": lambda: rate(False)})
    against = "not deterministic"
    return [
        compared("determinism", "deterministic", found["deterministic"], against=against, against_value=found[against])
    ]


def from_s3(directory: Path, *, count: int, windows: int, rounds: int) -> list[Figure]:
    """Compare a training that streams its dataset with one that has it in a folder."""
    data = dataset(directory, count=count, pixels=PIXELS)

    def rate(place: str | Path) -> float:
        return _pace(directory, place, windows=windows).images_per_second

    with copied_to_s3(directory, data) as address:
        found = medians(rounds, {"from S3": lambda: rate(address), "from a folder": lambda: rate(data)})
    return [
        compared("s3", "training from S3", found["from S3"], against="a folder", against_value=found["from a folder"])
    ]


def gpus(directory: Path, *, count: int, windows: int) -> list[Figure]:
    """Train MobileNetV2 at 224 pixels on one GPU and on all of this host; nothing where there is none."""
    number = _gpu_count()
    if not number:
        return []
    data = dataset(directory, count=count, pixels=GPU_PIXELS)
    figures = []
    for used, spread in ((1, "device"), (number, "host"))[: 1 + (number > 1)]:
        pace = _pace(directory, data, windows=windows, spread=spread, batch=256 * used, precision="bfloat16")
        alone = figures[0].value if figures else pace.images_per_second
        figures.append(
            Figure(
                "gpu",
                f"{used} GPUs",
                pace.images_per_second,
                "images/s",
                "as many alone",
                used * alone,
                pace.images_per_second / used / alone,
            )
        )
    return figures


def _pace(
    directory: Path,
    data: str | Path,
    *,
    windows: int,
    workers: int = 1,
    threads: int = 0,
    is_deterministic: bool = True,
    spread: str = "",
    batch: int = _BATCH,
    precision: str = "off",
    core: int = 0,
) -> Pace:
    """Train until so many windows of steps were told, and end the trainers; `batch` is one worker's."""
    config = _config(
        directory,
        "mobilenet-v2",
        threads=threads,
        batch=batch * workers,
        is_deterministic=is_deterministic,
        precision=precision,
    )
    folders = [_new_folder(directory, f"pace-{index}") for index in range(workers)]
    with _trainers(folders, config, data, core=core if threads == 1 else None, spread=spread) as processes:
        lines, times = [], []
        for line in processes[0].stdout:
            document = json.loads(line)
            if document["event"] == "step":
                lines.append(document)
                times.append([_cpu_seconds(process.pid) for process in processes])
            if len(lines) == windows + _EARLY_WINDOWS:
                break
        else:
            raise SystemExit(f"the trainer ended: {processes[0].stderr.read()}")
    used = lines[_EARLY_WINDOWS:]
    images = (used[-1]["step"] - lines[_EARLY_WINDOWS - 1]["step"]) * batch
    cpu = statistics.mean(last - first for first, last in zip(times[_EARLY_WINDOWS - 1], times[-1], strict=True))
    return Pace(statistics.median(line["images_per_second"] for line in used), cpu / images)


@contextmanager
def _trainers(
    folders: Sequence[RunFolder], config: Path, data: str | Path, *, core: int | None, spread: str
) -> Iterator[list[subprocess.Popen[str]]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in folders]
        addresses = [f"127.0.0.1:{listening.getsockname()[1]}" for listening in sockets]
    processes = []
    try:
        for index, folder in enumerate(folders):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {"TF_CONFIG": json.dumps(task)} if len(folders) > 1 else {}
            processes.append(
                _process(
                    folder, config, data, core=None if core is None else core + index, spread=spread, **environment
                )
            )
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def _process(
    folder: RunFolder, config: Path, data: str | Path, *, core: int | None = None, spread: str = "", **environment: str
) -> subprocess.Popen[str]:
    pin = () if core is None else ("taskset", "--cpu-list", str(core))
    command = (
        *(*pin, sys.executable, "-m", "training_cluster.trainer", "--run-dir", str(folder.path)),
        *("--run-id", folder.run_id, "--model", "bench", "--config", str(config), "--data", str(data)),
        *("--trained-by", "bench", *(("--spread", spread) if spread else ())),
    )
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
    )


def _config(
    directory: Path,
    architecture: str,
    *,
    log_every: int = 4,
    checkpoint_every: int = 500,
    max_examples: int = 0,
    threads: int = 0,
    batch: int = _BATCH,
    is_deterministic: bool = True,
    precision: str = "off",
) -> Path:
    path = directory / "training.toml"
    epochs = 1 if max_examples else 1000
    path.write_text(
        f'[model]\narchitecture = "{architecture}"\n'
        f"[optimization]\nepochs = {epochs}\nbatch_size = {batch}\nlearning_rate = 1e-3\n"
        f"[data]\nmax_examples = {max_examples}\n"
        f"[execution]\nthreads = {threads}\nlog_every_steps = {log_every}\nis_evaluated = false\n"
        f"checkpoint_every_steps = {checkpoint_every}\nis_deterministic = {str(is_deterministic).lower()}\n"
        f'mixed_precision = "{precision}"\n'
    )
    return path


def _start_seconds(directory: Path, config: Path, data: Path) -> float:
    folder = _new_folder(directory, "start")
    request = TrainingRequest(
        run_id=folder.run_id,
        model="bench",
        config_path=config,
        data=str(data),
        runs_dir=folder.path.parent,
        trained_by="bench",
    )
    cluster = LocalCluster()
    began = time.perf_counter()
    cluster.start(request)
    while not _steps(folder):
        if cluster.state(request).status == "failed":
            raise SystemExit(f"the trainer ended: {cluster.state(request).detail}")
        time.sleep(0.05)
    elapsed = time.perf_counter() - began
    cluster.kill(request)
    return elapsed


def _steps(folder: RunFolder) -> list[dict[str, Any]]:
    path = folder.path / "progress.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [document for line in lines if (document := json.loads(line))["event"] == "step"]


def _new_folder(directory: Path, name: str) -> RunFolder:
    path = directory / "runs" / f"bench-{name}"
    shutil.rmtree(path, ignore_errors=True)
    return RunFolder(path)


def _cpu_seconds(process_id: int) -> float:
    ticks = Path(f"/proc/{process_id}/stat").read_text().rsplit(")")[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _gpu_count() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    program = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)
