"""The embedded model server beside the limit of the machine and beside its peers: `python benchmarks/serving.py`.

The limit is a tight loop in one process over the same SavedModel at its best batch and threads.
Everything runs in turn on the same machine, several rounds, and each figure is the median of the
rounds; what counts is the ratio of two figures of one run. Peers are the ones whose environments
`benchmarks/peers/install` has made; each serves the same SavedModel in its own idiom, batching on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # `serving` is the package, not this script

from benchmarks.bench_models import ensure_models
from benchmarks.contenders import Contender, contenders, running
from benchmarks.load_generator import Load, drive

CLIENTS = {"small-cnn": (1, 8, 32, 64), "mobilenet-v2": (1, 8, 32, 64)}
LOOPS = {
    "small-cnn": [(1, 1, 1), (64, 1, 1), (64, 1, 2), (256, 1, 2)],
    "mobilenet-v2": [(1, 1, 1), (1, 2, 1), (4, 1, 2), (8, 1, 2), (8, 2, 1), (16, 1, 2), (32, 2, 1)],
}
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Figure:
    """One contender with one model and a number of clients, in one round."""

    model: str
    contender: str
    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    memory_mebibytes: float


def main() -> None:
    """Measure, print tables, write them down as JSON."""
    arguments = _arguments()
    models = ensure_models(REPOSITORY / "build/bench/models")
    figures: list[Figure] = []
    for round_number in range(arguments.rounds):
        for name in arguments.models:
            _say(f"round {round_number + 1}: {name}")
            figures += _loops(name, models[name] / "1", seconds=arguments.seconds)
            for contender in contenders(arguments.contenders):
                figures += _contender(contender, name, models[name], seconds=arguments.seconds)
    for name in arguments.models:
        _print_table(name, [figure for figure in figures if figure.model == name])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    _say(f"{platform.machine()}, {platform.python_version()}; every figure of every round is in {arguments.out}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument("--contenders", nargs="+", default=[], help="default: all that are installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build/bench/serving.json")
    return parser.parse_args()


def _loops(name: str, path: Path, *, seconds: float) -> list[Figure]:
    figures = []
    for batch, threads, loops in LOOPS[name]:
        command = [sys.executable, str(Path(__file__).with_name("in_process_loop.py")), str(path)]
        command += [f"--batch={batch}", f"--threads={threads}", f"--loops={loops}", f"--seconds={seconds}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        p50_ms, label = found["p50_ms"], f"loop b{batch} t{threads} x{loops}"
        per_second, memory = found["images_per_second"], found["pss_mebibytes"]
        figures.append(Figure(name, label, 1 if batch == 1 else 0, per_second, p50_ms, p50_ms, 0, memory))
    return figures


def _contender(contender: Contender, name: str, base_path: Path, *, seconds: float) -> list[Figure]:
    figures = []
    try:
        with running(contender, name, base_path) as server:
            good = drive(server.request, clients=1, requests=20)  # warms up, and shows what a good answer has
            for clients in CLIENTS[name]:
                trial = drive(server.request, clients=clients, requests=clients * 4)
                requests = max(clients * 4, int(trial.per_second * seconds))
                load = drive(server.request, clients=clients, requests=requests)
                figures.append(_figure(contender, name, load, good=good, memory=server.memory_mebibytes()))
    except (RuntimeError, OSError) as error:
        _say(f"{contender.name} with {name}: {error}")
    return figures


def _figure(contender: Contender, name: str, load: Load, *, good: Load, memory: float) -> Figure:
    # Answers of another size than a good one's are not answers: gRPC's errors have no body.
    is_wrong = load.answer_bytes < 0.9 * good.answer_bytes
    failed = load.requests if is_wrong else load.failed
    p50_ms, p99_ms = load.percentile_ms(50), load.percentile_ms(99)
    return Figure(name, contender.name, load.clients, load.per_second, p50_ms, p99_ms, failed, memory)


def _print_table(name: str, figures: list[Figure]) -> None:
    groups: dict[tuple[str, int], list[Figure]] = defaultdict(list)
    for figure in figures:
        groups[figure.contender, figure.clients].append(figure)
    limit = max(_median(group, "per_second") for (label, _), group in groups.items() if label.startswith("loop"))
    fastest = min(
        _median(g, "p50_ms") for (label, clients), g in groups.items() if label.startswith("loop") and clients
    )
    _say(f"\n{name}: the loop makes {limit:,.0f} images/s at its best; one image takes it {fastest:.2f} ms (p50)")
    _say(f"{'':<22}{'clients':>8}{'per s':>10}{'of limit':>10}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}{'MiB':>7}")
    for (label, clients), group in groups.items():
        per_second = _median(group, "per_second")
        row = f"{label:<22}{clients or '':>8}{per_second:>10,.0f}{per_second / limit:>10.2f}"
        row += f"{_median(group, 'p50_ms'):>9.2f}{_median(group, 'p99_ms'):>9.2f}"
        _say(row + f"{sum(figure.failed for figure in group):>8}{_median(group, 'memory_mebibytes'):>7.0f}")


def _median(figures: list[Figure], field: str) -> float:
    return statistics.median(getattr(figure, field) for figure in figures)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
